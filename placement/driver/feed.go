package driver

import (
	"errors"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/shard"
)

// work starts updates as far as there is room, after reading the directory as a
// whole when many entries have to be looked up, as after a restart: most of them
// are then found to be up to date, without a command each.
func (f *Feeder) work() {
	if f.isClosed() || f.listing || f.pausing {
		return
	}
	if f.unknown() >= listMin {
		f.list()
		return
	}
	for len(f.ready) > 0 && f.updates < updatesMax {
		t := f.ready[0]
		f.ready = f.ready[1:]
		t.queued = false
		if t.gone {
			delete(f.tasks, t.entry.Descriptor.ID)
			continue
		}
		f.update(t)
	}
}

func (f *Feeder) isClosed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// unknown counts the entries that were never looked up among the next ones.
func (f *Feeder) unknown() (n int) {
	for _, t := range f.ready[:min(len(f.ready), 2*listMin)] {
		if _, ok := f.known[t.entry.Descriptor.ID]; !ok && !t.gone {
			n++
		}
	}
	return n
}

// list reads the directory for all that wait.
func (f *Feeder) list() {
	f.listing = true
	f.dir.ListDirectory(func(rows []catalog.DirectoryRow, err error) {
		f.queue.Submit(func() {
			f.listing = false
			if err != nil && !errors.Is(err, shard.ErrMalformed) {
				f.pause("reading the directory", err)
				return
			}
			// One record that does not decode must not keep the others from
			// being written: then, each is looked up alone.
			f.forgetIfMany()
			for _, t := range f.ready {
				id := t.entry.Descriptor.ID
				if _, ok := f.known[id]; !ok {
					f.known[id] = nil
				}
			}
			for i := range rows {
				if t := f.tasks[rows[i].Descriptor.ID]; t != nil && t.queued {
					f.known[rows[i].Descriptor.ID] = rows[i].Value
				}
			}
			f.failures = 0
			f.work()
		})
	})
}

// update brings one entry forward.
func (f *Feeder) update(t *task) {
	id := t.entry.Descriptor.ID
	known := f.known[id]
	if known != nil && catalog.UpToDate(known, t.entry) {
		delete(f.tasks, id)
		return
	}
	t.inFlight = true
	f.updates++
	f.dir.UpdateDirectory(t.entry, known, func(now []byte, err error) {
		f.queue.Submit(func() { f.updated(t, now, err) })
	})
}

func (f *Feeder) updated(t *task, now []byte, err error) {
	id := t.entry.Descriptor.ID
	f.updates--
	t.inFlight = false
	again := t.again
	t.again = false
	var invalid *shard.InvalidError
	switch {
	case errors.Is(err, shard.ErrMalformed) || errors.As(err, &invalid):
		// Nothing that is repeated here mends that; the shard's next news tries again.
		delete(f.known, id)
		delete(f.tasks, id)
		f.log.warn("the shard directory has an entry that cannot be written", "shard", id, "err", err)
	case err != nil:
		delete(f.known, id)
		f.enqueue(t)
		f.pause("writing to the directory", err)
		return
	case t.gone:
		delete(f.tasks, id)
	case again:
		f.remember(id, now)
		f.enqueue(t)
	default:
		f.remember(id, now)
		delete(f.tasks, id)
	}
	f.failures = 0
	f.work()
}

// remember keeps an entry's value: the next change of the shard is then written
// without reading it first.
func (f *Feeder) remember(id shard.ID, value []byte) {
	f.forgetIfMany()
	f.known[id] = value
}

func (f *Feeder) forgetIfMany() {
	if len(f.known) >= knownMax {
		clear(f.known)
	}
}

// pause leaves the meta shard alone for a while: what failed for one entry would
// fail for the others.
func (f *Feeder) pause(what string, err error) {
	f.log.warn("the shard directory lags behind and is fed again after a pause", "while", what, "waiting", len(f.tasks), "err", err)
	if f.pausing {
		return
	}
	f.failures++
	d := min(feedBackoffMax, feedBackoffMin<<min(f.failures-1, 10))
	f.pausing = true
	f.env.AfterFunc(d/2+time.Duration(f.env.Uint64()%uint64(d)), f.queue, func() {
		f.pausing = false
		f.work()
	})
}
