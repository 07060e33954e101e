package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Commit makes b visible and appends it to the WAL without waiting for a sync.
// It consumes b. An error is the engine's failure: Config.Fatal was called.
func (e *Engine) Commit(b *Batch) error {
	p := b.take()
	if e.cfg.Simulated {
		return e.applySimulated(b, p)
	}
	if err := e.apply(p, false); err != nil {
		return err
	}
	b.committed()
	p.Close()
	return nil
}

// CommitSync makes b visible at once; done is called later, from another step,
// once b and all that was committed before it are durable, even if b is empty.
// Completions of one lane are called in order. It consumes b. done is never
// called after a failure (Config.Fatal is), and must not wait for the engine.
func (e *Engine) CommitSync(b *Batch, lane int, done func()) error {
	p := b.take()
	if e.cfg.Simulated {
		return e.commitSimulated(b, p, done)
	}
	if p.Empty() {
		// Pebble returns from the sync of an empty batch at once, whatever was
		// committed before it. A response that leaves then, a duplicate vote say,
		// could be ahead of the first one's record. An empty log record is synced
		// like any other.
		if err := p.LogData(nil, nil); err != nil {
			e.fail(err)
			return e.failure()
		}
	}
	if err := e.apply(p, true); err != nil {
		return err
	}
	b.committed()
	e.waiters[uint(lane)%uint(len(e.waiters))].add(p, done)
	return nil
}

var syncLater, syncNever = &pebble.WriteOptions{Sync: true}, &pebble.WriteOptions{Sync: false}

// apply hands p to Pebble. Errors of the WAL come as an error, as a Fatalf, or,
// when the writer had failed before, as a panic that leaves Pebble's commit lock
// taken; so nothing may be committed after any of them.
func (e *Engine) apply(p *pebble.Batch, sync bool) (err error) {
	if err := e.failure(); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			e.fail(fmt.Errorf("commit: %v", r))
			err = e.failure()
		}
	}()
	if sync {
		err = e.db.ApplyNoSyncWait(p, syncLater)
	} else {
		err = e.db.Apply(p, syncNever)
	}
	if err != nil {
		e.fail(fmt.Errorf("commit: %w", err))
	}
	e.commits.Add(1)
	return e.failure()
}

// syncWAL returns once everything committed so far is durable. It blocks.
func (e *Engine) syncWAL() error {
	if err := e.failure(); err != nil {
		return err
	}
	if err := e.db.LogData(nil, syncLater); err != nil {
		e.fail(fmt.Errorf("WAL sync: %w", err))
	}
	return e.failure()
}
