package catalog

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

type Node struct {
	ID          shard.NodeID
	Address     string
	HTTPAddress string
	Incarnation uint64
	StartNonce  uint64
	Version     string
}

type Entry struct {
	Descriptor shard.Descriptor
	Leader     shard.LeaderHint
}

func nodePrefix() []byte      { return append([]byte{shard.SystemKeyspace}, "node/"...) }
func directoryPrefix() []byte { return append([]byte{shard.SystemKeyspace}, "dir/"...) }

func nodeKey(id shard.NodeID) []byte { return binary.BigEndian.AppendUint64(nodePrefix(), uint64(id)) }

func directoryKey(start []byte) []byte { return append(directoryPrefix(), start...) }

func encodeNode(n *Node) []byte {
	b := []byte{1}
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(n.ID))
	str(n.Address)
	str(n.HTTPAddress)
	b = binary.AppendUvarint(b, n.Incarnation)
	b = binary.AppendUvarint(b, n.StartNonce)
	str(n.Version)
	return b
}

func decodeNode(b []byte) (n Node, err error) {
	bad := fmt.Errorf("%w: node record", shard.ErrMalformed)
	if len(b) == 0 || b[0] != 1 {
		return n, bad
	}
	b = b[1:]
	num := func() uint64 {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			err = bad
			return 0
		}
		b = b[k:]
		return v
	}
	str := func() string {
		l := num()
		if l > uint64(len(b)) {
			err = bad
			return ""
		}
		s := string(b[:l])
		b = b[l:]
		return s
	}
	n.ID = shard.NodeID(num())
	n.Address = str()
	n.HTTPAddress = str()
	n.Incarnation = num()
	n.StartNonce = num()
	n.Version = str()
	return n, err
}

func encodeEntry(e *Entry) []byte {
	d := shard.AppendDescriptor(nil, &e.Descriptor)
	b := []byte{1}
	b = binary.AppendUvarint(b, uint64(len(d)))
	b = append(b, d...)
	b = binary.AppendUvarint(b, uint64(e.Leader.Replica))
	b = binary.AppendUvarint(b, uint64(e.Leader.Node))
	return binary.AppendUvarint(b, e.Leader.Term)
}

func decodeEntry(b []byte) (e Entry, err error) {
	bad := fmt.Errorf("%w: directory record", shard.ErrMalformed)
	if len(b) == 0 || b[0] != 1 {
		return e, bad
	}
	b = b[1:]
	num := func() uint64 {
		v, k := binary.Uvarint(b)
		if k <= 0 {
			err = bad
			return 0
		}
		b = b[k:]
		return v
	}
	l := num()
	if l > uint64(len(b)) {
		return e, bad
	}
	if e.Descriptor, err = shard.DecodeDescriptor(b[:l]); err != nil {
		return e, err
	}
	b = b[l:]
	e.Leader.Replica = shard.ReplicaID(num())
	e.Leader.Node = shard.NodeID(num())
	e.Leader.Term = num()
	return e, err
}
