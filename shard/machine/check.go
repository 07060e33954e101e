package machine

import (
	"bytes"
	"slices"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Check is a step of comparing the replicas of a shard: a place in the log of which
// each takes a digest, or what the leader's was.
type Check struct {
	At raftgroup.Position // of the entry

	// State is the replicated state as of the place of which a digest is taken, but for
	// the applied position; nil for a comparison.
	State *storage.ReplicaState

	// Of a comparison.
	Digested uint64 // index of the entry that asked for the digest
	Applied  uint64 // in the view that the leader's is of
	Digest   []byte
}

// check notes a check. It has no effect on the state: what comes of it is each
// replica's own, and a difference is reported, not repaired. The result's Detail is the
// index of the entry, which names the check. So an entry has one check, at the place of
// the first command that asks for it: those that follow it, whatever else stands in
// between, are told of the same.
func (m *Machine) check(c *shard.Command) raftgroup.Result {
	k := Check{At: m.at}
	if c.Kind == shard.KindDigest {
		if slices.ContainsFunc(m.checks, func(k Check) bool { return k.State != nil && k.At == m.at }) {
			return raftgroup.Result{Detail: m.at.Index}
		}
		state := m.state
		state.Applied, state.AppliedTerm = 0, 0
		k.State = &state
	} else {
		k.Digested, k.Applied, k.Digest = c.Digested, c.Applied, bytes.Clone(c.Value)
	}
	m.checks = append(m.checks, k)
	return raftgroup.Result{Detail: m.at.Index}
}

// TakeChecks hands over the checks of a turn whose batch is visible.
func (m *Machine) TakeChecks() []Check {
	checks := m.checks
	m.checks = nil
	return checks
}
