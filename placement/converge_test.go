package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// world is a cluster as it really is; views of it are taken from time to time.
type world struct {
	t      *testing.T
	r      *rand.Rand
	live   map[shard.NodeID]bool
	nodes  int
	shards []*Shard
	moved  map[shard.ID]int
}

// idleDiffMin is how many leaders more than another a node has when they move without
// another reason, and serve nothing.
const idleDiffMin = 3

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), live: map[shard.NodeID]bool{}, moved: map[shard.ID]int{}}
	w.nodes = 1 + w.r.IntN(6)
	for n := 1; n <= w.nodes; n++ {
		w.live[shard.NodeID(n)] = true
	}
	first := w.nodes
	if w.r.IntN(2) == 0 {
		first = 1 // a new cluster: everything is on node 1
	}
	for id := 1; id <= 1+w.r.IntN(40); id++ {
		node := shard.NodeID(1 + w.r.IntN(first))
		s := &Shard{Leader: node, Commit: 10 + w.r.Uint64N(1000)}
		s.Descriptor = shard.Descriptor{ID: shard.ID(id), Span: shard.UserSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 1},
			Replicas: []shard.Replica{{ID: 1, Node: node, Role: shard.Voter}}, NextReplica: 2}
		w.shards = append(w.shards, s)
	}
	return w
}

func (w *world) view() (v View) {
	for n := 1; n <= w.nodes; n++ {
		v.Nodes = append(v.Nodes, Node{ID: shard.NodeID(n), Live: w.live[shard.NodeID(n)]})
	}
	v.Shards = w.shards
	return v
}

// pass lets time go by: members catch up, or do not; nodes die and come back.
func (w *world) pass(chaos bool) {
	if chaos && w.nodes > 1 && w.r.IntN(4) == 0 {
		n := shard.NodeID(1 + w.r.IntN(w.nodes))
		w.live[n] = !w.live[n]
	}
	if !chaos {
		for n := range w.live { //order-free: every one is set
			w.live[n] = true
		}
	}
	for _, s := range w.shards {
		if chaos {
			s.Commit += w.r.Uint64N(200)
		}
		s.Progress = nil
		electable := []shard.NodeID{}
		voters := 0
		for _, r := range s.Descriptor.Replicas {
			p := Progress{Replica: r.ID, Match: s.Commit, Active: w.live[r.Node]}
			if chaos && w.r.IntN(2) == 0 {
				p.Match, p.Snapshot = w.r.Uint64N(s.Commit), w.r.IntN(3) == 0
			}
			s.Progress = append(s.Progress, p)
			if r.Role == shard.Voter || r.Role == shard.Incoming {
				voters++
				if p.Active {
					electable = append(electable, r.Node)
				}
			}
		}
		switch {
		case 2*len(electable) <= voters:
			s.Leader = 0
		case !w.live[s.Leader] || s.Leader == 0:
			s.Leader = electable[w.r.IntN(len(electable))]
		}
	}
}

// finish ends a step in flight, with success or without.
func (w *world) finish(s *Shard, succeed bool) {
	st := s.InFlight
	s.InFlight = nil
	if !succeed {
		return
	}
	d := &s.Descriptor
	if st.Kind == TransferLeader {
		if r, ok := d.Replica(st.Replica); !ok || r.Role != shard.Voter || d.Joint() {
			w.t.Fatalf("%v of %+v", st, d)
		}
		w.moved[d.ID]++
		s.Leader, s.Raised = st.Node, false
		return
	}
	if st.Kind == Split {
		w.split(s, st)
		return
	}
	m := st.Membership()
	next, err := m.Apply(d)
	if err != nil {
		w.t.Fatalf("%v: %v", st, err)
	}
	if _, err := shard.DecodeMembershipChange(shard.AppendMembershipChange(nil, &m)); err != nil {
		w.t.Fatal(err)
	}
	s.Raised = st.Kind == LeaveJoint
	*d = next
}

// split divides a shard; its leader wishes that no more.
func (w *world) split(s *Shard, st *Step) {
	right := *s
	right.Descriptor = s.Descriptor
	right.Descriptor.Replicas = slices.Clone(s.Descriptor.Replicas)
	right.Descriptor.ID = shard.ID(len(w.shards) + 1)
	right.Descriptor.Span.Start, s.Descriptor.Span.End = st.SplitAt, st.SplitAt
	s.SplitAt, right.SplitAt, right.Task = nil, nil, nil
	s.Bytes, right.Bytes = s.Bytes/2, s.Bytes/2
	s.Descriptor.Epoch.Version++
	right.Descriptor.Epoch = s.Descriptor.Epoch
	w.shards = append(w.shards, &right)
}

func (w *world) round(chaos bool) (steps int) {
	w.pass(chaos)
	for _, st := range Decide(w.view(), Limits{StepsMax: 1 + w.r.IntN(64), LearnersMax: 1 + w.r.IntN(20)}) {
		steps++
		s := w.shards[st.Shard-1]
		if s.InFlight != nil || s.Descriptor.ID != st.Shard || s.Descriptor.Epoch != st.Epoch || s.Leader != st.Leader || !w.live[s.Leader] {
			w.t.Fatalf("%v for %+v", &st, s)
		}
		s.InFlight = &st
	}
	for _, s := range w.shards {
		switch {
		case s.InFlight == nil:
			s.Raised = false // its place was decided with full knowledge
		case !chaos:
			w.finish(s, true)
		case w.r.IntN(3) > 0: // the others stay in flight
			w.finish(s, w.r.IntN(4) > 0)
		}
	}
	return steps
}

