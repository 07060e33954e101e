package driver

import "github.com/kiloraft/kiloraft/shard"

// Explain says why a shard or a node (one of them is 0) is where it is, and why nothing is
// done about it. done gets nothing from a driver that is stopped or knows nothing yet.
func (d *Driver) Explain(id shard.ID, node shard.NodeID, done func(lines []string)) {
	d.queue.Submit(func() {
		if d.term == 0 || d.plan == nil {
			done(nil)
			return
		}
		if node != 0 {
			done(d.plan.ExplainNode(node))
			return
		}
		e := d.entries[id]
		if e == nil {
			done(nil)
			return
		}
		lines := d.plan.ExplainShard(&e.Shard, d.needy())
		if e.refused != "" {
			lines = append(lines, "last refused: "+e.refused)
		}
		done(lines)
	})
}

// needy tells whether some shard needs something else than to be evened out.
func (d *Driver) needy() bool {
	for _, e := range d.sorted {
		if d.plan.ComesFirst(&e.Shard) {
			return true
		}
	}
	return false
}
