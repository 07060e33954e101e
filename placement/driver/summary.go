package driver

import (
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/shard"
)

// notesMax bounds the shards of which a summary says something.
const notesMax = 1000

// Summary is what a driver knows and is about, for people. It is not changed
// once it was published.
type Summary struct {
	Term   uint64 // of the meta shard's leadership
	Tuning Tuning
	Nodes  []NodeSummary
	// Shards are those that need something, at most notesMax of them.
	Shards []ShardNote
	// Operations are those that are being carried out.
	Operations []OperationNote
}

// NodeSummary is what a driver knows of a node.
type NodeSummary struct {
	ID    shard.NodeID
	State shard.NodeState
	Live  bool
	Dead  bool
	// Silent is for how long it has not answered this driver.
	Silent   time.Duration
	Leaders  int
	Replicas int // by the shards' descriptors
	// Homeless are those of its voters that no other node can take.
	Homeless int
}

// ShardNote says what a shard needs and what is done about it.
type ShardNote struct {
	Shard shard.ID
	Text  string
}

// OperationNote says what an operation does or waits for.
type OperationNote struct {
	ID   uint64
	Text string
}

// Summary is the driver's latest; nil while it is stopped or knows nothing yet.
func (d *Driver) Summary() *Summary { return d.summary.Load() }

func (d *Driver) publish(now time.Duration) {
	s := &Summary{Term: d.term, Tuning: d.tuning}
	index := make(map[shard.NodeID]int, len(d.members))
	for _, id := range d.memberIDs() {
		m := d.members[id]
		index[id] = len(s.Nodes)
		s.Nodes = append(s.Nodes, NodeSummary{ID: id, State: m.record.State, Live: m.live(now), Dead: d.dead(m, now), Silent: m.silent})
	}
	for _, e := range d.sorted {
		if i, ok := index[e.Leader]; ok {
			s.Nodes[i].Leaders++
		}
		homeless := d.plan.Homeless(&e.Descriptor)
		for _, r := range e.Descriptor.Replicas {
			if i, ok := index[r.Node]; ok {
				s.Nodes[i].Replicas++
				if homeless && r.Role == shard.Voter {
					s.Nodes[i].Homeless++
				}
			}
		}
		if text := d.explain(e, d.plan); text != "" && len(s.Shards) < notesMax {
			s.Shards = append(s.Shards, ShardNote{e.Descriptor.ID, text})
		}
	}
	for _, op := range d.sortedOperations() {
		text := "no node reports its shard"
		if e := d.entries[op.record.Shard]; e != nil {
			text = d.explain(e, d.plan)
		}
		if op.ended {
			text = "ends"
		}
		s.Operations = append(s.Operations, OperationNote{op.record.ID, text})
	}
	d.summary.Store(s)
}

// explain says what a shard needs and waits for, with what its leader last said
// against it.
func (d *Driver) explain(e *entry, p *placement.Plan) string {
	text := p.Explain(&e.Shard)
	if text != "" && e.refused != "" {
		text += "; last refused: " + e.refused
	}
	if text != "" && e.waiting {
		text += "; waits for other steps to end"
	}
	return text
}
