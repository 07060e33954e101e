package replica

import (
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// turn is a replica as its raft group sees it: what the group calls on its turn.
type turn struct{ *Replica }

var _ raftgroup.Machine = turn{}

// Descriptor is the shard's, with the changes of this turn.
func (t turn) Descriptor() *shard.Descriptor {
	if !t.machine.Initialized() {
		return nil
	}
	return &t.machine.State().Descriptor
}

// Applied is the position of the last entry that EndApply covered.
func (t turn) Applied() raftgroup.Position { return t.machine.Applied() }

// Apply applies one operation.
func (t turn) Apply(b *storage.Batch, at raftgroup.Position, op []byte) (raftgroup.Result, error) {
	res, err := t.machine.Apply(b, at, op)
	if detail, ok := res.Detail.(*shard.Result); ok {
		t.keep(&res, detail)
	}
	if res.Born != nil {
		t.born = append(t.born, res.Born)
		t.change()
	}
	return res, err
}

// change comes before a batch that changes the descriptor. The generation turns odd
// before that can be committed.
func (t turn) change() {
	if !t.changing {
		t.changing = true
		t.unsettle()
	}
}

// readBytesMax bounds what the batches of one turn have read, which is kept until
// their replies. A few bytes of a batch may read megabytes.
const readBytesMax = 32 << 20

// keep counts what a batch has read, and leaves it away past the bound. One that
// wrote nothing may be tried again. Of one that did the caller is not told the
// outcome; a later attempt is, by the look-up.
func (t turn) keep(res *raftgroup.Result, detail *shard.Result) {
	bytes := 0
	for i := range detail.Rows {
		bytes += len(detail.Rows[i].Value)
	}
	switch {
	case t.readBytes+bytes <= readBytesMax || bytes == 0:
		t.readBytes += bytes
		return
	case detail.Revision == 0:
		res.Err = shard.ErrBusy
	default:
		res.Err = shard.ErrUndetermined
	}
	res.Detail = nil
}

// ApplyMembership applies a membership change.
func (t turn) ApplyMembership(_ *storage.Batch, at raftgroup.Position, change []byte) (bool, raftgroup.Result, error) {
	accepted, res, err := t.machine.ApplyMembership(at, change)
	if accepted {
		t.change()
	}
	return accepted, res, err
}

// EndApply stages the replicated state.
func (t turn) EndApply(b *storage.Batch, at raftgroup.Position) {
	if err := t.machine.EndApply(b, at); err != nil {
		panic(fmt.Sprintf("shard %d, replica %d: %v", t.id, t.self, err))
	}
	t.readBytes = 0
}

// Published makes the state of the last batch known outside the turn.
func (t turn) Published() {
	t.machine.Published()
	t.publish()
	if checks := t.machine.TakeChecks(); len(checks) > 0 {
		t.checked(checks, t.machine.State().Applied)
	}
	if t.changing {
		t.changing = false
		t.parted()
		t.publishDescriptor()
		t.settle()
	}
}

// InstallBegin comes before the installation of a snapshot touches any data.
func (t turn) InstallBegin() { t.unsettle() }

// InstallEnd comes when it is done: state is what was installed, nil if nothing.
func (t turn) InstallEnd(state *storage.ReplicaState) {
	if state == nil {
		t.settle()
		return
	}
	t.machine.Reset(state)
	t.sweep.fresh.Store(true)
	t.publish()
	t.publishDescriptor()
	t.store.releaseBirth(t.id)
	t.settle()
}

// Expecting tells whether writes are about to be proposed.
func (t turn) Expecting() bool { return t.draws.expecting() }

// LeaderChanged takes note of the group's leadership. Writes that have drawn find
// out when they are proposed.
func (t turn) LeaderChanged(l raftgroup.Leadership) {
	gained := l.Leading && !t.leadership.Load().Leading
	newTerm := l.Leading && t.leadership.Load().Term != l.Term
	t.leadership.Store(&l)
	t.draws.deposed(&l)
	if d := t.descriptor.Load(); d != nil && (gained || newTerm) {
		t.store.cfg.DescriptorChanged(*d, true, l.Term)
	}
}

// Stopped ends the replica. The generation stays odd: its data may be removed.
func (t turn) Stopped(err error) {
	if err != nil && !errors.Is(err, raftgroup.ErrRemoved) {
		t.store.cfg.Logger.Warn("replica stopped", "shard", uint64(t.id), "replica", uint64(t.self), "error", err)
	}
	t.unsettle()
	l := *t.leadership.Load()
	l.Leading = false
	if l.Leader == t.self {
		l.Leader, l.Node = 0, 0
	}
	t.leadership.Store(&l)
	t.draws.deposed(&l)
	t.deferredMu.Lock()
	t.stopped = true
	reads := t.deferred
	t.deferred = nil
	t.deferredMu.Unlock()
	for _, rd := range reads {
		rd.refuse(shard.ErrUnavailable)
	}
}

// Removed takes the replica out of the store. Its span is free from now on: whoever
// reserves it finds the data gone.
func (t turn) Removed() {
	t.store.replicas.remove(t.Replica)
	t.store.releaseBirth(t.id)
}

// publish copies the machine's state to where other steps read it.
func (r *Replica) publish() {
	s := r.machine.State()
	r.publishedMu.Lock()
	r.published = *s
	r.initialized = true
	r.publishedMu.Unlock()
	r.floor.Store(uint64(s.Floor))
	r.lastRevision.Store(uint64(s.LastRevision))
	r.store.applied(s.LastRevision)
}

// publishDescriptor is called while the generation is odd.
func (r *Replica) publishDescriptor() {
	d := r.machine.State().Descriptor
	r.descriptor.Store(&d)
	r.store.replicas.stale.Store(true)
	l := r.leadership.Load()
	r.store.cfg.DescriptorChanged(d, l.Leading, l.Term)
}

// unsettle makes the generation odd, settle makes it even when the last reason
// is gone, and lets the reads go on that wait for it.
func (r *Replica) unsettle() {
	if r.unsteady == 0 {
		r.generation.Add(1)
	}
	r.unsteady++
}

func (r *Replica) settle() {
	r.unsteady--
	if r.unsteady > 0 {
		return
	}
	r.deferredMu.Lock()
	r.generation.Add(1)
	reads := r.deferred
	r.deferred = nil
	r.deferredMu.Unlock()
	r.store.reads.submit(reads)
}
