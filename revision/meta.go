package revision

import (
	"encoding/binary"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// MetaIn finds the meta shard's replica among a node's.
func MetaIn(s *replica.Store) (Meta, bool) {
	r, ok := s.Replica(shard.MetaID)
	return metaReplica{r, s}, ok
}

// metaReplica is Meta over a replica.
type metaReplica struct {
	*replica.Replica
	store *replica.Store
}

// Raise implements Meta. The replica compares the term of the target, and proposes
// in that term only.
func (m metaReplica) Raise(term uint64, n uint64, done func(bound uint64, err error)) {
	state, ok := m.State()
	if !ok {
		done(0, shard.ErrUnavailable)
		return
	}
	m.store.ExecuteTrusted(shard.Request{
		Target:  shard.Target{Shard: shard.MetaID, Version: state.Descriptor.Epoch.Version, Replica: m.Self(), Term: term},
		Command: shard.AppendCommand(nil, &shard.Command{Kind: shard.KindIncrement, Key: BoundKey(), Delta: n}),
	}, func(p shard.Response) {
		switch {
		case p.Err != nil:
			done(0, p.Err)
		case len(p.Result.Value) != 8:
			done(0, &shard.InternalError{Reason: "the bound of revisions is no counter"})
		default:
			done(binary.BigEndian.Uint64(p.Result.Value), nil)
		}
	})
}
