package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// large is a cluster of many shards whose steps succeed at once.
type large struct {
	nodes  []Node
	shards []*Shard
	limits Limits
	moves  int // of replicas
	moved  int64
	hands  int // of leadership
	splits int
	looks  int // the most in one decision
}

// newLarge places shards' voters round and round on the first some nodes.
func newLarge(nodes, first, shards int, r *rand.Rand) *large {
	w := &large{}
	for n := 1; n <= nodes; n++ {
		w.nodes = append(w.nodes, Node{ID: shard.NodeID(n), Live: true})
	}
	for id := 2; id < 2+shards; id++ { // without the meta shard
		s := &Shard{Commit: 100, Descriptor: shard.Descriptor{ID: shard.ID(id), Span: shard.UserSpan(),
			Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 4}}
		at := id
		if r != nil {
			at = r.IntN(first)
		}
		for i := range 3 {
			s.Descriptor.Replicas = append(s.Descriptor.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: shard.NodeID(1 + (at+i)%first), Role: shard.Voter})
		}
		s.Leader = s.Descriptor.Replicas[id%3].Node
		w.shards = append(w.shards, s)
	}
	w.heard()
	return w
}

// heard lets all members catch up.
func (w *large) heard() {
	for _, s := range w.shards {
		s.Progress = s.Progress[:0]
		for _, r := range s.Descriptor.Replicas {
			s.Progress = append(s.Progress, Progress{Replica: r.ID, Match: s.Commit, Active: true})
		}
	}
}

func (w *large) view() View { return View{Nodes: w.nodes, Shards: w.shards, Even: true} }

// round decides and carries out; it tells how many steps that were.
func (w *large) round(t testing.TB) int {
	w.heard()
	p := NewPlan(w.view(), w.limits)
	for _, s := range w.shards {
		if s.Task != nil {
			if state, why := p.Judge(s); state == TaskImpossible {
				t.Fatalf("shard %d: %s", s.Descriptor.ID, why)
			} else if state == TaskDone {
				s.Task = nil
			}
		}
	}
	p = NewPlan(w.view(), w.limits)
	steps, _ := p.Decide(w.shards)
	w.looks = max(w.looks, p.looks)
	for i := range steps {
		w.carryOut(t, &steps[i])
	}
	return len(steps)
}

