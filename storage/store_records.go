package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/shard"
)

// recordFormat is the first byte of every record of this version.
const recordFormat byte = 1

// addressBytesMax bounds an address: a host name and a port.
const addressBytesMax = 512

// Identity is who this store is.
type Identity struct {
	Cluster shard.ClusterID
	Node    shard.NodeID
	// Incarnation grows by one, durably, with each start of the node.
	Incarnation uint64
}

// Identity reads the store's identity; false for a store that has none yet.
func (e *Engine) Identity() (Identity, bool, error) {
	return readRecord(e.db, identityKey(), decodeIdentity)
}

// PutIdentity stages the store's identity.
func (b *Batch) PutIdentity(id Identity) { b.set(identityKey(), appendIdentity(nil, id)) }

func appendIdentity(b []byte, id Identity) []byte {
	b = append(b, recordFormat)
	b = append(b, id.Cluster[:]...)
	return appendUvarints(b, uint64(id.Node), id.Incarnation)
}

func decodeIdentity(b []byte) (Identity, error) {
	d := decoder{b: b}
	var id Identity
	d.format(recordFormat)
	copy(id.Cluster[:], d.take(uint64(len(id.Cluster))))
	id.Node = shard.NodeID(d.uvarint())
	id.Incarnation = d.uvarint()
	return id, d.done()
}

// AddressBook is the nodes' addresses as last known.
func (e *Engine) AddressBook() (map[shard.NodeID]string, error) {
	lower, upper := addressBounds()
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	book := map[shard.NodeID]string{}
	err = func() error {
		for it.First(); it.Valid(); it.Next() {
			if len(it.Key()) != addressKeyLen {
				return malformed("key %x is not of an address", it.Key())
			}
			node := shard.NodeID(binary.BigEndian.Uint64(it.Key()[3:]))
			value, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			if book[node], err = decodeAddress(value); err != nil {
				return fmt.Errorf("address of node %d: %w", node, err)
			}
		}
		return it.Error()
	}()
	return book, errors.Join(err, it.Close())
}

// PutAddress stages the address of a node; an empty one removes it.
func (b *Batch) PutAddress(node shard.NodeID, address string) {
	if address == "" {
		b.delete(addressKey(node))
		return
	}
	b.set(addressKey(node), appendAddress(nil, address))
}

func appendAddress(b []byte, address string) []byte {
	return append(append(b, recordFormat), address...)
}

func decodeAddress(b []byte) (string, error) {
	d := decoder{b: b}
	d.format(recordFormat)
	address := d.rest()
	if d.err == nil && (len(address) == 0 || len(address) > addressBytesMax) {
		d.fail("an address of %d bytes", len(address))
	}
	return string(address), d.done()
}

// readRecord reads one small record; false if there is none.
func readRecord[T any](r pebble.Reader, key []byte, decode func([]byte) (T, error)) (record T, found bool, err error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return record, false, nil
	}
	if err != nil {
		return record, false, err
	}
	record, err = decode(value)
	if err = errors.Join(err, closer.Close()); err != nil {
		return record, false, fmt.Errorf("record %x: %w", key, err)
	}
	return record, true, nil
}
