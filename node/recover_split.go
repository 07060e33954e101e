package node

import (
	"fmt"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
	"github.com/kiloraft/kiloraft/storage"
)

// A shard is not recovered from a replica whose log holds a split that it has not applied.
// The recovered shard has to have a later descriptor than any other that may be known, and
// what waits in its log has to take effect. Neither would hold:
//
//   - The split names the confVersion, which jumps, so it would be refused when it is
//     applied, and with it all that is behind it in the log and was accepted after it.
//   - The shard would stay at its version, older than the one after the split, which the
//     directory and clients may know. Nobody would find it.
//   - Let through, it would give the new shard the next replica ID that has jumped: proof
//     that its replicas were removed, which may live elsewhere by now.

// UnappliedSplit is a split that a replica has in its log and has not applied.
type UnappliedSplit struct {
	shard.Split
	Index uint64 // of its entry
}

// unappliedSplit finds the first split in a log above applied that takes effect once all
// that is before it has; nil: there is none. One that is for an epoch which the shard
// will have left by then would be refused, whether the shard is recovered or not.
func unappliedSplit(log *storage.Log, applied uint64, d shard.Descriptor) (found *UnappliedSplit, err error) {
	err = raftgroup.WalkLog(log, applied, func(index uint64, op []byte) error {
		var h machine.Header
		var c shard.Command
		if err := machine.DecodeOperation(op, &h, &c); err != nil || c.Kind != shard.KindSplit || found != nil {
			return err
		}
		s := machine.SplitOf(d.ID, &h, &c)
		if _, _, refusal := s.Apply(&d); refusal == nil {
			found = &UnappliedSplit{s, index}
		}
		return nil
	}, func(_ uint64, change []byte) error {
		m, err := shard.DecodeMembershipChange(change)
		if err != nil {
			return err
		}
		if next, refusal := m.Apply(&d); refusal == nil {
			d = next
		}
		return nil
	})
	return found, err
}

// Refusal is why Recover refuses the plan, and what to do instead; nil: it does
// not.
func (p *Recovery) Refusal() error {
	s := p.Unapplied
	if s == nil {
		return nil
	}
	instead := fmt.Sprintf("recover it from a store that has applied the split: there its epoch has version %d or a higher one", s.Epoch.Version+1)
	if s.Index <= p.Committed {
		instead = "the entry is known to be committed, so start this node, which applies it without the others, stop it, and try again"
	}
	return fmt.Errorf("shard %d cannot be recovered from this store: entry %d of its log splits it at %s, from where on shard %d begins, and that is not applied here; %s",
		s.Shard, s.Index, shard.FormatKey(s.Key), s.Right, instead)
}
