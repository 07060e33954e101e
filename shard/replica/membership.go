package replica

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// ChangeMembership proposes m if this replica leads. done is called exactly
// once, perhaps before the call returns: with nil once the change is applied
// here, else with a NotLeaderError, the refusal of m by the applied descriptor
// (a WrongShardError with it if m is for another epoch, an InvalidError), a
// NotReadyError if m would do harm now, an error that wraps ErrDropped while
// another change is under way, or ErrUndetermined.
func (r *Replica) ChangeMembership(m shard.MembershipChange, done func(error)) {
	l, d := r.leadership.Load(), r.descriptor.Load()
	if !l.Leading || d == nil {
		done(r.notLeader())
		return
	}
	// Against the applied descriptor: raft validates nothing, and a change that
	// does not fit would only be found out when it is applied.
	if _, err := m.Apply(d); err != nil {
		done(err)
		return
	}
	if !r.membership.CompareAndSwap(false, true) {
		done(fmt.Errorf("%w: another membership change is under way", shard.ErrDropped))
		return
	}
	r.group.ProposeMembership(l.Term, m, func(err error) {
		r.membership.Store(false)
		done(r.hinted(err))
	})
}
