package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// replacing is a world in which nodes die, drain and leave, and people move
// replicas, at any moment.
type replacing struct {
	*world
	disks map[shard.NodeID]uint64 // capacity, of which half is free
	at    map[shard.NodeID]shard.Locality
	dead  map[shard.NodeID]bool
	state map[shard.NodeID]shard.NodeState
}

func newReplacing(t *testing.T, seed uint64) *replacing {
	w := &replacing{world: newWorld(t, seed), dead: map[shard.NodeID]bool{}, state: map[shard.NodeID]shard.NodeState{}}
	w.r = rand.New(rand.NewPCG(seed, 2))
	return w
}

// outfit gives nodes disks and places, and shards sizes, loads and wishes.
func (w *replacing) outfit() {
	w.disks, w.at = map[shard.NodeID]uint64{}, map[shard.NodeID]shard.Locality{}
	zones := 1 + w.r.IntN(4)
	for n := 1; n <= w.nodes; n++ {
		w.disks[shard.NodeID(n)] = uint64(1+w.r.IntN(3)) << 40
		w.at[shard.NodeID(n)] = shard.Locality(fmt.Sprintf("zone=%d", w.r.IntN(zones)))
	}
	for _, s := range w.shards {
		s.Bytes = w.r.Uint64N(1 << 30)
		s.Load.Writes = float64(w.r.IntN(2000))
		if s.Descriptor.ID != shard.MetaID && w.r.IntN(4) == 0 {
			s.SplitAt, s.SplitReason = shard.UserKey([]byte{byte(1 + w.r.IntN(200))}), "size"
		}
	}
}

func (w *replacing) view() View {
	v := w.world.view()
	v.Even = true
	for i := range v.Nodes {
		n := &v.Nodes[i]
		n.Dead, n.State = w.dead[n.ID] && !n.Live, w.state[n.ID]
		n.Locality, n.Capacity, n.Available = w.at[n.ID], w.disks[n.ID], w.disks[n.ID]/2
	}
	return v
}

// upset changes what is wanted, and what lives.
func (w *replacing) upset() {
	n := shard.NodeID(1 + w.r.IntN(w.nodes))
	switch w.r.IntN(6) {
	case 0:
		w.dead[n] = !w.dead[n]
	case 1:
		w.state[n] = shard.NodeState(w.r.IntN(int(shard.Leaving) + 1))
	case 2:
		s := w.shards[w.r.IntN(len(w.shards))]
		s.Task = &Task{From: n, To: shard.NodeID(1 + w.r.IntN(w.nodes))}
	}
	for _, s := range w.shards {
		s.Spare = w.r.IntN(2) == 0
	}
}

// round decides once and carries out, and holds every step against what must never be.
func (w *replacing) round(chaos bool) (steps int) {
	w.pass(chaos)
	w.handOver()
	v := w.view()
	p := NewPlan(v, Limits{})
	for _, s := range w.shards {
		if s.Task != nil && s.InFlight == nil {
			if state, _ := p.Judge(s); state != TaskGoesOn {
				s.Task = nil
			}
		}
	}
	for _, st := range Decide(v, Limits{StepsMax: 1 + w.r.IntN(64)}) {
		steps++
		s := w.shards[st.Shard-1]
		w.admissible(s, &st)
		s.InFlight = &st
		if st.Task != nil {
			s.Task = st.Task
		}
	}
	for _, s := range w.shards {
		if s.InFlight == nil {
			s.Raised = false
			continue
		}
		if chaos && w.r.IntN(3) == 0 {
			continue
		}
		w.finish(s, !chaos || w.r.IntN(4) > 0)
	}
	return steps
}

// handOver is what groups do by themselves: a leader that does not stay a voter makes
// way for one that does.
func (w *replacing) handOver() {
	for _, s := range w.shards {
		if r, _ := s.Descriptor.ReplicaOn(s.Leader); r.Role != shard.Outgoing || s.InFlight != nil {
			continue
		}
		for _, r := range s.Descriptor.Replicas {
			if votes(r) && w.live[r.Node] {
				s.Leader = r.Node
			}
		}
	}
}

// admissible ends the test if a step breaks an invariant.
func (w *replacing) admissible(s *Shard, st *Step) {
	w.t.Helper()
	d := &s.Descriptor
	fail := func(why string) {
		w.t.Fatalf("%s: %v for %+v led by %d, task %+v", why, st, d.Replicas, s.Leader, s.Task)
	}
	if s.InFlight != nil || st.Epoch != d.Epoch || st.Leader != s.Leader || !w.live[s.Leader] {
		fail("not for this shard as it is")
	}
	host := func(n shard.NodeID) bool { return w.live[n] && w.state[n] == shard.Serving }
	switch st.Kind {
	case AddLearner, TransferLeader:
		if !host(st.Node) {
			fail("to a node that takes nothing")
		}
	case RemoveLearner:
		if r, _ := d.Replica(st.Replica); r.Role != shard.Learner {
			fail("removes what is no learner")
		}
	case Joint:
		demotedMax := len(st.Promoted) + max(0, voters(d)-ReplicationFactor)
		if s.Task != nil {
			demotedMax = 1 // a person wants it, or what replaces it votes already
		}
		if len(st.Demoted) > demotedMax {
			fail("demotes what is not replaced")
		}
		if t := s.Task; t != nil && t.From != 0 && t.To != 0 && len(st.Promoted) > 0 {
			if r, _ := d.ReplicaOn(t.From); r.Role != shard.Voter {
				fail("a move promotes in the place of no voter")
			}
		}
		if lost := w.strands(s, st); lost != 0 {
			fail(fmt.Sprintf("the loss of node %d would strand the shard", lost))
		}
		for _, r := range st.Promoted {
			if !s.caughtUp(r.ID) {
				fail("promotes what lags")
			}
		}
		for _, r := range st.Demoted {
			if r.Node == s.Leader && voters(d) > 1 {
				fail("demotes its leader")
			}
		}
	}
}

