package shard

import (
	"encoding/binary"
	"fmt"
)

// Role is a replica's part in its shard's raft configuration.
type Role uint8

const (
	// Voter votes, in the simple configuration or in both halves of a joint one.
	Voter Role = 1
	// Learner receives the log and does not vote.
	Learner Role = 2
	// Incoming votes in the incoming half of a joint configuration only, and
	// becomes a voter when the configuration is left.
	Incoming Role = 3
	// Outgoing votes in the outgoing half only, and becomes a learner when the
	// joint configuration is left.
	Outgoing Role = 4
)

func (r Role) String() string {
	switch r {
	case Voter:
		return "voter"
	case Learner:
		return "learner"
	case Incoming:
		return "incoming"
	case Outgoing:
		return "outgoing"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Replica is one member of a shard.
type Replica struct {
	ID   ReplicaID
	Node NodeID
	Role Role
}

// Descriptor says what a shard covers and where its replicas are. The authority
// for it is the shard's own log. A Descriptor is a value: it and its slices are
// never modified once shared.
type Descriptor struct {
	ID       ID
	Span     Span
	Epoch    Epoch
	Replicas []Replica // in ascending order of ID
	// NextReplica is larger than the ID of every replica that the shard ever had.
	NextReplica ReplicaID
}

// Joint tells whether the shard is in a joint configuration.
func (d *Descriptor) Joint() bool {
	for _, r := range d.Replicas {
		if r.Role == Incoming || r.Role == Outgoing {
			return true
		}
	}
	return false
}

// Parted is what a later attempt of a write is told that begins in the shard's span
// and does not lie in it. An earlier one may have been made when all of it was one
// shard's, and its writes lie in several by now. Only while the shard has the span
// that the cluster gave it when it was made there was no such time: then no
// attempt has done anything, nor can one that names this epoch.
func (d *Descriptor) Parted() error {
	if d.Epoch.Version == FirstVersion {
		return ErrSpansShards
	}
	return &OutcomeLostError{Reason: "a split may have parted its keys since an earlier attempt"}
}

// Replica finds the member with the given ID.
func (d *Descriptor) Replica(id ReplicaID) (Replica, bool) {
	for _, r := range d.Replicas {
		if r.ID == id {
			return r, true
		}
	}
	return Replica{}, false
}

// ReplicaOn finds the member on the given node.
func (d *Descriptor) ReplicaOn(node NodeID) (Replica, bool) {
	for _, r := range d.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return Replica{}, false
}

// Removed tells whether d proves that a replica of the shard was removed. Such a
// proof holds for ever: IDs are given in ascending order and never twice.
func (d *Descriptor) Removed(id ReplicaID) bool {
	_, member := d.Replica(id)
	return !member && id < d.NextReplica
}

// Clone is a deep copy of d.
func (d *Descriptor) Clone() Descriptor {
	c := *d
	c.Span.Start = append([]byte(nil), d.Span.Start...)
	c.Span.End = append([]byte(nil), d.Span.End...)
	c.Replicas = append([]Replica(nil), d.Replicas...)
	return c
}

const (
	descriptorFormat = 1
	// maxReplicas bounds what a decoder accepts; a shard has a handful.
	maxReplicas = 64
)

// AppendDescriptor appends the encoding of d to b.
func AppendDescriptor(b []byte, d *Descriptor) []byte {
	b = append(b, descriptorFormat)
	b = binary.AppendUvarint(b, uint64(d.ID))
	b = appendBytes(b, d.Span.Start)
	b = appendBytes(b, d.Span.End)
	b = binary.AppendUvarint(b, d.Epoch.Version)
	b = binary.AppendUvarint(b, d.Epoch.ConfVersion)
	b = binary.AppendUvarint(b, uint64(d.NextReplica))
	b = binary.AppendUvarint(b, uint64(len(d.Replicas)))
	for _, r := range d.Replicas {
		b = binary.AppendUvarint(b, uint64(r.ID))
		b = binary.AppendUvarint(b, uint64(r.Node))
		b = append(b, byte(r.Role))
	}
	return b
}

// DecodeDescriptor reads what AppendDescriptor wrote. The result shares no
// memory with b.
func DecodeDescriptor(b []byte) (Descriptor, error) {
	r := reader{b: b}
	d := r.descriptor()
	return d, r.done()
}

func (r *reader) descriptor() Descriptor {
	var d Descriptor
	r.format(descriptorFormat)
	d.ID = ID(r.uvarint())
	d.Span.Start = r.bytesCopy()
	d.Span.End = r.bytesCopy()
	d.Epoch.Version = r.uvarint()
	d.Epoch.ConfVersion = r.uvarint()
	d.NextReplica = ReplicaID(r.uvarint())
	n := r.uvarint()
	if n > maxReplicas {
		r.fail("a descriptor with %d replicas", n)
		return d
	}
	var last ReplicaID
	for range n {
		m := Replica{ID: ReplicaID(r.uvarint()), Node: NodeID(r.uvarint()), Role: Role(r.byte())}
		if r.err == nil && (m.ID <= last || m.Role < Voter || m.Role > Outgoing) {
			r.fail("replica %d with role %d after replica %d", m.ID, m.Role, last)
			return d
		}
		last = m.ID
		d.Replicas = append(d.Replicas, m)
	}
	if r.err == nil && (!d.Span.Valid() || d.NextReplica <= last) {
		r.fail("descriptor of shard %d: span or next replica ID out of order", d.ID)
	}
	return d
}
