package driver

import (
	"errors"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// begin carries out a step that the plan has taken.
func (d *Driver) begin(e *entry, st *placement.Step) {
	e.step++
	e.InFlight, e.began = st, d.env.Now()
	if st.Task != nil {
		e.Task, e.task = st.Task, pursuit{epoch: e.Descriptor.Epoch, since: e.began}
	}
	id, step, run := e.Descriptor.ID, e.step, d.run
	end := func(after shard.Descriptor, err error) {
		d.submit(run, func() {
			if e := d.entries[id]; e != nil && e.InFlight != nil && e.step == step {
				d.end(e, after, err)
			}
		})
	}
	switch st.Kind {
	case placement.TransferLeader:
		d.cluster.TransferShard(st.Leader, st.Shard, st.Replica, func(err error) { end(shard.Descriptor{}, err) })
	case placement.Split:
		d.split(st, end)
	default:
		d.cluster.ChangeMembership(st.Leader, st.Membership(), end)
	}
}

// split asks for a split with an ID of its own for the right side. An attempt that fails
// spends the ID.
func (d *Driver) split(st *placement.Step, end func(shard.Descriptor, error)) {
	run := d.run
	d.records.AllocateShard(func(right shard.ID, err error) {
		if err != nil {
			end(shard.Descriptor{}, err)
			return
		}
		s := shard.Split{Shard: st.Shard, Epoch: st.Epoch, Key: st.SplitAt, Right: right}
		d.cluster.SplitShard(st.Leader, s, func(left, right shard.Descriptor, err error) {
			if err == nil {
				d.submit(run, func() { d.born(st, &right) })
			}
			end(left, err)
		})
	})
}

// born makes the right side of a split known, with half of what its parent bore: its
// leader's own figures begin with nothing, and leaders would be moved by them. Most often the
// parent's leader leads it; the next report tells.
func (d *Driver) born(st *placement.Step, right *shard.Descriptor) {
	parent := d.entries[st.Shard]
	if parent == nil || right.ID == 0 {
		return
	}
	now := max(d.env.Now(), 1)
	e, added := d.entry(right)
	if added {
		d.sort()
		d.clock++
		e.Leader, e.seen, e.changed = st.Leader, now, d.clock
	}
	e.Load = placement.Load{Reads: parent.Load.Reads / 2, Writes: parent.Load.Writes / 2}
	e.led, e.measured = now, now
}

// end takes in how a step ended and goes on with the shard, and with others if
// there is room.
func (d *Driver) end(e *entry, after shard.Descriptor, err error) {
	st := e.InFlight
	e.InFlight = nil
	d.clock++
	e.changed = d.clock
	d.plan.Finish(st, err == nil)
	if err != nil {
		d.failed(e, st, err)
	} else {
		d.log.debug("placement step done", "step", st)
		e.failures, e.retryAt, e.Hold, e.refused = 0, 0, false, ""
		e.done(st, after)
		d.next(e)
	}
	d.fill()
	if d.plan.Waits(&e.Shard) {
		d.pollWithin(busyPoll)
	}
}

// done changes what is known of the shard as the step did.
func (e *entry) done(st *placement.Step, after shard.Descriptor) {
	switch st.Kind {
	case placement.TransferLeader:
		// What the old leader knew of the members says nothing of the new one.
		e.Leader, e.Raised, e.Progress = st.Node, false, nil
		return
	case placement.LeaveJoint:
		e.Raised = true
	case placement.Split:
		// The right side is an entry of its own (born).
		e.SplitAt, e.Bytes = nil, e.Bytes/2
		e.Load.Reads, e.Load.Writes = e.Load.Reads/2, e.Load.Writes/2
	}
	if after.ID != e.Descriptor.ID && st.Kind == placement.Split {
		return
	}
	if after.ID != e.Descriptor.ID {
		m := st.Membership()
		var err error
		if after, err = m.Apply(&e.Descriptor); err != nil {
			return // the next report tells
		}
	}
	if after.Epoch.Newer(e.Descriptor.Epoch) {
		e.Descriptor = after
	}
}

// failed puts the shard aside for a while. What the error says of the shard is
// newer than the last report.
func (d *Driver) failed(e *entry, st *placement.Step, err error) {
	e.failures++
	e.refused = err.Error()
	if st.Task != nil && e.Task == st.Task {
		e.Task = nil // it has not begun
	}
	pause := min(stepBackoffMax, stepBackoffMin<<min(e.failures-1, 10))
	pause = pause/2 + time.Duration(d.env.Uint64()%uint64(pause))
	e.retryAt, e.Hold = d.env.Now()+pause, true
	var wrong *shard.WrongShardError
	if errors.As(err, &wrong) {
		for i := range wrong.Descriptors {
			if now := &wrong.Descriptors[i]; now.ID == e.Descriptor.ID && now.Epoch.Newer(e.Descriptor.Epoch) {
				e.Descriptor = *now
			}
		}
	}
	d.log.warn("a placement step failed and will be decided again", "step", st.String(), "failures", e.failures, "err", err)
}

// abandon gives up on a step whose answer never came; the plan is made anew.
func (d *Driver) abandon(e *entry) {
	st := e.InFlight
	e.InFlight = nil
	d.failed(e, st, shard.ErrUndetermined)
}

// next begins the step that the shard needs now, or has it wait for room.
func (d *Driver) next(e *entry) {
	if d.plan.Full() {
		e.waiting = true
		d.later = append(d.later, e)
		return
	}
	if st, ok := d.plan.Next(&e.Shard); ok {
		d.plan.Take(&st)
		d.begin(e, &st)
	}
}

// fill begins steps of shards that wait for room, as far as there is any.
func (d *Driver) fill() {
	for len(d.later) > 0 && !d.plan.Full() {
		e := d.later[0]
		d.later = d.later[1:]
		e.waiting = false
		d.next(e)
	}
}
