package node

import (
	"maps"
	"sync"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// addressBook knows where nodes are. It is persisted without waiting: a lost
// entry is learned again from any peer. It holds one entry per node of the
// cluster. Safe for concurrent use.
type addressBook struct {
	engine *storage.Engine
	mu     sync.RWMutex
	byNode map[shard.NodeID]string
}

func openAddressBook(e *storage.Engine) (*addressBook, error) {
	known, err := e.AddressBook()
	if err != nil {
		return nil, err
	}
	if known == nil {
		known = make(map[shard.NodeID]string)
	}
	return &addressBook{engine: e, byNode: known}, nil
}

// lookup is the address of a node, "" if it is not known.
func (a *addressBook) lookup(n shard.NodeID) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.byNode[n]
}

// all is a copy of the book.
func (a *addressBook) all() map[shard.NodeID]string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return maps.Clone(a.byNode)
}

// learn records addresses and tells whether any of them was news.
func (a *addressBook) learn(news map[shard.NodeID]string) (changed bool, err error) {
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
