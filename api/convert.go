package api

import (
	"fmt"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// FromEpoch is the message for an epoch.
func FromEpoch(e shard.Epoch) *kiloraftpb.Epoch {
	return &kiloraftpb.Epoch{Version: e.Version, ConfVersion: e.ConfVersion}
}

// ToEpoch reads an epoch; a missing message is the zero epoch.
func ToEpoch(m *kiloraftpb.Epoch) shard.Epoch {
	return shard.Epoch{Version: m.GetVersion(), ConfVersion: m.GetConfVersion()}
}

// FromReplica is the message for a replica.
func FromReplica(r shard.Replica) *kiloraftpb.Replica {
	return &kiloraftpb.Replica{Id: uint64(r.ID), Node: uint64(r.Node), Role: uint32(r.Role)}
}

// FromDescriptor is the message for a descriptor. It shares d's slices.
func FromDescriptor(d *shard.Descriptor) *kiloraftpb.Descriptor {
	m := &kiloraftpb.Descriptor{
		Id:          uint64(d.ID),
		Start:       d.Span.Start,
		End:         d.Span.End,
		Epoch:       FromEpoch(d.Epoch),
		NextReplica: uint64(d.NextReplica),
	}
	for _, r := range d.Replicas {
		m.Replicas = append(m.Replicas, FromReplica(r))
	}
	return m
}

// ToDescriptor reads and checks a descriptor. The result shares no memory with
// m. What it refuses is an error that wraps shard.ErrMalformed.
func ToDescriptor(m *kiloraftpb.Descriptor) (shard.Descriptor, error) {
	if m == nil {
		return shard.Descriptor{}, fmt.Errorf("%w: no descriptor", shard.ErrMalformed)
	}
	d := shard.Descriptor{
		ID:          shard.ID(m.GetId()),
		Span:        shard.Span{Start: m.GetStart(), End: m.GetEnd()},
		Epoch:       ToEpoch(m.GetEpoch()),
		NextReplica: shard.ReplicaID(m.GetNextReplica()),
	}
	for _, r := range m.GetReplicas() {
		if r.GetRole() > uint32(shard.Outgoing) {
			return shard.Descriptor{}, fmt.Errorf("%w: replica %d with role %d", shard.ErrMalformed, r.GetId(), r.GetRole())
		}
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(r.GetId()), Node: shard.NodeID(r.GetNode()), Role: shard.Role(r.GetRole())})
	}
	switch {
	case d.ID == 0:
		return shard.Descriptor{}, fmt.Errorf("%w: a descriptor of shard 0", shard.ErrMalformed)
	case d.Epoch.Version == 0 || d.Epoch.ConfVersion == 0:
		return shard.Descriptor{}, fmt.Errorf("%w: a descriptor of shard %d at epoch %v; both halves start at 1", shard.ErrMalformed, d.ID, d.Epoch)
	}
	for _, r := range d.Replicas {
		if r.Node == 0 {
			return shard.Descriptor{}, fmt.Errorf("%w: replica %d of shard %d on node 0", shard.ErrMalformed, r.ID, d.ID)
		}
	}
	// The rest of the rules live in the decoder of shard's own encoding.
	return shard.DecodeDescriptor(shard.AppendDescriptor(nil, &d))
}

// ToClusterID reads a cluster's ID.
func ToClusterID(b []byte) (shard.ClusterID, error) {
	var id shard.ClusterID
	if len(b) != len(id) {
		return id, fmt.Errorf("%w: a cluster ID of %d bytes", shard.ErrMalformed, len(b))
	}
	copy(id[:], b)
	if id.IsZero() {
		return id, fmt.Errorf("%w: a cluster ID of zeros", shard.ErrMalformed)
	}
	return id, nil
}
