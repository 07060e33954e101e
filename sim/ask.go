package sim

import (
	"maps"
	"slices"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// askSomething asks for something, and now and then has another node lead the meta
// shard, and so drive placement, in the middle of it.
func (n *Nemesis) askSomething() bool {
	n.ask()
	if n.cluster.loop.rand.IntN(4) == 0 {
		n.cluster.loop.After(n.cluster.loop.between(0, 300*time.Millisecond), "hand over", func() {
			if !n.stopped {
				n.handOver(shard.MetaID)
			}
		})
	}
	return true
}

// ask asks a drawn node for what people ask of placement: a replica is to move, a
// node is to be drained or to serve again. Unlike a mover, who asks goes away:
// whoever drives placement carries it out.
func (n *Nemesis) ask() {
	l := n.cluster.loop
	at := n.anyNode()
	if !at.Serving() {
		return
	}
	if l.rand.IntN(4) == 0 {
		n.askDrain(at, n.anyNode(), l.rand.IntN(2) == 0)
		return
	}
	id := n.cluster.anyShard().ID
	from, to := n.anyNode(), n.anyNode()
	leader, state := n.cluster.leads(id)
	if leader == nil || from == to || from.ID == 0 || to.ID == 0 {
		return // without its source or its target it would be another operation than a move
	}
	if _, there := state.Descriptor.ReplicaOn(to.ID); there {
		return // a shard must not end with a voter less
	}
	n.event("ask %s to move shard %d from %s to %s", at.Name, id, from.Name, to.Name)
	at.node.Catalog().BeginOperation(catalog.Operation{Shard: id, From: from.ID, To: to.ID}, func(op catalog.Operation, err error) {
		n.event("operation %d on shard %d: %v", op.ID, id, err)
	})
	if l.rand.IntN(4) == 0 {
		l.After(l.between(0, time.Second), "cancel", func() { n.cancel(id) })
	}
}

// cancel ends whatever operation a shard has.
func (n *Nemesis) cancel(id shard.ID) {
	at := n.anyNode()
	if !at.Serving() {
		return
	}
	at.node.Catalog().ListOperations(func(ops []catalog.Operation, err error) {
		for _, op := range ops {
			if op.Shard == id && err == nil && at.Serving() {
				n.event("cancel operation %d", op.ID)
				at.node.Catalog().EndOperation(id, op.ID, catalog.OperationCancelled, "", 0, func(catalog.Operation, error) {})
			}
		}
	})
}

func (n *Nemesis) askDrain(at, whom *Node, drain bool) {
	to := shard.Serving
	if drain {
		to = shard.Draining
		n.cluster.drained[whom.ID] = true
	}
	n.event("ask %s: node %d is to be %v", at.Name, whom.ID, to)
	at.node.Catalog().SetNodeState(whom.ID, to, 0, func(_ router.Node, err error) { n.event("node %d is %v: %v", whom.ID, to, err) })
}

// undrainPause is between two attempts to have all nodes serve.
const undrainPause = 2 * time.Second

// undrain has every node serve that was ever asked to be drained, again and again:
// what was asked before may come late.
func (c *Cluster) undrain() {
	if len(c.drained) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.drained)) {
		if at := c.nodes[c.loop.rand.IntN(len(c.nodes))]; at.Serving() {
			at.node.Catalog().SetNodeState(id, shard.Serving, 0, func(router.Node, error) {})
		}
	}
	c.loop.After(undrainPause, "undrain", c.undrain)
}

// placement is what whoever drives placement says; nil: nobody does.
func (c *Cluster) placement() (p *pb.PlacementReport) {
	for _, n := range c.nodes {
		if n.gone {
			continue
		}
		if r := n.node.Report(node.ReportQuery{Placement: true}).Placement; r != nil && (p == nil || r.Term > p.Term) {
			p = r
		}
	}
	return p
}

// unasked says what was asked of placement and is not done, or nothing.
func (c *Cluster) unasked() string {
	p := c.placement()
	switch {
	case p == nil:
		return "nobody drives placement"
	case len(p.Operations) > 0:
		return "an operation is under way: " + p.Operations[0].Text
	}
	for _, n := range p.Nodes {
		if n.State != shard.Serving.String() {
			return "placement knows of a node that is " + n.State
		}
	}
	return ""
}
