package driver

import (
	"cmp"
	"maps"
	"slices"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// DirectoryRow is one record of the directory.
type DirectoryRow = catalog.DirectoryRow

// reading is the state of reading the meta shard's records. Until they were read
// once in a run nothing is decided: what looks left over may be wanted.
type reading struct {
	busy  bool
	again bool // asked for while it was busy
	known bool
}

// readRecords reads what people want: the nodes' states, and operations.
func (d *Driver) readRecords() {
	if d.reading.busy {
		d.reading.again = true
		return
	}
	d.reading.busy, d.reading.again = true, false
	run := d.run
	end := func(take func() (changed bool), err error) {
		d.submit(run, func() {
			d.reading.busy = false
			if err != nil {
				d.log.warn("the records of nodes and operations were not read and will be", "err", err)
			} else if changed := take(); changed || !d.reading.known {
				d.reading.known = true
				d.decide()
				d.pollWithin(busyPoll)
			}
			if d.reading.again {
				d.readRecords()
			}
		})
	}
	d.records.ListNodes(func(nodes []router.Node, err error) {
		if err != nil {
			end(nil, err)
			return
		}
		d.records.ListOperations(func(ops []catalog.Operation, err error) {
			end(func() bool {
				states := d.takeNodes(nodes)
				return d.takeOperations(ops) || states
			}, err)
		})
	})
}

// takeNodes takes in the nodes' records and tells whether a state has changed.
func (d *Driver) takeNodes(nodes []router.Node) (changed bool) {
	for i := range nodes {
		m := d.member(nodes[i].ID)
		changed = changed || m.record.State != nodes[i].State
		m.record = nodes[i]
	}
	return changed
}

func (d *Driver) memberIDs() []shard.NodeID { return slices.Sorted(maps.Keys(d.members)) }

// takeOperations takes in the operations and tells whether there is one more or
// one less to carry out.
func (d *Driver) takeOperations(ops []catalog.Operation) (changed bool) {
	running := make(map[shard.ID]*operation)
	now := d.env.Now()
	var ended []catalog.Operation
	for _, record := range ops {
		if record.State != catalog.OperationRunning {
			ended = append(ended, record)
			continue
		}
		op := d.operations[record.Shard]
		if op == nil || op.record.ID != record.ID {
			op = &operation{since: now}
			changed = true
		}
		op.record = record
		running[record.Shard] = op
	}
	changed = changed || len(running) != len(d.operations)
	d.operations = running
	d.prune(ended)
	return changed
}

const (
	// endedMax is how many operations that have ended are kept: people look at them,
	// and every look at the records reads them.
	endedMax = 200
	// pruneMax is how many are removed after one look.
	pruneMax = 16
)

// prune removes those of the operations that have ended which did so first, if they are many:
// somebody may wait for one that began long ago, and has yet to see its end.
func (d *Driver) prune(ended []catalog.Operation) {
	if len(ended) <= endedMax {
		return
	}
	slices.SortFunc(ended, func(a, b catalog.Operation) int {
		return cmp.Or(cmp.Compare(a.Ended, b.Ended), cmp.Compare(a.ID, b.ID))
	})
	for _, op := range ended[:min(len(ended)-endedMax, pruneMax)] {
		d.records.ForgetOperation(op, func(err error) {
			if err != nil {
				d.queue.Submit(func() {
					d.log.warn("an old operation's record was not removed and will be", "operation", op.ID, "err", err)
				})
			}
		})
	}
}

// sortedOperations are the operations to carry out, in order of ID.
func (d *Driver) sortedOperations() []*operation {
	return slices.SortedFunc(maps.Values(d.operations), func(a, b *operation) int { return cmp.Compare(a.record.ID, b.record.ID) })
}
