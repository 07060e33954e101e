package placement

import (
	"fmt"
	"strings"

	"github.com/kiloraft/kiloraft/shard"
)

// Kind says what a step does. Smaller kinds go first: what is half done is
// finished before something new begins.
type Kind int

const (
	LeaveJoint Kind = iota
	// Joint makes learners voters and voters learners, in one joint change.
	Joint
	RemoveLearner
	AddLearner
	Split
	TransferLeader
)

// Step is one thing to do to a shard.
type Step struct {
	Kind   Kind
	Shard  shard.ID
	Epoch  shard.Epoch  // that it is decided for
	Leader shard.NodeID // whom to ask

	// Node gets the learner or the leadership, or loses the learner.
	Node shard.NodeID
	// Replica gets the leadership or is removed; of AddLearner, the new replica.
	Replica shard.ReplicaID
	// Promoted are the learners that become voters, Demoted the voters that
	// become learners, each in order of ID.
	Promoted, Demoted []shard.Replica

	// SplitAt is the key at which the shard is to be split, with its keyspace: the right
	// side begins there. Reason says in a word why.
	SplitAt []byte
	Reason  string

	// Task begins with this step, an AddLearner; nil: none does.
	Task *Task
	// counted: the shard's task counts what the step does to nodes.
	counted bool
	// size and load are what a replica and the leader of the shard cost a node, and
	// members the nodes of its replicas if it is split.
	size, load int64
	members    []shard.NodeID
}

// step begins a step for the shard as it is.
func (s *Shard) step(kind Kind) Step {
	d := &s.Descriptor
	return Step{Kind: kind, Shard: d.ID, Epoch: d.Epoch, Leader: s.Leader, size: s.size(), load: s.load()}
}

// Membership is the step as a change of the shard's membership; Split and
// TransferLeader are none.
func (st *Step) Membership() shard.MembershipChange {
	m := shard.MembershipChange{Shard: st.Shard, Epoch: st.Epoch}
	switch st.Kind {
	case LeaveJoint:
		m.Changes = []shard.Change{{Kind: shard.LeaveJoint}}
	case AddLearner:
		m.Changes = []shard.Change{{Kind: shard.AddLearner, Replica: st.Replica, Node: st.Node}}
	case RemoveLearner:
		m.Changes = []shard.Change{{Kind: shard.RemoveLearner, Replica: st.Replica}}
	case Joint:
		for _, r := range st.Promoted {
			m.Changes = append(m.Changes, shard.Change{Kind: shard.Promote, Replica: r.ID})
		}
		for _, r := range st.Demoted {
			m.Changes = append(m.Changes, shard.Change{Kind: shard.Demote, Replica: r.ID})
		}
	default:
		panic(fmt.Sprintf("placement: %v is not a membership change", st))
	}
	return m
}

func (st *Step) String() string {
	return fmt.Sprintf("shard %d epoch %v on node %d: %s", st.Shard, st.Epoch, st.Leader, st.What())
}

// What is the step without the shard: what is done.
func (st *Step) What() string {
	var s strings.Builder
	switch st.Kind {
	case LeaveJoint:
		return "leave joint configuration"
	case Joint:
		s.WriteString(replicasText("promote", st.Promoted))
		if len(st.Promoted) > 0 && len(st.Demoted) > 0 {
			s.WriteString(", ")
		}
		s.WriteString(replicasText("demote", st.Demoted))
	case RemoveLearner:
		fmt.Fprintf(&s, "remove learner %d on node %d", st.Replica, st.Node)
	case AddLearner:
		fmt.Fprintf(&s, "add learner %d on node %d", st.Replica, st.Node)
		if st.Task != nil {
			fmt.Fprintf(&s, " in place of the replica on node %d", st.Task.From)
		}
	case Split:
		fmt.Fprintf(&s, "split at %s, by %s", shard.FormatKey(st.SplitAt), st.Reason)
	case TransferLeader:
		fmt.Fprintf(&s, "transfer leader to replica %d (node %d)", st.Replica, st.Node)
	}
	return s.String()
}

func replicasText(verb string, replicas []shard.Replica) string {
	if len(replicas) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString(verb)
	for _, r := range replicas {
		fmt.Fprintf(&s, " replica %d (node %d)", r.ID, r.Node)
	}
	return s.String()
}
