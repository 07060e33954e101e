package catalog

import (
	"errors"
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// ErrStoreInUse: another process has registered as this node with the same or a
// higher incarnation: it runs on a copy of the store, or this store was restored
// from an old one. Neither may go on with this store: start with an empty one
// and join.
var ErrStoreInUse = errors.New("another process runs, or ran, with a newer copy of this node's store; start with an empty store and join the cluster")

// ErrRemoved: the node was decommissioned. It holds nothing and is nobody's peer
// any more; its ID never comes back.
var ErrRemoved = errors.New("the node was decommissioned and is no longer part of the cluster; to add it again, start it with an empty store and --join")

// RegisterNode writes the record of a node that starts. It fails with
// ErrStoreInUse if the record there has the same or a higher incarnation, unless
// it is this start's own (same incarnation and start nonce): then an earlier
// attempt of it, or an earlier call, had its answer lost; and with ErrRemoved if
// the node was decommissioned. Any other error leaves it open whether the record
// was written; call again with the same record. A start ends draining, as a
// person drains a node to restart it; a node that leaves goes on leaving.
func (c *Catalog) RegisterNode(n router.Node, done func(error)) {
	if n.ID == 0 || n.Incarnation == 0 {
		done(&shard.InvalidError{Field: "node record", Reason: "has no node ID or no incarnation"})
		return
	}
	key := router.NodeKey(n.ID)
	o := &operation{c: c, what: fmt.Sprintf("registering node %d", n.ID), end: done}

	var try func(old []byte)
	try = func(old []byte) {
		n.State, n.Operation, n.Since, n.Ended = shard.Serving, 0, 0, 0
		if old != nil {
			was, err := router.DecodeNode(old)
			if err != nil {
				o.failed(err)
				return
			}
			if was.State == shard.Removed {
				done(fmt.Errorf("node %d: %w", n.ID, ErrRemoved))
				return
			}
			if was.State != shard.Draining {
				n.State, n.Operation, n.Since, n.Ended = was.State, was.Operation, was.Since, was.Ended
			}
			if was.Incarnation == n.Incarnation && was.StartNonce == n.StartNonce {
				done(nil)
				return
			}
			// Incarnations grow with every start of a store. One that is not
			// below ours belongs to another process with the same store.
			if was.Incarnation >= n.Incarnation {
				done(fmt.Errorf("node %d: incarnation %d is registered from %s, this start is %d: %w",
					n.ID, was.Incarnation, was.Address, n.Incarnation, ErrStoreInUse))
				return
			}
		}
		c.compareAndPut(key, old, router.AppendNode(nil, &n), func(res shard.Result, err error) {
			switch {
			case err != nil:
				o.failed(err)
			case res.Found:
				done(nil)
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
	o.again()
}
