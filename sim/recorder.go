package sim

import (
	"errors"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Recorder writes the history of clients of real processes, and judges it as a
// simulation's is, but for what only the logs can tell. Its times are logical: what had returned before
// another operation was called comes before it. It is safe for concurrent use; an
// Op, Call or Snapshot belongs to one goroutine until it is handed back.
type Recorder struct {
	mu      sync.Mutex
	history History
}

// Begin notes the call of an operation on one key, or of a draw.
func (r *Recorder) Begin(o *Op) *Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history.Begin(o)
}

// End notes that it returned. The caller has written into o what it was told. A read
// that failed, but for a key that has no value, says nothing.
func (r *Recorder) End(o *Op, err error) {
	how := classify(err)
	if o.Kind == shard.KindGet || o.Kind == shard.KindDraw {
		if how = refused; err == nil || errors.Is(err, client.ErrNotFound) {
			how = done
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.End(o, how)
}

// BeginCall notes the call of a batch.
func (r *Recorder) BeginCall(c *Call) *Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history.BeginCall(c)
}

// EndCall notes that it returned. The caller has written its result into c.
func (r *Recorder) EndCall(c *Call, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.EndCall(c, classify(err))
}

// Saw notes what reads at a revision, which have returned, said of some keys.
func (r *Recorder) Saw(all ...*Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range all {
		r.history.Saw(s)
	}
}

// Keys counts the keys that operations named: each has a history of its own.
func (r *Recorder) Keys() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.history.keys())
}

// Check tells whether all that was recorded could have happened on one copy of the
// data. timeout bounds the search for one key's order; one that takes longer is
// an error that says Unknown. Operations that have not returned count as undetermined.
func (r *Recorder) Check(timeout time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.history.Check(timeout)
}
