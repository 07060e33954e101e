package catalog

import (
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// SetNodeState changes what the cluster wants of a node, and returns its record.
// A state other than Serving that is new to the node is an operation with an ID of
// its own; now is the caller's Unix time in seconds, for people: when that began, or
// ended. A node that has
// the state already keeps its operation, and so does one that serves again instead of
// leaving: its record shows that this was cancelled. Removed is final, and only a node that
// leaves may become it. An InvalidError says what cannot be; nothing is written then.
func (c *Catalog) SetNodeState(id shard.NodeID, to shard.NodeState, now uint64, done func(router.Node, error)) {
	c.changeNode(id, fmt.Sprintf("changing the state of node %d", id), func(n *router.Node, op uint64) (bool, error) {
		if n.State == to {
			return false, nil
		}
		if err := checkState(n, to); err != nil {
			return false, err
		}
		switch {
		case to == shard.Draining || to == shard.Leaving:
			n.Operation, n.Since, n.Ended = op, now, 0
		case n.State == shard.Draining:
			n.Operation, n.Since = 0, 0 // nothing is left of it
		default: // a node that was leaving has left, or stays
			n.Ended = now
		}
		n.State = to
		return true, nil
	}, done)
}

// checkState says why a node cannot come into a state that is not its own.
func checkState(n *router.Node, to shard.NodeState) error {
	switch {
	case n.State == shard.Removed:
		return &shard.InvalidError{Field: "node", Reason: fmt.Sprintf("%d was decommissioned and is no longer part of the cluster", n.ID)}
	case to == shard.Removed && n.State != shard.Leaving:
		return &shard.InvalidError{Field: "node", Reason: fmt.Sprintf("%d is %v and cannot be removed; decommission it first", n.ID, n.State)}
	case to == shard.Draining && n.State == shard.Leaving:
		return &shard.InvalidError{Field: "node", Reason: fmt.Sprintf("%d is being decommissioned, which drains it; ops cancel %d ends that", n.ID, n.Operation)}
	}
	return nil
}

// MaySetNodeState answers as SetNodeState would, and writes nothing. It returns the
// node's record as it is.
func (c *Catalog) MaySetNodeState(id shard.NodeID, to shard.NodeState, done func(router.Node, error)) {
	o := &operation{c: c, what: fmt.Sprintf("reading the state of node %d", id), end: func(err error) { done(router.Node{}, err) }}
	o.again = func() {
		c.get(router.NodeKey(id), func(b []byte, err error) {
			var n router.Node
			switch {
			case err == nil && b == nil:
				done(n, unknownNode(id))
				return
			case err == nil:
				n, err = router.DecodeNode(b)
			}
			if err != nil {
				o.failed(err)
				return
			}
			if n.State != to {
				err = checkState(&n, to)
			}
			done(n, err)
		})
	}
	o.again()
}

func unknownNode(id shard.NodeID) error {
	return &shard.InvalidError{Field: "node", Reason: id.String() + " does not exist; node list shows those that do"}
}

// changeNode changes a node's record by compare-and-put. change gets what is there
// and an operation ID that is nobody's, and tells whether to write.
func (c *Catalog) changeNode(id shard.NodeID, what string, change func(n *router.Node, op uint64) (bool, error), done func(router.Node, error)) {
	key := router.NodeKey(id)
	o := &operation{c: c, what: what, end: func(err error) { done(router.Node{}, err) }}
	var op uint64

	var try func(old []byte)
	try = func(old []byte) {
		if old == nil {
			done(router.Node{}, unknownNode(id))
			return
		}
		n, err := router.DecodeNode(old)
		if err != nil {
			o.failed(err)
			return
		}
		write, err := change(&n, op)
		if err != nil || !write {
			done(n, err)
			return
		}
		c.compareAndPut(key, old, router.AppendNode(nil, &n), func(res shard.Result, err error) {
			switch {
			case err != nil:
				o.failed(err)
			case res.Found:
				done(n, nil)
			case o.outrun():
				try(present(res))
			}
		})
	}
	o.again = func() {
		c.get(key, func(old []byte, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			try(old)
		})
	}
	c.allocate(opCounter, "an operation ID", func(next uint64, err error) {
		if err != nil {
			o.end(err)
			return
		}
		op = next
		o.again()
	})
}
