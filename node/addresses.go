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

	// writing is held by whoever changes the book until the change is committed, for
	// which it may have to wait, so that the store sees changes in the book's order. It
	// is taken before mu. Nobody who only looks waits for it.
	writing sync.Mutex
	mu      sync.RWMutex
	byNode  map[shard.NodeID]string
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
	return a.change(func() map[shard.NodeID]string {
		fresh := map[shard.NodeID]string{}
		for n, address := range news { //order-free: each address is looked at by itself
			if n != 0 && address != "" && a.byNode[n] != address {
				fresh[n] = address
			}
		}
		return fresh
	})
}

// Forget drops nodes that are no longer part of the cluster.
func (a *AddressBook) Forget(gone []shard.NodeID) error {
	_, err := a.change(func() map[shard.NodeID]string {
		known := map[shard.NodeID]string{}
		for _, n := range gone {
			if a.byNode[n] != "" {
				known[n] = ""
			}
		}
		return known
	})
	return err
}

// change writes what differs from the book, "" for a node that goes. differs is called
// under mu.
func (a *AddressBook) change(differs func() map[shard.NodeID]string) (changed bool, err error) {
	look := func() map[shard.NodeID]string {
		a.mu.RLock()
		defer a.mu.RUnlock()
		return differs()
	}
	if len(look()) == 0 { // as nearly always
		return false, nil
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	changes := look() // another one may have been faster
	if len(changes) == 0 {
		return false, nil
	}
	b := a.engine.NewBatch()
	a.mu.Lock()
	for n, address := range changes { //order-free: each address is a record of its own
		b.PutAddress(n, address)
		if a.byNode[n] = address; address == "" {
			delete(a.byNode, n)
		}
	}
	a.mu.Unlock()
	return true, a.engine.Commit(b)
}
