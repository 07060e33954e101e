package placement

import "github.com/kiloraft/kiloraft/shard"

const (
	// ReplicationFactor is how many voters every shard is to have.
	ReplicationFactor = 3
	// MetaReplicationFactor is how many the meta shard is to have where so many nodes
	// serve: without it nothing can be found or changed, so that it outlives more.
	MetaReplicationFactor = 5
)

// VotersWanted is how many voters a shard is to have, and can have, on so many nodes
// that serve.
func VotersWanted(id shard.ID, nodes int) int {
	return min(factorFor(id, ReplicationFactor, nodes), nodes)
}

// factorFor is the replication factor of a shard that can have voters on so many nodes.
// Four voters outlive no more than three: the meta shard has three or five.
func factorFor(id shard.ID, factor, nodes int) int {
	if id == shard.MetaID && factor >= ReplicationFactor && nodes >= MetaReplicationFactor {
		return max(factor, MetaReplicationFactor)
	}
	return factor
}

// factor is the replication factor of a shard as far as nodes that may be given
// replicas, or hold one already, allow.
func (p *Plan) factor(id shard.ID, nodes int) int {
	return factorFor(id, p.limits.ReplicationFactor, nodes)
}
