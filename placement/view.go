package placement

import "github.com/kiloraft/kiloraft/shard"

// View is what is known of the cluster.
type View struct {
	Nodes  []Node
	Shards []*Shard
	// Settling: a node joined a moment ago and others may be about to. No shard
	// becomes one of fewer voters than the replication factor meanwhile.
	Settling bool
	// Paused: only what a person asked for is decided, and what is half done is
	// finished.
	Paused bool
	// Even: replicas move by placement's own wish, too: over more places, and to even
	// out what nodes hold and bear.
	Even bool
}

// Node is a node that may hold replicas.
type Node struct {
	ID shard.NodeID
	// Live: it answers. One that does not keeps its replicas until it is Dead.
	Live bool
	// Dead: it has not answered for so long that its replicas are to be rebuilt
	// elsewhere. Never set together with Live.
	Dead  bool
	State shard.NodeState
	// Locality is where it is; "" says nothing of it.
	Locality shard.Locality
	// Capacity and Available are the bytes of its disk, and those of them that are free;
	// Capacity 0: not known. Held are those that its store takes up.
	Capacity, Available, Held uint64
}

// Shard is what is known of a shard.
type Shard struct {
	Descriptor shard.Descriptor
	// Leader is the node of the replica that leads; 0: none is known, and no
	// step is decided.
	Leader shard.NodeID
	// Bytes is an estimate of what a replica of it holds, Load what the leader bears.
	Bytes uint64
	Load  Load
	// SplitAt is the key at which its leader wishes it split, with its keyspace; nil: it
	// does not. SplitReason says in a word why, for people.
	SplitAt     []byte
	SplitReason string
	// Commit is the leader's commit index.
	Commit uint64
	// Progress is what the leader knows of the members; a member that is not
	// listed counts as not caught up.
	Progress []Progress
	// Raised: voters were added, and the leader's place has not been decided since.
	Raised bool
	// Spare: the shard has had all that it needs for a while, so that learners which
	// nobody needs may go: if somebody were at work on them, they would be voters.
	Spare bool
	// Task is what is to be done to the shard beside what its descriptor calls
	// for; nil: nothing. While there is one, nothing else is decided.
	Task *Task
	// InFlight is the step that is being carried out, nil if none. It counts
	// as if it had succeeded, and no other step is decided for the shard.
	InFlight *Step
	// Hold: no step is to be decided now.
	Hold bool
}

// Load is what a shard's leader serves, in operations per second.
type Load struct{ Reads, Writes float64 }

// Task is a change of a shard's voters that takes several steps, or of its leader.
type Task struct {
	// From is the node whose voter is to go, To the node that is to have one. One
	// of them may be 0.
	From, To shard.NodeID
	// Lead is the node that is to lead; then From and To are both 0.
	Lead shard.NodeID
	// Auto: nobody asked for it. Why says what it is good for.
	Auto bool
	Why  string
}

// Progress is what a leader knows of a member.
type Progress struct {
	Replica  shard.ReplicaID
	Match    uint64 // index up to which its log is known to equal the leader's
	Active   bool   // heard from within the last election timeout
	Snapshot bool   // is being sent a snapshot
}

// lagEntriesMax is how far a member's log may be behind the leader's commit
// index and count as caught up: what is on its way to it under load.
const lagEntriesMax = 64

// caughtUp tells whether the member could vote for new entries at once. A match
// index of 0 is a member whose log has not begun: it waits for its snapshot,
// however short the leader's log is.
func (s *Shard) caughtUp(id shard.ReplicaID) bool {
	p := s.progress(id)
	return p != nil && p.Active && !p.Snapshot && p.Match > 0 && p.Match+lagEntriesMax >= s.Commit
}

// progress is what the leader knows of a member; nil: nothing.
func (s *Shard) progress(id shard.ReplicaID) *Progress {
	for i := range s.Progress {
		if s.Progress[i].Replica == id {
			return &s.Progress[i]
		}
	}
	return nil
}
