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
	Promote
	AddLearner
	TransferLeader
)

// Step is one thing to do to a shard.
type Step struct {
	Kind   Kind
	Shard  shard.ID
	Epoch  shard.Epoch  // that it is decided for
	Leader shard.NodeID // whom to ask

	// Node gets the learner or the leadership.
	Node shard.NodeID
	// Replica gets the leadership; of AddLearner, the new replica.
	Replica shard.ReplicaID
	// Promoted are the learners that become voters, in order of ID.
	Promoted []shard.Replica
}

// Membership is the step as a change of the shard's membership; TransferLeader
// is none.
func (st *Step) Membership() shard.MembershipChange {
	m := shard.MembershipChange{Shard: st.Shard, Epoch: st.Epoch}
	switch st.Kind {
	case LeaveJoint:
		m.Changes = []shard.Change{{Kind: shard.LeaveJoint}}
	case AddLearner:
		m.Changes = []shard.Change{{Kind: shard.AddLearner, Replica: st.Replica, Node: st.Node}}
	case Promote:
		for _, r := range st.Promoted {
			m.Changes = append(m.Changes, shard.Change{Kind: shard.Promote, Replica: r.ID})
		}
	default:
		panic(fmt.Sprintf("placement: %v is not a membership change", st))
	}
	return m
}

func (st *Step) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "shard %d epoch %v on node %d: ", st.Shard, st.Epoch, st.Leader)
	switch st.Kind {
	case LeaveJoint:
		s.WriteString("leave joint configuration")
	case Promote:
		s.WriteString("promote")
		for _, r := range st.Promoted {
			fmt.Fprintf(&s, " replica %d (node %d)", r.ID, r.Node)
		}
	case AddLearner:
		fmt.Fprintf(&s, "add learner %d on node %d", st.Replica, st.Node)
	case TransferLeader:
		fmt.Fprintf(&s, "transfer leader to replica %d (node %d)", st.Replica, st.Node)
	}
	return s.String()
}
