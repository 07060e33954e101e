package replica

import (
	"errors"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// read is one read between Execute and its reply. The memory is used again after
// that; nobody else may hold on to it.
type read struct {
	r       *Replica
	id      uint64
	reply   func(shard.Response)
	version uint64
	bytes   int
	command shard.Command

	// Noted before the view is opened.
	generation uint64
	last       shard.Revision
}

func (s *Store) read(r *Replica, q *shard.Request, c *shard.Command, reply func(shard.Response)) {
	if !s.readBudget.take(len(q.Command)) {
		s.refuse(q.ID, shard.ErrBusy, reply)
		return
	}
	s.stats.read(c)
	rd := s.readPool.Get().(*read)
	rd.r, rd.id, rd.reply, rd.version, rd.bytes, rd.command = r, q.ID, reply, q.Target.Version, len(q.Command), *c
	if c.Revision != 0 {
		rd.readAt()
		return
	}
	if err := r.group.Read(rd); err != nil {
		rd.refuse(r.hinted(err))
	}
}

// Confirmed takes reads whose group has confirmed that it leads, and whose
// applied state is at least as new as when they were submitted.
func (t turn) Confirmed(confirmed []raftgroup.Read, err error) {
	if err != nil {
		err = t.hinted(err)
	}
	if confirmed = t.confirmations(confirmed, err); len(confirmed) == 0 {
		return
	}
	if err != nil {
		for _, rd := range confirmed {
			rd.(*read).refuse(err)
		}
		return
	}
	t.store.reads.confirmed(confirmed)
}

func (rd *read) refuse(err error) { rd.finish(shard.Response{Err: err}) }

// finish replies. rd is somebody else's afterwards.
func (rd *read) finish(p shard.Response) {
	s := rd.r.store
	p.ID = rd.id
	if p.Err != nil {
		s.stats.failed(p.Err)
	}
	rd.reply(p)
	s.readBudget.give(rd.bytes)
	*rd = read{}
	s.readPool.Put(rd)
}

// note is called before the view is opened. It is false if the read must wait,
// and has been put where it will be found when it need not.
func (rd *read) note() bool {
	r := rd.r
	for {
		rd.generation = r.generation.Load()
		// All writes up to the last published revision are in a view opened from now on.
		rd.last = shard.Revision(r.lastRevision.Load())
		if rd.generation%2 == 0 || planted.On(planted.ReadThroughIngest) {
			return true
		}
		r.deferredMu.Lock()
		if r.stopped {
			r.deferredMu.Unlock()
			rd.refuse(shard.ErrUnavailable)
			return false
		}
		// The generation turns even under the lock that is held here.
		if r.generation.Load()%2 == 1 {
			r.deferred = append(r.deferred, rd)
			r.deferredMu.Unlock()
			r.store.stats.readRetries.Add(1)
			return false
		}
		r.deferredMu.Unlock()
	}
}

// serve answers a noted read from v, or lets it be read again from another view.
func (rd *read) serve(v view) {
	r := rd.r
	res, err := rd.evaluate(v, r.descriptor.Load())
	// Only now is it known that descriptor and data belong together. A view that was
	// opened while a snapshot was being installed can lack data without an error;
	// one that was opened before a change of the span can have lost a key to
	// another shard that has written it since.
	changed := r.generation.Load() != rd.generation && !planted.On(planted.DescriptorNotRechecked) && !planted.On(planted.ReadThroughIngest)
	if changed || err == errUnfit {
		r.store.stats.readRetries.Add(1)
		rd.again()
		return
	}
	if err == nil {
		r.load.read(&rd.command, res.Resume)
	}
	rd.finish(shard.Response{Err: err, Result: res})
}

// errUnfit: the view does not serve the read, another one will.
var errUnfit = errors.New("the view does not fit the revision to read at")

// again lets the read be served from a newer view.
func (rd *read) again() {
	if rd.command.Revision != 0 {
		rd.readAt()
		return
	}
	rd.r.store.reads.again(rd)
}

func (rd *read) evaluate(v view, d *shard.Descriptor) (shard.Result, error) {
	c := &rd.command
	if d == nil {
		return shard.Result{}, shard.ErrUnavailable
	}
	if rd.version != d.Epoch.Version || !begins(c, d.Span) {
		return shard.Result{}, rd.r.store.wrongShard(d.ID, rd.r, c)
	}
	at, err := rd.at()
	if err != nil {
		return shard.Result{}, err
	}
	if c.Kind == shard.KindScan {
		return page(v, c, d.Span, at)
	}
	value, rev, found, err := v.Get(c.Key, at)
	if err != nil {
		return shard.Result{}, &shard.InternalError{Reason: "reading the store: " + err.Error()}
	}
	if !found {
		return shard.Result{}, nil
	}
	return shard.Result{Revision: rev, Found: true, Value: value}, nil
}
