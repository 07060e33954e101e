package sim

import (
	"time"
)

// checkEvery is about how often some shard's replicas are compared by themselves, as
// operators have them compared, while everything else goes on.
const checkEvery = 250 * time.Millisecond

// checkShards begins a check of a drawn shard now and then. None may find a difference.
func (c *Cluster) checkShards() {
	c.loop.After(c.loop.between(checkEvery/10, 2*checkEvery), "check", func() {
		d := c.anyShard()
		for _, n := range c.nodes {
			if !n.Serving() {
				continue
			}
			if r, here := n.store().Replica(d.ID); here && r.Leadership().Leading {
				n.store().Check(d.ID, func(uint64, error) {})
			}
		}
		c.findDifferences()
		c.checkShards()
	})
}

// findDifferences fails the run if a replica says that it differs from its leader's.
func (c *Cluster) findDifferences() {
	for _, n := range c.nodes {
		if !n.Serving() {
			continue
		}
		for _, r := range n.store().Replicas() {
			if r.Differs() {
				s, _ := r.State()
				c.witness.Fail("%s finds that its replica of shard %d differs from its leader's: %+v", n.Name, s.Descriptor.ID, r.Checked())
			}
		}
	}
}

// compared counts the replicas that were compared with their leader's and found to be
// the same, on the nodes that run.
func (c *Cluster) compared() (n uint64) {
	for _, node := range c.nodes {
		if node.Serving() {
			n += node.store().Stats().ChecksSame
		}
	}
	return n
}
