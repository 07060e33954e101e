package transport

import (
	"fmt"
	"sync"

	"github.com/kiloraft/kiloraft/shard"
)

// Reason is why a node refuses another one's stream. Values are never reused.
type Reason byte

const (
	// WrongCluster: the sender belongs to another cluster.
	WrongCluster Reason = 1
	// WrongNode: the stream was meant for another node; the address book is stale.
	WrongNode Reason = 2
	// OwnNode: the sender has the acceptor's own ID: it talks to itself, or a
	// store was copied.
	OwnNode Reason = 3
	// StaleIncarnation: a later start of the sender's node was seen already. The
	// sender is a process that should be dead, or runs on an old copy of a store.
	StaleIncarnation Reason = 4
	// CopiedStore: another process with the same node ID and incarnation was
	// seen. Incarnations grow at each start, so one of the two runs on a copy.
	CopiedStore Reason = 5
	// NotReady: the acceptor starts or stops. Try again.
	NotReady Reason = 6
	// TooManyNodes: more nodes introduced themselves than a cluster may have.
	TooManyNodes Reason = 7
)

func (r Reason) String() string {
	switch r {
	case WrongCluster:
		return "wrong cluster"
	case WrongNode:
		return "wrong node"
	case OwnNode:
		return "own node ID"
	case StaleIncarnation:
		return "stale incarnation"
	case CopiedStore:
		return "copied store"
	case NotReady:
		return "not ready"
	case TooManyNodes:
		return "too many nodes"
	}
	return fmt.Sprintf("reason %d", byte(r))
}

// RefusedError says that a node does not talk to another one, and why.
type RefusedError struct {
	Reason Reason
	Text   string
}

func (e *RefusedError) Error() string { return e.Reason.String() + ": " + e.Text }

func refuse(reason Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// identitiesMax bounds how many nodes' incarnations are remembered.
const identitiesMax = 1 << 16

// identities remembers, for the life of the process, the newest incarnation that
// was seen of every other node, and which process it was.
//
// Invariant: an entry's incarnation never decreases, and its process changes only
// together with it. Without it a node that was restarted, or a copy of its store,
// could act twice at a time: two voters with one ID.
type identities struct {
	self greeting

	mu   sync.Mutex
	seen map[shard.NodeID]identity
}

type identity struct {
	incarnation uint64
	process     uint64
}

// checkHello judges who wants to send to this node. It returns nil and
// remembers the sender, or the reason to refuse it.
func (s *identities) checkHello(h *hello) *RefusedError {
	switch {
	case h.Cluster != s.self.Cluster:
		return refuse(WrongCluster, "node %d belongs to cluster %v, node %d to cluster %v; check the addresses given to --join, or the store", h.Node, h.Cluster, s.self.Node, s.self.Cluster)
	case h.Target != s.self.Node:
		return refuse(WrongNode, "node %d looks for node %d, but this is node %d", h.Node, h.Target, s.self.Node)
	case h.Node == 0 || h.Node == s.self.Node:
		return refuse(OwnNode, "the sender says that it is node %d, and so is this; a store was copied, or an address leads back to its own node", h.Node)
	}
	return s.admit(h.Node, h.Incarnation, h.Process)
}

// checkGreeting judges who answered at an address of target.
func (s *identities) checkGreeting(target shard.NodeID, g *greeting) *RefusedError {
	switch {
	case g.Cluster != s.self.Cluster:
		return refuse(WrongCluster, "at the address of node %d answers a node of cluster %v, this is cluster %v", target, g.Cluster, s.self.Cluster)
	case g.Node != target:
		return refuse(WrongNode, "at the address of node %d answers node %d", target, g.Node)
	}
	return s.admit(g.Node, g.Incarnation, g.Process)
}

func (s *identities) admit(node shard.NodeID, incarnation, process uint64) *RefusedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.seen[node]
	switch {
	case !ok && len(s.seen) >= identitiesMax:
		return refuse(TooManyNodes, "node %d is one more than the %d nodes that were seen since this one started", node, identitiesMax)
	case incarnation < known.incarnation:
		return refuse(StaleIncarnation, "node %d introduces itself with incarnation %d, but its incarnation %d was seen already: stop this process, or the other one that uses a copy of its store", node, incarnation, known.incarnation)
	case ok && incarnation == known.incarnation && process != known.process:
		return refuse(CopiedStore, "two processes say that they are incarnation %d of node %d: one of them runs on a copy of the other's store and must be stopped", incarnation, node)
	}
	if s.seen == nil {
		s.seen = make(map[shard.NodeID]identity)
	}
	s.seen[node] = identity{incarnation: incarnation, process: process}
	return nil
}

// current tells whether no newer incarnation of node was seen than this one.
func (s *identities) current(node shard.NodeID, incarnation uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[node].incarnation <= incarnation
}
