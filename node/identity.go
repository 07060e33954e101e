package node

import (
	"encoding/binary"
	"errors"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// ErrNoIdentity: the store is empty. Bootstrap or Adopt gives it an identity.
var ErrNoIdentity = errors.New("the store has no identity yet")

// firstNode is the ID of the node that creates a cluster.
const firstNode shard.NodeID = 1

// Bootstrap makes an empty store the first node of a new cluster: its identity,
// the meta shard with its records, and initialShards user shards, one voter
// each (and the node's address in its record), all in one synced batch, so that a crash leaves either nothing or a
// whole cluster. done is called once that is durable.
func Bootstrap(e *storage.Engine, world env.Env, advertise string, initialShards int, done func(storage.Identity)) error {
	descriptors, err := catalog.InitialDescriptors(firstNode, initialShards)
	if err != nil {
		return err
	}
	id := storage.Identity{Cluster: randomClusterID(world), Node: firstNode, Incarnation: 1}
	b := e.NewBatch()
	b.PutIdentity(id)
	for i := range descriptors {
		d := &descriptors[i]
		b.PutInitialReplica(d.Replicas[0].ID, &storage.ReplicaState{Descriptor: *d})
	}
	// Incarnation 0 in its record: the node registers itself like any other.
	first := router.Node{ID: firstNode, Address: advertise}
	for _, r := range catalog.BootstrapRecords(first, descriptors) {
		b.PutUnversioned(r.Key, r.Value)
	}
	return e.CommitSync(b, 0, func() { done(id) })
}

// Adopt gives an empty store the identity that the cluster it joins has
// allocated, and the addresses of the nodes that it was told of.
func Adopt(e *storage.Engine, cluster shard.ClusterID, self shard.NodeID, nodes map[shard.NodeID]string, done func(storage.Identity)) error {
	id := storage.Identity{Cluster: cluster, Node: self, Incarnation: 1}
	b := e.NewBatch()
	b.PutIdentity(id)
	for n, address := range nodes { //order-free: each address is a record of its own
		b.PutAddress(n, address)
	}
	return e.CommitSync(b, 0, func() { done(id) })
}

// Resume opens the next incarnation of a store that has an identity, or returns
// ErrNoIdentity. done is called with it once it is durable: no connection may
// carry an incarnation that a crash could take back.
func Resume(e *storage.Engine, done func(storage.Identity)) error {
	id, ok, err := e.Identity()
	if err != nil {
		return err
	}
	if !ok {
		return ErrNoIdentity
	}
	id.Incarnation++
	b := e.NewBatch()
	b.PutIdentity(id)
	return e.CommitSync(b, 0, func() { done(id) })
}

// randomClusterID is a random (version 4) UUID.
func randomClusterID(world env.Env) shard.ClusterID {
	var id shard.ClusterID
	binary.BigEndian.PutUint64(id[:8], world.Uint64())
	binary.BigEndian.PutUint64(id[8:], world.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
