package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/sim"
)

// window is some neighbouring keys of a slot, read at one revision.
type window struct {
	rev                   shard.Revision
	drawn                 time.Time
	where, slot, from, to int // generations [from, to)
}

// looks remembers what was read at a revision, so that it can be read again.
type looks struct {
	mu   sync.Mutex
	kept []window
}

const (
	looksMax = 400
	// lookPause is between two looks at everything.
	lookPause = 300 * time.Millisecond
	// keptFor is how long revisions can be read for sure: less than the default retention.
	keptFor = 8 * time.Minute
)

func (k *looks) remember(w window, at int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.kept) < looksMax {
		k.kept = append(k.kept, w)
	} else {
		k.kept[at%looksMax] = w
	}
}

func (k *looks) all() []window {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]window(nil), k.kept...)
}

// lookBack draws revisions and reads the keys in use at them, in all ranges, and some windows
// of before again, at any replica.
func (w *worker) lookBack() {
	for !w.stopped.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), opPatience)
		rev, err := w.draw(ctx)
		cancel()
		if err == nil {
			w.lookAt(rev)
		}
		for range 4 {
			if kept := w.looks.all(); len(kept) > 0 {
				w.tryLook(kept[w.rnd.IntN(len(kept))], true)
			}
		}
		time.Sleep(lookPause)
	}
}

// draw draws a revision.
func (w *worker) draw(ctx context.Context) (rev shard.Revision, err error) {
	o := w.recorder.Begin(&sim.Op{Client: w.id, Kind: shard.KindDraw, Count: 1, At: time.Since(w.started)})
	rev, err = w.client.Revision(ctx)
	o.Rev = rev
	w.recorder.End(o, err)
	return rev, err
}

// lookAt reads the keys in use of all ranges at one revision.
func (w *worker) lookAt(rev shard.Revision) {
	drawn := time.Now()
	for where := range ranges {
		for i := range slots {
			s := &w.slots[where][i]
			s.mu.Lock()
			now := s.generation
			s.mu.Unlock()
			v := window{rev: rev, drawn: drawn, where: where, slot: i, from: max(0, now-1), to: now + 1}
			if w.tryLook(v, false) {
				w.looks.remember(v, w.rnd.IntN(looksMax))
			}
		}
	}
}

// tryLook reads a window with a client's patience.
func (w *worker) tryLook(v window, anyReplica bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), opPatience)
	defer cancel()
	err := w.look(ctx, v, anyReplica)
	w.count(v.where, err)
	return err == nil
}

// look reads a window, and notes what it says of each key in it.
func (w *worker) look(ctx context.Context, v window, anyReplica bool) error {
	o := client.ScanOptions{Start: []byte(registerKey(v.where, v.slot, v.from)), End: []byte(registerKey(v.where, v.slot, v.to)), Revision: v.rev, AnyReplica: anyReplica}
	call := time.Since(w.started)
	found := map[string]client.KeyValue{}
	for kv, err := range w.client.Scan(ctx, o) {
		if err != nil {
			if (errors.Is(err, shard.ErrCompacted) || errors.Is(err, shard.ErrFutureRevision)) && time.Since(v.drawn) < keptFor {
				w.verdict.fail("a scan at revision %d, drawn %v ago, was refused: %v", v.rev, time.Since(v.drawn).Round(time.Millisecond), err)
			}
			return err
		}
		found[string(kv.Key)] = client.KeyValue{Value: bytes.Clone(kv.Value), Revision: kv.Revision}
	}
	var snapshots []*sim.Snapshot
	for g := v.from; g < v.to; g++ {
		key := registerKey(v.where, v.slot, g)
		kv, there := found[key]
		delete(found, key)
		snapshots = append(snapshots, &sim.Snapshot{At: v.rev, Key: user(key), Found: there, Value: string(kv.Value), Rev: kv.Revision, Asked: true, Client: w.id, Time: call})
	}
	for key := range found {
		w.verdict.fail("a scan at revision %d found %q, which nobody writes", v.rev, key)
	}
	w.recorder.Saw(snapshots...)
	return nil
}

// lookAgain reads everything that was looked at once more, at the leaders and at any replica,
// and then the whole keyspace twice at one revision.
func (l *load) lookAgain(ctx context.Context) error {
	kept := l.looks.all()
	err := inParallel(2*len(kept), func(worker_ int) func(int) error {
		w := &worker{load: l, id: 3000 + worker_, client: l.clients[worker_%len(l.clients)]}
		return func(i int) error {
			v := kept[i/2]
			if err := w.look(ctx, v, i%2 == 0); err != nil && !(errors.Is(err, shard.ErrCompacted) && time.Since(v.drawn) >= keptFor) {
				return err
			}
			return nil
		}
	})
	if err != nil {
		return err
	}
	rev, err := l.clients[0].Revision(ctx)
	if err != nil {
		return err
	}
	first, err := l.whole(ctx, 0, client.ScanOptions{Revision: rev})
	if err != nil {
		return err
	}
	for i, o := range []client.ScanOptions{{Revision: rev, AnyReplica: true}, {Revision: rev, PageRows: 70}} {
		again, err := l.whole(ctx, i+1, o)
		if err != nil {
			return err
		}
		if again != first {
			l.verdict.fail("a scan of everything at revision %d was repeated and gave something else: %v, then %v", rev, first, again)
		}
	}
	return nil
}

// content sums up a scan.
type content struct {
	rows int
	hash string
}

func (c content) String() string { return fmt.Sprintf("%d rows of hash %x", c.rows, c.hash) }

// whole scans everything.
func (l *load) whole(ctx context.Context, i int, o client.ScanOptions) (c content, err error) {
	h := sha256.New()
	for kv, err := range l.clients[i%len(l.clients)].Scan(ctx, o) {
		if err != nil {
			return c, err
		}
		c.rows++
		fmt.Fprintf(h, "%d %q %d %q\n", c.rows, kv.Key, kv.Revision, kv.Value)
	}
	c.hash = string(h.Sum(nil))
	return c, nil
}
