package node

import (
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// ChangeMembership proposes m at the shard's replica here, which must lead. done
// gets the descriptor after the change, or a NotLeaderError that says who leads,
// or why the change was refused.
func (n *Node) ChangeMembership(m shard.MembershipChange, done func(shard.Descriptor, error)) {
	r, err := n.leading(m.Shard)
	if err != nil {
		done(shard.Descriptor{}, err)
		return
	}
	r.ChangeMembership(m, func(err error) {
		if err != nil {
			done(shard.Descriptor{}, err)
			return
		}
		state, _ := r.State()
		done(state.Descriptor, nil)
	})
}

// SplitShard splits a shard at its replica here, which must lead. done gets both
// descriptors, or a NotLeaderError that says who leads, or why the split was refused.
func (n *Node) SplitShard(s shard.Split, done func(left, right shard.Descriptor, err error)) {
	r, err := n.leading(s.Shard)
	if err != nil {
		done(shard.Descriptor{}, shard.Descriptor{}, err)
		return
	}
	r.Split(s, done)
}

// TransferShard asks the shard's replica here, which must lead, to hand over to
// another. done is called when it no longer leads, or with why it still does.
func (n *Node) TransferShard(id shard.ID, to shard.ReplicaID, done func(error)) {
	r, err := n.leading(id)
	if err != nil {
		done(err)
		return
	}
	r.Group().TransferLeader(to, done)
}

// leading is the shard's replica on this node if it leads.
func (n *Node) leading(id shard.ID) (*replica.Replica, error) {
	r, here := n.store.Replica(id)
	if !here {
		return nil, &shard.WrongShardError{Shard: id}
	}
	l := r.Leadership()
	if !l.Leading {
		return nil, notLeader(id, l, n.addresses.Lookup(l.Node))
	}
	return r, nil
}

func notLeader(id shard.ID, l raftgroup.Leadership, address string) error {
	return &shard.NotLeaderError{Shard: id, Leader: shard.LeaderHint{Replica: l.Leader, Node: l.Node, Term: l.Term, Address: address}}
}
