package shard

import "github.com/kiloraft/kiloraft/internal/planted"

// ChangeKind is what happens to one replica in a membership change.
type ChangeKind byte

const (
	AddLearner    ChangeKind = 1 // a new replica, with the descriptor's next replica ID
	RemoveLearner ChangeKind = 2
	Promote       ChangeKind = 3 // learner to incoming; enters the joint configuration
	Demote        ChangeKind = 4 // voter to outgoing; enters the joint configuration
	LeaveJoint    ChangeKind = 5 // incoming become voters, outgoing become learners
)

// Change is one element of a membership change.
type Change struct {
	Kind    ChangeKind
	Replica ReplicaID // all but LeaveJoint
	Node    NodeID    // AddLearner only
}

// MembershipChange changes a shard's descriptor from the one with exactly the
// given epoch. It holds one AddLearner, or one RemoveLearner, or any number of
// Promote and Demote (one joint change), or one LeaveJoint.
type MembershipChange struct {
	Shard   ID
	Epoch   Epoch
	Changes []Change
}

const membershipFormat = 1

// AppendMembershipChange appends the encoding of m to b.
func AppendMembershipChange(b []byte, m *MembershipChange) []byte {
	b = append(b, membershipFormat)
	b = appendUvarints(b, uint64(m.Shard), m.Epoch.Version, m.Epoch.ConfVersion, uint64(len(m.Changes)))
	for _, c := range m.Changes {
		b = append(b, byte(c.Kind))
		b = appendUvarints(b, uint64(c.Replica), uint64(c.Node))
	}
	return b
}

// DecodeMembershipChange reads what AppendMembershipChange wrote.
func DecodeMembershipChange(b []byte) (MembershipChange, error) {
	r := reader{b: b}
	var m MembershipChange
	r.format(membershipFormat)
	m.Shard = ID(r.uvarint())
	m.Epoch = Epoch{Version: r.uvarint(), ConfVersion: r.uvarint()}
	n := r.uvarint()
	if n > maxReplicas {
		r.fail("%d membership changes at once", n)
	}
	for range n {
		if r.err != nil {
			break
		}
		c := Change{Kind: ChangeKind(r.byte()), Replica: ReplicaID(r.uvarint()), Node: NodeID(r.uvarint())}
		if c.Kind < AddLearner || c.Kind > LeaveJoint {
			r.fail("membership change of kind %d", c.Kind)
		}
		m.Changes = append(m.Changes, c)
	}
	return m, r.done()
}

// Apply is the descriptor after the change, or an InvalidError or
// WrongShardError that says why the change does not fit d. It is deterministic:
// the leader asks before it proposes, and every replica when it applies.
func (m *MembershipChange) Apply(d *Descriptor) (Descriptor, error) {
	refuse := func(reason string) (Descriptor, error) {
		return Descriptor{}, &InvalidError{Field: "membership change", Reason: reason}
	}
	if m.Shard != d.ID || m.Epoch != d.Epoch && !planted.On(planted.EpochNotChecked) {
		return Descriptor{}, &WrongShardError{Shard: m.Shard, Descriptors: []Descriptor{*d}}
	}
	if len(m.Changes) == 0 {
		return refuse("changes nothing")
	}
	next := d.Clone()
	next.Epoch.ConfVersion++
	joint := d.Joint()
	for _, c := range m.Changes {
		i := -1
		for k := range next.Replicas {
			if next.Replicas[k].ID == c.Replica {
				i = k
			}
		}
		alone := len(m.Changes) == 1
		switch c.Kind {
		case AddLearner:
			if _, taken := d.ReplicaOn(c.Node); taken || c.Node == 0 {
				return refuse("adds a replica on a node that has one already, or on no node")
			}
			if len(d.Replicas) >= maxReplicas {
				return refuse("adds a replica to a shard that has as many as a descriptor can hold")
			}
			if joint || !alone || c.Replica != d.NextReplica {
				return refuse("adds a learner that is not the next replica, or not alone, or while joint")
			}
			next.Replicas = append(next.Replicas, Replica{ID: c.Replica, Node: c.Node, Role: Learner})
			next.NextReplica++
		case RemoveLearner:
			if joint || !alone || i < 0 || next.Replicas[i].Role != Learner && !planted.On(planted.VoterRemovedAtOnce) {
				return refuse("removes a replica that is not a learner, or not alone, or while joint")
			}
			next.Replicas = append(next.Replicas[:i], next.Replicas[i+1:]...)
		case Promote:
			if joint || i < 0 || next.Replicas[i].Role != Learner {
				return refuse("promotes a replica that is not a learner, or while joint")
			}
			next.Replicas[i].Role = Incoming
		case Demote:
			if joint || i < 0 || next.Replicas[i].Role != Voter {
				return refuse("demotes a replica that is not a voter, or while joint")
			}
			next.Replicas[i].Role = Outgoing
		case LeaveJoint:
			if !joint || !alone {
				return refuse("leaves a configuration that is not joint, or not alone")
			}
			for k := range next.Replicas {
				switch next.Replicas[k].Role {
				case Incoming:
					next.Replicas[k].Role = Voter
				case Outgoing:
					next.Replicas[k].Role = Learner
				}
			}
		default:
			return refuse("is of an unknown kind")
		}
	}
	voters := 0
	for _, r := range next.Replicas {
		if r.Role == Voter || r.Role == Incoming {
			voters++
		}
	}
	if voters == 0 {
		return refuse("leaves no voter")
	}
	return next, nil
}
