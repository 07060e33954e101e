package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	registerPause  = time.Second            // between attempts to register
	addressesPause = 5 * time.Second        // between looks at the nodes' records
	supervisePause = 500 * time.Millisecond // between looks at who leads the meta shard
)

// chores are what a node does on its own account, one step after the other on
// its queue: register itself, then keep its address book fresh; and follow the
// cluster's settings.
type chores struct {
	catalog  *catalog.Catalog
	settings *settings
	record   router.Node

	mu      sync.Mutex
	stopped bool
}

func (n *Node) startChores() {
	n.chores.record = router.Node{
		ID: n.cfg.Identity.Node, Address: n.cfg.Advertise, HTTPAddress: n.cfg.HTTPAddress,
		Incarnation: n.cfg.Identity.Incarnation, StartNonce: n.cfg.Env.Uint64(), Version: n.cfg.Version,
		Locality: n.cfg.Locality,
	}
	n.queue.Submit(n.register)
	n.queue.Submit(n.supervisePlacement)
	n.queue.Submit(n.chores.settings.refresh)
}

func (n *Node) stopChores() {
	n.chores.mu.Lock()
	defer n.chores.mu.Unlock()
	n.chores.stopped = true
}

// later runs a chore after a pause, unless the node was closed.
func (n *Node) later(d time.Duration, chore func()) {
	n.chores.mu.Lock()
	defer n.chores.mu.Unlock()
	if !n.chores.stopped {
		n.cfg.Env.AfterFunc(d, n.queue, chore)
	}
}

// register writes this start's record, however long the meta shard takes to
// answer. A refusal means that another process runs on a copy of this store, and
// two nodes with one identity would vote twice; or that the node was
// decommissioned. Either way this one ends.
func (n *Node) register() {
	n.chores.catalog.RegisterNode(n.chores.record, func(err error) {
		switch {
		case err == nil:
			n.log.Info("registered with the cluster", "node", n.cfg.Identity.Node, "incarnation", n.cfg.Identity.Incarnation)
			n.queue.Submit(n.refreshAddresses)
		case errors.Is(err, catalog.ErrStoreInUse), errors.Is(err, catalog.ErrRemoved):
			n.cfg.Stop(err)
		default:
			n.log.Debug("not registered yet", "err", err)
			n.later(registerPause, n.register)
		}
	})
}

// refreshAddresses learns nodes that joined and addresses that changed.
func (n *Node) refreshAddresses() {
	n.chores.catalog.ListNodes(func(nodes []router.Node, err error) {
		if err == nil && !n.learnRecords(nodes) {
			return
		}
		n.later(addressesPause, n.refreshAddresses)
	})
}

// learnRecords brings the address book up to the nodes' records. A node that finds
// itself decommissioned ends, and false is returned: nobody asks it for anything any
// more, and nothing is left on it.
func (n *Node) learnRecords(nodes []router.Node) bool {
	news := make(map[shard.NodeID]string, len(nodes))
	var gone []shard.NodeID
	for _, record := range nodes {
		switch {
		case record.State != shard.Removed:
			news[record.ID] = record.Address
		case record.ID == n.cfg.Identity.Node:
			n.cfg.Stop(fmt.Errorf("node %d: %w", record.ID, catalog.ErrRemoved))
			return false
		default:
			gone = append(gone, record.ID)
		}
	}
	n.Learn(news)
	if err := n.addresses.Forget(gone); err != nil {
		n.log.Error("address book not written", "err", err)
	}
	return true
}

// AllocateNode hands out the ID of a node that wants to join.
func (n *Node) AllocateNode(done func(shard.NodeID, error)) { n.chores.catalog.AllocateNode(done) }

// Catalog is the meta shard's records, as this node reads and writes them.
func (n *Node) Catalog() *catalog.Catalog { return n.chores.catalog }

func sortedNodes[V any](m map[shard.NodeID]V) []shard.NodeID { return slices.Sorted(maps.Keys(m)) }
