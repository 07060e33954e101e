package main

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// span is a range of user keys; without an end it is unbounded.
type span struct{ start, end []byte }

func (s span) contains(key []byte) bool {
	return bytes.Compare(s.start, key) <= 0 && (len(s.end) == 0 || bytes.Compare(key, s.end) < 0)
}

// gap is the longest time within a watch in which no operation on a span was answered.
type gap struct {
	span
	last    time.Time
	longest time.Duration
	ended   bool
}

func (g *gap) at(now time.Time) {
	g.longest = max(g.longest, now.Sub(g.last))
	g.last = now
}

// watched is a client whose answers are watched for gaps.
type watched struct {
	*client.Client

	mu   sync.Mutex
	open []*gap
}

// watch begins a watch. The time until the first answer counts.
func (w *watched) watch(s span) *gap {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := &gap{span: s, last: time.Now()}
	w.open = append(w.open, g)
	return g
}

// end ends a watch, if endAll has not done so, and returns the longest gap. The time since
// the last answer counts.
func (w *watched) end(g *gap) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !g.ended {
		g.ended = true
		g.at(time.Now())
		for i, o := range w.open {
			if o == g {
				w.open = append(w.open[:i], w.open[i+1:]...)
				break
			}
		}
	}
	return g.longest
}

// endAll ends all watches: nothing is asked any more.
func (w *watched) endAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, g := range w.open {
		g.ended = true
		g.at(now)
	}
	w.open = nil
}

func (w *watched) answered(key []byte, err error) {
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.open) == 0 {
		return
	}
	now := time.Now()
	for _, g := range w.open {
		if g.contains(key) {
			g.at(now)
		}
	}
}

// Get is the client's.
func (w *watched) Get(ctx context.Context, key []byte, opts ...client.CallOption) (client.KeyValue, error) {
	kv, err := w.Client.Get(ctx, key, opts...)
	w.answered(key, err)
	return kv, err
}

// Put is the client's.
func (w *watched) Put(ctx context.Context, key, value []byte, opts ...client.CallOption) (shard.Revision, error) {
	r, err := w.Client.Put(ctx, key, value, opts...)
	w.answered(key, err)
	return r, err
}
