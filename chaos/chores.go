package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// chores are what operators do to a living cluster, whatever else happens to it. They may be
// refused, or not be over when they are given up: then they go on by themselves.
var chores = []fault{
	{kind: "transfer", least: 0, most: 200 * time.Millisecond, inflict: transfer},
	{kind: "transfer", least: 0, most: 200 * time.Millisecond, inflict: transfer},
	{kind: "split", least: 0, most: 200 * time.Millisecond, inflict: splitShard},
	{kind: "split", least: 0, most: 200 * time.Millisecond, inflict: splitShard},
	{kind: "move", least: 0, most: time.Second, inflict: move},
	{kind: "add-remove", least: 0, most: time.Second, inflict: addAndRemove},
	{kind: "drain", least: time.Second, most: 3 * time.Second, inflict: drainAndUndo},
}

const chorePatience = 5 * time.Second

// scene is what an operator sees before doing something.
type scene struct {
	shard   shardRecord // one that was drawn
	members []member    // in a drawn order
}

// look draws a shard, and the order of the nodes. ok is false if the cluster does not answer.
func (f *fire) look(rnd *rand.Rand) (s scene, ok bool) {
	at, seed := rnd.Uint64(), rnd.Uint64()
	all, err := f.shards(f.ctx, chorePatience)
	if err != nil || len(all) == 0 {
		return s, false
	}
	s.shard = all[at%uint64(len(all))]
	members, err := f.members(f.ctx, chorePatience)
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(members)) {
		s.members = append(s.members, members[i])
	}
	return s, err == nil
}

// stranger is a node without a replica of the shard, or 0; resident is one with.
func (s *scene) stranger() uint64 { return s.one(false) }
func (s *scene) resident() uint64 { return s.one(true) }

func (s *scene) one(has bool) uint64 {
	for _, m := range s.members {
		if m.Live && s.shard.has(m.ID) == has {
			return m.ID
		}
	}
	return 0
}

// ask has the cluster do something and says what came of it.
func (f *fire) ask(args ...string) string {
	result := ""
	if err := f.kiloraft(f.ctx, chorePatience, nil, args...); err != nil {
		result = ": not done, or not yet"
	}
	return fmt.Sprint(args[1:]) + result
}

func transfer(f *fire, rnd *rand.Rand) (string, func() error, error) {
	s, ok := f.look(rnd)
	to := s.resident()
	if !ok || to == 0 {
		return "", nil, errBusy
	}
	return f.ask("shard", "transfer-leader", fmt.Sprint(s.shard.ID), "--to", fmt.Sprint(to)), nil, nil
}

func move(f *fire, rnd *rand.Rand) (string, func() error, error) {
	s, ok := f.look(rnd)
	from, to := s.resident(), s.stranger()
	if !ok || from == 0 || to == 0 {
		return "", nil, errBusy
	}
	return f.ask("shard", "move", fmt.Sprint(s.shard.ID), "--from", fmt.Sprint(from), "--to", fmt.Sprint(to)), nil, nil
}

// shardsMax is how many shards a run has at most.
const shardsMax = 4 * ranges

// splitShard splits the shards of one to three keys that are drawn near those in use: some
// of a slot are left on each side then, while others are moved, or have to elect a leader.
func splitShard(f *fire, rnd *rand.Rand) (string, func() error, error) {
	command := []string{"shard", "split"}
	for range 1 + rnd.IntN(3) {
		command = append(command, "--at", shard.FormatUserKey([]byte(splitKey(rnd))))
	}
	all, err := f.shards(f.ctx, chorePatience)
	if err != nil || len(all) >= shardsMax {
		return "", nil, errBusy
	}
	return f.ask(command...), nil, nil
}

// splitKey is the first key of a slot, one in the middle of a slot, or one that lies
// behind all keys of a range.
func splitKey(rnd *rand.Rand) string {
	where, slot := rnd.IntN(ranges), rnd.IntN(slots)
	switch rnd.IntN(4) {
	case 0:
		return prefix(where) + string([]byte{0xff, byte(rnd.IntN(256))})
	case 1:
		return registerKey(where, slot, 0)
	}
	return registerKey(where, slot, rnd.IntN(40))
}

func addAndRemove(f *fire, rnd *rand.Rand) (string, func() error, error) {
	s, ok := f.look(rnd)
	from, to := s.resident(), s.stranger()
	if !ok || from == 0 || to == 0 {
		return "", nil, errBusy
	}
	return f.ask("shard", "add-replica", fmt.Sprint(s.shard.ID), "--to", fmt.Sprint(to)), func() error {
		f.ask("shard", "remove-replica", fmt.Sprint(s.shard.ID), "--from", fmt.Sprint(from))
		return nil
	}, nil
}

func drainAndUndo(f *fire, rnd *rand.Rand) (string, func() error, error) {
	s, ok := f.look(rnd)
	if !ok || len(s.members) == 0 || !s.members[0].Live {
		return "", nil, errBusy
	}
	id := fmt.Sprint(s.members[0].ID)
	return f.ask("node", "drain", id), func() error {
		f.ask("node", "drain", id, "--undo")
		return nil
	}, nil
}
