package shard

import "fmt"

// NodeState is what the cluster wants of a node. It rests in the node's record.
// Each state takes from a node what the one before it still gave.
type NodeState byte

const (
	// Serving: the node may hold and lead replicas.
	Serving NodeState = 0
	// Draining: it keeps its replicas, leads none of them and gets no new ones,
	// until somebody undoes that or its process starts again.
	Draining NodeState = 1
	// Leaving: draining, and its replicas go to other nodes. A start changes nothing.
	Leaving NodeState = 2
	// Removed: no replica was left when it ended to be a node, for ever. Its ID
	// is never given to another one.
	Removed NodeState = 3
)

// Valid tells whether s is one of the states.
func (s NodeState) Valid() bool { return s <= Removed }

func (s NodeState) String() string {
	switch s {
	case Serving:
		return "serving"
	case Draining:
		return "draining"
	case Leaving:
		return "leaving"
	case Removed:
		return "removed"
	}
	return fmt.Sprintf("node state %d", byte(s))
}
