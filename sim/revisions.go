package sim

import "github.com/kiloraft/kiloraft/shard"

// revisions numbers the writes of each shard by itself, on the node that leads
// it: above what the shard has applied, and above what this incarnation handed out.
type revisions struct{ last map[shard.ID]shard.Revision }

func (n *Node) revisions() *revisions { return &revisions{last: make(map[shard.ID]shard.Revision)} }

// Draw implements replica.Revisions.
func (r *revisions) Draw(id shard.ID, floor shard.Revision, n int, done func(shard.Revision, error)) {
	first := max(r.last[id], floor) + 1
	r.last[id] = first + shard.Revision(n) - 1
	done(first, nil)
}
