package node

import (
	"maps"
	"sync"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// AddressBook knows where nodes are. It is persisted without waiting: a lost
// entry is learned again from any peer. It holds one entry per node of the
// cluster. Safe for concurrent use.
type AddressBook struct {
	engine *storage.Engine
	mu     sync.RWMutex
	byNode map[shard.NodeID]string
}

// OpenAddressBook reads the book that the store holds.
func OpenAddressBook(e *storage.Engine) (*AddressBook, error) {
	known, err := e.AddressBook()
	if err != nil {
		return nil, err
	}
	if known == nil {
		known = make(map[shard.NodeID]string)
	}
	return &AddressBook{engine: e, byNode: known}, nil
}

// Lookup is the address of a node, "" if it is not known.
func (a *AddressBook) Lookup(n shard.NodeID) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.byNode[n]
}

// Nodes lists the nodes in the book, in ascending order.
func (a *AddressBook) Nodes() []shard.NodeID {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return sortedNodes(a.byNode)
}

// All is a copy of the book.
func (a *AddressBook) All() map[shard.NodeID]string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return maps.Clone(a.byNode)
}

// Learn records addresses and tells whether any of them was news.
func (a *AddressBook) Learn(news map[shard.NodeID]string) (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.engine.NewBatch()
	for n, address := range news { //order-free: each address is a record of its own
		if n != 0 && address != "" && a.byNode[n] != address {
			a.byNode[n] = address
			b.PutAddress(n, address)
			changed = true
		}
	}
	if !changed {
		b.Close()
		return false, nil
	}
	return true, a.engine.Commit(b)
}

// Forget drops nodes that are no longer part of the cluster.
func (a *AddressBook) Forget(gone []shard.NodeID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.engine.NewBatch()
	changed := false
	for _, n := range gone {
		if a.byNode[n] != "" {
			delete(a.byNode, n)
			b.PutAddress(n, "")
			changed = true
		}
	}
	if !changed {
		b.Close()
		return nil
	}
	return a.engine.Commit(b)
}