func (w *large) carryOut(t testing.TB, st *Step) {
	s := w.shards[st.Shard-2]
	if st.Task != nil {
		s.Task = st.Task
		w.moves++
		w.moved += s.size()
	}
	switch st.Kind {
	case TransferLeader:
		w.hands++
		s.Leader = st.Node
	case Split:
		w.splits++
		(&world{}).split(s, st)
	default:
		m := st.Membership()
		next, err := m.Apply(&s.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		s.Descriptor = next
	}
}

// settle goes on until nothing is decided any more.
func (w *large) settle(t testing.TB) {
	t.Helper()
	for range 100_000 {
		if w.round(t) == 0 {
			return
		}
	}
	t.Fatalf("still deciding after %d moves and %d transfers", w.moves, w.hands)
}

// shares are what each node holds, for its fair share of all.
func (w *large) shares() (shares []float64) {
	p := NewPlan(w.view(), w.limits)
	for i := range p.nodes {
		shares = append(shares, p.nodes[i].score()/float64(max(p.meanSize, 1)))
	}
	return shares
}

// leastMoves is a bound below which no moves can give each node what it lacks of its fair share,
// but for the part that the tolerance leaves: as many as the largest shards there are have to be.
func (w *large) leastMoves(tolerance float64) (least int) {
	p := NewPlan(w.view(), w.limits)
	sizes := make([]int64, len(w.shards))
	for i, s := range w.shards {
		sizes[i] = s.size()
	}
	slices.SortFunc(sizes, func(a, b int64) int { return int(b - a) })
	for i := range p.nodes {
		n := &p.nodes[i]
		lacks := float64(p.meanSize)*n.weight*(1-tolerance) - float64(n.size)
		for k := 0; lacks > 0; k++ {
			lacks -= float64(sizes[k])
			least++
		}
	}
	return least
}

func TestBalanceIsReachedWithFewMoves(t *testing.T) {
	for _, c := range []struct {
		name                 string
		nodes, first, shards int
		size                 func(*rand.Rand) uint64
		capacity             func(n int) uint64
		zones                int
	}{
		{name: "one new among 3, empty shards", nodes: 4, first: 3, shards: 200},
		{name: "one new among 3, equal sizes", nodes: 4, first: 3, shards: 60, size: func(*rand.Rand) uint64 { return 256 << 20 }},
		{name: "one new among 3, different sizes", nodes: 4, first: 3, shards: 300, size: func(r *rand.Rand) uint64 { return r.Uint64N(256 << 20) }},
		{name: "two new among 10", nodes: 12, first: 10, shards: 1000, size: func(r *rand.Rand) uint64 { return 128<<20 + r.Uint64N(128<<20) }},
		{name: "two new among 10, large and small shards", nodes: 12, first: 10, shards: 1000, size: func(r *rand.Rand) uint64 {
			return []uint64{256 << 20, 8 << 20}[r.IntN(2)]
		}},
		{name: "three zones, one new in each", nodes: 12, first: 9, shards: 900, size: func(r *rand.Rand) uint64 { return r.Uint64N(256 << 20) },
			zones: 3},
		{name: "a new one of twice the size among 5", nodes: 6, first: 5, shards: 600, size: func(r *rand.Rand) uint64 { return r.Uint64N(256 << 20) },
			capacity: func(n int) uint64 {
				if n == 6 {
					return 2 << 40
				}
				return 1 << 40
			}},
		{name: "ten new among 20", nodes: 30, first: 20, shards: 3000, size: func(r *rand.Rand) uint64 { return r.Uint64N(256 << 20) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			w := newLarge(c.nodes, c.first, c.shards, r)
			for _, s := range w.shards {
				if c.size != nil {
					s.Bytes = c.size(r)
				}
			}
			for i := range w.nodes {
				if c.zones > 0 {
					w.nodes[i].Locality = shard.Locality(fmt.Sprintf("zone=%d", i%c.zones))
				}
				if c.capacity != nil {
					w.nodes[i].Capacity = c.capacity(i + 1)
					w.nodes[i].Available = w.nodes[i].Capacity / 2
					w.nodes[i].Held = w.nodes[i].Capacity / 2
				}
			}
			least := w.leastMoves(0)
			w.settle(t)
			shares := w.shares()
			low, high := slices.Min(shares), slices.Max(shares)
			ratio := float64(w.moves) / float64(least)
			t.Logf("%d moves, at least %d: %.2f; %d transfers; shares from %.3f to %.3f; at most %d looks", w.moves, least, ratio, w.hands, low, high, w.looks)
			if ratio >= 1.3 {
				t.Errorf("%d moves where %d had been enough", w.moves, least)
			}
			if high-low > 0.1 {
				t.Errorf("nodes hold from %.3f to %.3f of their fair share", low, high)
			}
			w.checkZones(t, c.zones)
			for range 3 {
				if n := w.round(t); n != 0 {
					t.Fatalf("%d steps at rest", n)
				}
			}
		})
	}
}

// checkZones ends the test unless every shard has its voters in different zones.
func (w *large) checkZones(t *testing.T, zones int) {
	t.Helper()
	for _, s := range w.shards {
		in := map[shard.Locality]bool{}
		for _, r := range s.Descriptor.Replicas {
			in[w.nodes[r.Node-1].Locality] = true
		}
		if zones > 0 && len(in) != min(zones, len(s.Descriptor.Replicas)) {
			t.Fatalf("shard %d is in %d zones: %v", s.Descriptor.ID, len(in), s.Descriptor.Replicas)
		}
	}
}

// hundred is a cluster of 100 nodes and 100,000 shards, of which two nodes are new.
func hundred() *large {
	r := rand.New(rand.NewPCG(3, 4))
	w := newLarge(100, 98, 100_000, nil)
	for i := range w.nodes {
		w.nodes[i].Locality = shard.Locality(fmt.Sprintf("zone=%d", i%5))
		w.nodes[i].Capacity, w.nodes[i].Available, w.nodes[i].Held = 4<<40, 3<<40, 1<<40
	}
	for _, s := range w.shards {
		s.Bytes = 128<<20 + r.Uint64N(128<<20)
		s.Load.Writes = math.Floor(100 * r.Float64())
	}
	return w
}

// A decision for so many shards looks at few of them a second time, and remembers little: both
// bounds are far above what it takes, and far below what a search of all shards for all pairs of
// nodes would.
func TestDecidingForManyIsLittleWork(t *testing.T) {
	w := hundred()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p := NewPlan(w.view(), w.limits)
	steps, _ := p.Decide(w.shards)
	runtime.ReadMemStats(&after)
	if len(steps) == 0 {
		t.Fatal("nothing moves to the new nodes")
	}
	allocs, bytes := after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
	t.Logf("%d steps, %d looks, %d allocations of %d bytes", len(steps), p.looks, allocs, bytes)
	if p.looks > 2*len(w.shards) {
		t.Errorf("%d looks at %d shards", p.looks, len(w.shards))
	}
	if allocs > uint64(len(w.shards))/4 || bytes > 100<<20 {
		t.Errorf("%d allocations of %d bytes for %d shards", allocs, bytes, len(w.shards))
	}
}

func BenchmarkDecideHundredThousand(b *testing.B) {
	w := hundred()
	b.ReportAllocs()
	steps := 0
	for b.Loop() {
		p := NewPlan(w.view(), w.limits)
		got, _ := p.Decide(w.shards)
		steps = len(got)
	}
	b.ReportMetric(float64(steps), "steps")
}