func (w *world) check() error {
	leaders := map[shard.NodeID]int{}
	for _, s := range w.shards {
		voters, want := 0, VotersWanted(s.Descriptor.ID, w.nodes)
		for _, r := range s.Descriptor.Replicas {
			if r.Role == shard.Voter {
				voters++
			}
		}
		if voters != want || s.Descriptor.Joint() || s.Leader == 0 {
			return fmt.Errorf("shard %d led by %d has %d of %d voters: %+v", s.Descriptor.ID, s.Leader, voters, want, s.Descriptor.Replicas)
		}
		leaders[s.Leader]++
	}
	for _, s := range w.shards {
		for _, r := range s.Descriptor.Replicas {
			if r.Role == shard.Voter && leaders[s.Leader]-leaders[r.Node] >= idleDiffMin {
				return fmt.Errorf("shard %d could move from node %d to %d: leaders %v", s.Descriptor.ID, s.Leader, r.Node, leaders)
			}
		}
	}
	return nil
}

// settle goes on without faults until nothing is decided any more.
func (w *world) settle() {
	w.t.Helper()
	for range 20*len(w.shards) + 20 {
		if w.round(false) == 0 {
			return
		}
	}
	w.t.Fatalf("still deciding for %d shards on %d nodes", len(w.shards), w.nodes)
}

func TestEveryClusterConverges(t *testing.T) {
	for seed := range uint64(400) {
		w := newWorld(t, seed)
		for range w.r.IntN(60) {
			w.round(true)
		}
		for _, s := range w.shards {
			if s.InFlight != nil {
				w.finish(s, false)
			}
		}
		w.moved = map[shard.ID]int{}
		w.settle()
		if err := w.check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		// A leader that moved stays: once to spread it when it was raised, and once
		// more when the others have settled.
		for id, n := range w.moved { //order-free: each is checked alone
			if n > 2 {
				t.Fatalf("seed %d: shard %d's leader moved %d times", seed, id, n)
			}
		}
		for range 3 {
			if n := w.round(false); n != 0 {
				t.Fatalf("seed %d: %d steps for a cluster at rest", seed, n)
			}
		}
	}
}

func TestOnePersonsTransferIsNotUndone(t *testing.T) {
	for seed := range uint64(50) {
		w := newWorld(t, seed)
		w.settle()
		least, most := w.leaders()
		if most-least > 1 {
			continue // the tolerance is used up
		}
		for _, s := range w.shards {
			for _, r := range s.Descriptor.Replicas {
				before := s.Leader
				if w.r.IntN(3) != 0 {
					continue
				}
				s.Leader = r.Node
				if lo, hi := w.leaders(); hi-lo < idleDiffMin {
					if n := w.round(false); n != 0 {
						t.Fatalf("seed %d: %d steps after one transfer", seed, n)
					}
				}
				s.Leader = before
			}
		}
	}
}

func (w *world) leaders() (least, most int) {
	counts := make([]int, w.nodes+1)
	for _, s := range w.shards {
		counts[s.Leader]++
	}
	least = len(w.shards)
	for _, n := range counts[1:] {
		least, most = min(least, n), max(most, n)
	}
	return least, most
}

// A new cluster's leaders end up as even as can be, not merely within the
// tolerance.
func TestNewClusterIsSpreadEvenly(t *testing.T) {
	for _, users := range []int{1, 2, 3, 8, 48, 200} {
		w := newWorld(t, 1)
		w.nodes, w.shards = 3, nil
		w.live = map[shard.NodeID]bool{1: true, 2: true, 3: true}
		for id := 1; id <= users+1; id++ {
			w.shards = append(w.shards, &Shard{Leader: 1, Commit: 10, Descriptor: shard.Descriptor{ID: shard.ID(id), Span: shard.UserSpan(),
				Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, NextReplica: 2}})
		}
		w.settle()
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
		if least, most := w.leaders(); most-least > 1 {
			t.Errorf("%d shards: a node leads %d, another %d", users+1, least, most)
		}
		if w.shards[0].Leader != 1 {
			t.Errorf("%d shards: the meta shard's leader moved to node %d", users+1, w.shards[0].Leader)
		}
	}
}

func BenchmarkDecideAtRest(b *testing.B) {
	var v View
	for n := 1; n <= 3; n++ {
		v.Nodes = append(v.Nodes, Node{ID: shard.NodeID(n), Live: true})
	}
	for id := 1; id <= 1000; id++ {
		s := &Shard{Leader: shard.NodeID(1 + id%3), Commit: 100, Descriptor: shard.Descriptor{ID: shard.ID(id), NextReplica: 4}}
		for r := 1; r <= 3; r++ {
			s.Descriptor.Replicas = append(s.Descriptor.Replicas, shard.Replica{ID: shard.ReplicaID(r), Node: shard.NodeID(r), Role: shard.Voter})
		}
		v.Shards = append(v.Shards, s)
	}
	b.ReportAllocs()
	for b.Loop() {
		if steps := Decide(v, Limits{}); len(steps) != 0 {
			b.Fatal(steps)
		}
	}
}