// strands is the node of a promoted replica whose loss at this moment would leave the new
// configuration without a majority, while the old one has one; 0: there is none, or all
// voters that stay live, so that this could not be helped.
func (w *replacing) strands(s *Shard, st *Step) shard.NodeID {
	majority := func(nodes []shard.NodeID, lost shard.NodeID) bool {
		live := 0
		for _, n := range nodes {
			if w.live[n] && n != lost {
				live++
			}
		}
		return 2*live > len(nodes)
	}
	var before, after []shard.NodeID
	allStay := true
	for _, r := range s.Descriptor.Replicas {
		if votes(r) {
			before = append(before, r.Node)
			if !slices.Contains(st.Demoted, r) {
				after = append(after, r.Node)
				allStay = allStay && w.live[r.Node]
			}
		}
	}
	for _, r := range st.Promoted {
		after = append(after, r.Node)
	}
	for _, r := range st.Promoted {
		if !allStay && majority(before, r.Node) && !majority(after, r.Node) {
			return r.Node
		}
	}
	return 0
}

// settled says what is not as it should be in the end.
func (w *replacing) settled() error {
	hosts := 0
	for n := 1; n <= w.nodes; n++ {
		if w.state[shard.NodeID(n)] == shard.Serving {
			hosts++
		}
	}
	for _, s := range w.shards {
		onHosts, all := 0, 0
		for _, r := range s.Descriptor.Replicas {
			if r.Role == shard.Learner && hosts < ReplicationFactor {
				continue // it waits for its node to serve
			}
			if r.Role != shard.Voter {
				return fmt.Errorf("shard %d: a %v is left: %+v", s.Descriptor.ID, r.Role, s.Descriptor.Replicas)
			}
			all++
			if w.state[r.Node] == shard.Serving {
				onHosts++
			}
			if w.state[r.Node] == shard.Leaving && hosts >= ReplicationFactor {
				return fmt.Errorf("shard %d is still on node %d, which leaves: %+v", s.Descriptor.ID, r.Node, s.Descriptor.Replicas)
			}
		}
		if all < min(ReplicationFactor, hosts) || s.Leader == 0 {
			return fmt.Errorf("shard %d led by %d has %d voters: %+v", s.Descriptor.ID, s.Leader, all, s.Descriptor.Replicas)
		}
		if onHosts > 0 && w.state[s.Leader] != shard.Serving {
			return fmt.Errorf("shard %d is led by node %d, which is %v", s.Descriptor.ID, s.Leader, w.state[s.Leader])
		}
	}
	return nil
}

// giveUp ends tasks that get nowhere, as a driver does after a while; it tells
// whether there was any. A leader that is to go may have nobody to hand over to.
func (w *replacing) giveUp() (any bool) {
	for _, s := range w.shards {
		any = any || s.Task != nil
		s.Task = nil
	}
	return any
}

func TestNodesThatDieDrainAndLeaveAreReplaced(t *testing.T) {
	for seed := range uint64(600) {
		replaceAll(t, seed, newReplacing(t, seed))
	}
}

// The same with nodes of different sizes in different places, and shards that are split.
func TestDifferentNodesAreReplaced(t *testing.T) {
	splits := 0
	for seed := range uint64(300) {
		w := newReplacing(t, seed)
		w.outfit()
		before := len(w.shards)
		replaceAll(t, seed, w)
		splits += len(w.shards) - before
		p := NewPlan(w.view(), Limits{})
		for _, s := range w.shards {
			if d := &s.Descriptor; p.mayMove(s) && p.couldSpread(d) && p.Unscattered(s) == "" {
				if _, to := p.widerMove(s); to != nil {
					t.Fatalf("seed %d: shard %d could be in more places: %+v at %v, %v", seed, d.ID, d.Replicas, w.at, w.state)
				}
			}
		}
		if _, from, to := (&evening{plan: p, taken: map[shard.ID]bool{}, futile: map[[2]int]bool{}}).best(w.shards[1:]); to != nil {
			t.Fatalf("seed %d: node %d holds too much, node %d too little", seed, from.id, to.id)
		}
	}
	if splits == 0 {
		t.Fatal("nothing was ever split")
	}
}

func replaceAll(t *testing.T, seed uint64, w *replacing) {
	t.Helper()
	{
		for range 20 + w.r.IntN(80) {
			w.upset()
			w.round(true)
		}
		for _, s := range w.shards {
			if s.InFlight != nil {
				w.finish(s, false)
			}
			s.Spare = true
		}
		clear(w.dead)
		steps := 0
		for range 60*len(w.shards) + 60 {
			if steps = w.round(false); steps > 0 {
				continue
			}
			if !w.giveUp() {
				break
			}
		}
		if steps != 0 {
			t.Fatalf("seed %d: still deciding for %d shards on %d nodes", seed, len(w.shards), w.nodes)
		}
		if err := w.settled(); err != nil {
			t.Fatalf("seed %d: %v; nodes %v", seed, err, w.state)
		}
	}
}
