package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// A task whose shard has not changed for taskPatience, and the time that its
	// data takes at taskBytesPerSecond, has failed.
	taskPatience       = 2 * time.Minute
	taskBytesPerSecond = 1 << 20
	// spareFor is how long a learner that nobody needs stays: somebody may be at it.
	spareFor = 5 * time.Second
)

// operation is a recorded operation that is being carried out.
type operation struct {
	record catalog.Operation
	since  time.Duration // when this driver heard of it
	ended  bool          // its end is on its way to the records
}

// pursuit is how the driver follows a shard's task.
type pursuit struct {
	op    uint64      // of a recorded operation; 0: placement's own
	epoch shard.Epoch // of the shard when it last changed
	since time.Duration
}

// assign gives every shard its task: that of its operation, or else its own one.
func (d *Driver) assign(now time.Duration) {
	for _, e := range d.sorted {
		op := d.operations[e.Descriptor.ID]
		switch {
		case op != nil && !op.ended:
			if e.Task == nil || e.task.op != op.record.ID {
				e.Task = op.task(&e.Shard)
				e.task = pursuit{op: op.record.ID, since: now}
			}
		case e.Task != nil && e.task.op != 0:
			e.Task = nil // cancelled, or over
		}
		if e.Task != nil && e.task.epoch != e.Descriptor.Epoch {
			e.task.epoch, e.task.since = e.Descriptor.Epoch, now
		}
	}
}

// judge ends tasks that are done, impossible or stuck, and tells whether there was
// any. What a task leaves half done is placement's: joint configurations are left,
// and learners that nobody needs are removed.
func (d *Driver) judge(p *placement.Plan, now time.Duration) (ended bool) {
	for _, e := range d.sorted {
		if e.Task == nil || e.InFlight != nil {
			continue
		}
		if p.InLine(&e.Shard) {
			e.task.since = now
		}
		state, why := p.Judge(&e.Shard)
		late := now >= e.task.since+taskPatience+time.Duration(e.Bytes/taskBytesPerSecond)*time.Second
		switch {
		case state == placement.TaskDone && d.goesOn(e, now):
		case state == placement.TaskDone:
			d.endTask(e, catalog.OperationDone, "")
		case state == placement.TaskImpossible:
			d.endTask(e, catalog.OperationFailed, why)
		case late && !e.Descriptor.Joint():
			d.endTask(e, catalog.OperationFailed, fmt.Sprintf("nothing has moved for %v: %s", now-e.task.since, d.explain(e, p)))
		default:
			continue
		}
		ended = true
	}
	for _, op := range d.sortedOperations() {
		if d.entries[op.record.Shard] == nil && !op.ended && now >= op.since+taskPatience {
			d.endOperation(op, catalog.OperationFailed, fmt.Sprintf("no node reports shard %d", op.record.Shard))
		}
	}
	return ended
}

// task is what is to be done for the operation now. One that names all nodes of a shard
// takes a task for each that has to change, and one more for the leader.
func (op *operation) task(s *placement.Shard) *placement.Task {
	r := &op.record
	if len(r.Nodes) == 0 {
		return &placement.Task{From: r.From, To: r.To}
	}
	var from, to shard.NodeID
	for _, m := range s.Descriptor.Replicas {
		if from == 0 && m.Role == shard.Voter && !slices.Contains(r.Nodes, m.Node) {
			from = m.Node
		}
	}
	for _, n := range r.Nodes {
		if m, there := s.Descriptor.ReplicaOn(n); to == 0 && (!there || m.Role != shard.Voter) {
			to = n
		}
	}
	if from == 0 || to == 0 {
		return &placement.Task{Lead: r.Nodes[0]}
	}
	return &placement.Task{From: from, To: to}
}

// goesOn gives a shard whose task is done the next one of its operation, if there is one.
func (d *Driver) goesOn(e *entry, now time.Duration) bool {
	op := d.operations[e.Descriptor.ID]
	if op == nil || op.record.ID != e.task.op {
		return false
	}
	next := op.task(&e.Shard)
	if len(op.record.Nodes) == 0 || next.Lead != 0 && (e.Task.Lead != 0 || next.Lead == e.Leader) {
		return false
	}
	e.Task, e.task.since = next, now
	return true
}

func (d *Driver) endTask(e *entry, state catalog.OperationState, why string) {
	if op := d.operations[e.Descriptor.ID]; op != nil && op.record.ID == e.task.op {
		d.endOperation(op, state, why)
	} else if state == catalog.OperationFailed {
		d.log.warn("a replica is not moved now", "shard", e.Descriptor.ID, "from", e.Task.From, "to", e.Task.To, "why", why)
	}
	e.Task = nil
}

func (d *Driver) endOperation(op *operation, state catalog.OperationState, why string) {
	op.ended = true
	run := d.run
	d.log.info("an operation on a shard has ended", "operation", op.record.ID, "shard", op.record.Shard, "state", state.String(), "reason", why)
	d.records.EndOperation(op.record.Shard, op.record.ID, state, why, d.unixNow(), func(_ catalog.Operation, err error) {
		d.submit(run, func() {
			if err != nil {
				op.ended = false // judged again
				d.log.warn("the end of an operation was not recorded and will be", "operation", op.record.ID, "err", err)
				return
			}
			d.readRecords()
		})
	})
}

// spare finds the learners that nobody has needed for a while.
func (d *Driver) spare(p *placement.Plan, now time.Duration) {
	for _, e := range d.sorted {
		switch {
		case !hasLearner(&e.Descriptor) || e.Task != nil || p.Needs(&e.Shard):
			e.idle, e.Spare = 0, false
		case e.idle == 0:
			e.idle = max(now, 1)
		case now >= e.idle+spareFor:
			e.Spare = true
		}
	}
}

func hasLearner(d *shard.Descriptor) bool {
	for _, r := range d.Replicas {
		if r.Role == shard.Learner {
			return true
		}
	}
	return false
}
