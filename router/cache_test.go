package router

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

func userKey(s string) []byte { return shard.UserKey([]byte(s)) }

func describe(id shard.ID, start, end string, version, conf uint64) shard.Descriptor {
	d := shard.Descriptor{ID: id, Span: shard.UserSpan(), Epoch: shard.Epoch{Version: version, ConfVersion: conf}, NextReplica: 4,
		Replicas: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}, {ID: 2, Node: 2, Role: shard.Voter}, {ID: 3, Node: 3, Role: shard.Voter}}}
	d.Span.Start = userKey(start)
	if end != "" {
		d.Span.End = userKey(end)
	}
	return d
}

func mustInsert(t *testing.T, c *Cache, d shard.Descriptor) {
	t.Helper()
	if !c.Insert(d) {
		t.Fatalf("shard %d at %v was not accepted", d.ID, d.Epoch)
	}
}

func wantShard(t *testing.T, c *Cache, key string, want shard.ID) *Route {
	t.Helper()
	r, ok := c.Lookup(userKey(key))
	switch {
	case !ok && want != 0:
		t.Fatalf("no route for %q, want shard %d", key, want)
	case ok && r.Descriptor.ID != want:
		t.Fatalf("%q is routed to shard %d, want %d", key, r.Descriptor.ID, want)
	}
	return r
}

func TestASplitReplacesItsParent(t *testing.T) {
	c := NewCache(10)
	mustInsert(t, c, describe(7, "a", "z", 1, 1))
	mustInsert(t, c, describe(8, "m", "z", 2, 1))
	wantShard(t, c, "b", 0) // the parent is older than its right side
	wantShard(t, c, "m", 8)
	mustInsert(t, c, describe(7, "a", "m", 2, 1))
	wantShard(t, c, "b", 7)
	wantShard(t, c, "m", 8)
	if c.Insert(describe(7, "a", "z", 1, 1)) {
		t.Fatal("the parent's old descriptor was accepted after the split")
	}
	if c.Insert(describe(9, "k", "p", 2, 9)) {
		t.Fatal("a shard whose version is not newer displaced others")
	}
	wantShard(t, c, "z", 0)
	wantShard(t, c, "a", 7)
	wantShard(t, c, "Z", 0)
}

func TestAMergeReplacesBothSides(t *testing.T) {
	c := NewCache(10)
	mustInsert(t, c, describe(7, "a", "m", 2, 5))
	mustInsert(t, c, describe(8, "m", "z", 6, 1))
	mustInsert(t, c, describe(7, "a", "z", 7, 5))
	wantShard(t, c, "x", 7)
	if c.Len() != 1 {
		t.Fatalf("%d routes after a merge", c.Len())
	}
	if c.Insert(describe(8, "m", "z", 6, 4)) {
		t.Fatal("the merged side came back")
	}
}

func TestLookupBefore(t *testing.T) {
	c := NewCache(10)
	mustInsert(t, c, describe(1, "b", "d", 1, 1))
	mustInsert(t, c, describe(2, "d", "f", 1, 1))
	for _, w := range []struct {
		end  string
		want shard.ID
	}{{"a", 0}, {"b", 0}, {"bb", 1}, {"d", 1}, {"d\x00", 2}, {"f", 2}, {"f\x00", 0}} {
		r, ok := c.LookupBefore(userKey(w.end))
		if ok != (w.want != 0) || ok && r.Descriptor.ID != w.want {
			t.Errorf("below %q: %v, %v, want shard %d", w.end, r, ok, w.want)
		}
	}
}

func TestLeadersOnlyOfNewerTerms(t *testing.T) {
	c := NewCache(10)
	if c.SetLeader(7, Leader{1, 1}, 5) {
		t.Fatal("a leader of an unknown shard was accepted")
	}
	mustInsert(t, c, describe(7, "a", "z", 1, 1))
	steps := []struct {
		name    string
		l       Leader
		term    uint64
		accept  bool
		leader  shard.ReplicaID
		termNow uint64
	}{
		{"a guess while nothing is known", Leader{1, 1}, 0, true, 1, 0},
		{"a second guess", Leader{2, 2}, 0, false, 1, 0},
		{"a term", Leader{2, 2}, 5, true, 2, 5},
		{"an older term", Leader{1, 1}, 4, false, 2, 5},
		{"the same term", Leader{3, 3}, 5, false, 2, 5},
		{"a newer term without a leader", Leader{}, 6, true, 0, 6},
		{"the same again", Leader{}, 6, false, 0, 6},
		{"its leader", Leader{3, 3}, 6, true, 3, 6},
	}
	for _, s := range steps {
		if got := c.SetLeader(7, s.l, s.term); got != s.accept {
			t.Fatalf("%s: accepted %v, want %v", s.name, got, s.accept)
		}
		r := wantShard(t, c, "b", 7)
		if r.Leader.Replica != s.leader || r.Term != s.termNow {
			t.Fatalf("%s: leader %d in term %d", s.name, r.Leader.Replica, r.Term)
		}
	}
	c.LeaderFailed(7, 3, 5)
	c.LeaderFailed(7, 2, 6)
	if r := wantShard(t, c, "b", 7); r.Leader.Replica != 3 {
		t.Fatal("the failure of another leader, or of another term, was taken for this one's")
	}
	held := wantShard(t, c, "b", 7)
	c.LeaderFailed(7, 3, 6)
	if r := wantShard(t, c, "b", 7); r.Leader != (Leader{}) || r.Term != 6 {
		t.Fatalf("after the leader failed: %+v", r)
	}
	if held.Leader.Replica != 3 {
		t.Fatal("a route that was handed out changed")
	}
	c.SetLeader(7, Leader{2, 2}, 8)
	mustInsert(t, c, describe(7, "a", "z", 1, 2))
	if r := wantShard(t, c, "b", 7); r.Leader.Replica != 2 || r.Term != 8 || r.Target() != (shard.Target{Shard: 7, Version: 1, Replica: 2, Term: 8}) {
		t.Fatalf("a membership change lost the leader: %+v", r)
	}
}

func TestTheBoundEvictsTheLeastRecentlyUsed(t *testing.T) {
	c := NewCache(3)
	for i, s := range []string{"a", "b", "c"} {
		mustInsert(t, c, describe(shard.ID(i+1), s, s+"z", 1, 1))
	}
	wantShard(t, c, "a", 1)
	c.LookupBefore(userKey("cc"))
	mustInsert(t, c, describe(4, "d", "e", 1, 1))
	wantShard(t, c, "b", 0)
	wantShard(t, c, "a", 1)
	wantShard(t, c, "c", 3)
	wantShard(t, c, "d", 4)
	c.Remove(4, 0)
	wantShard(t, c, "d", 4)
	c.Remove(4, 1)
	wantShard(t, c, "d", 0)
}

func TestDescriptorsOutsideAKeyspaceAreRefused(t *testing.T) {
	c := NewCache(3)
	if c.Insert(shard.Descriptor{ID: 3, Epoch: shard.Epoch{Version: 1, ConfVersion: 1}}) {
		t.Fatal("an empty span was accepted")
	}
}

// model is what Cache does, without its structures: a list, most recently used last.
type model struct {
	routes []Route
	max    int
}

func (m *model) insert(d shard.Descriptor) bool {
	next := Route{Descriptor: d}
	var kept []Route
	for _, r := range m.routes {
		o := r.Descriptor
		switch {
		case o.ID == d.ID:
			if !d.Epoch.Newer(o.Epoch) {
				return false
			}
			next.Leader, next.Term = r.Leader, r.Term
		case o.Span.Overlaps(d.Span):
			if o.Epoch.Version >= d.Epoch.Version {
				return false
			}
		default:
			kept = append(kept, r)
		}
	}
	kept = append(kept, next)
	if len(kept) > m.max {
		kept = kept[1:]
	}
	m.routes = kept
	return true
}

func (m *model) lookup(match func(*Route) bool) (Route, bool) {
	for i, r := range m.routes {
		if match(&r) {
			m.routes = append(append(append([]Route{}, m.routes[:i]...), m.routes[i+1:]...), r)
			return r, true
		}
	}
	return Route{}, false
}

// TestCacheAgreesWithAModel: entries never overlap, and every answer is that of
// a list that is searched from end to end.
func TestCacheAgreesWithAModel(t *testing.T) { rapid.Check(t, cacheAgreesWithAModel) }

// FuzzCache is the same with the choices of a fuzzer.
func FuzzCache(f *testing.F) { f.Fuzz(rapid.MakeFuzz(cacheAgreesWithAModel)) }

func cacheAgreesWithAModel(t *rapid.T) {
	bound := rapid.IntRange(1, 12).Draw(t, "bound")
	c, m := NewCache(bound), &model{max: bound}
	key := rapid.Custom(func(t *rapid.T) []byte {
		return userKey(rapid.StringMatching(`[a-f]{0,2}`).Draw(t, "key"))
	})
	id := rapid.Custom(func(t *rapid.T) shard.ID { return shard.ID(rapid.IntRange(1, 15).Draw(t, "id")) })
	same := func(what string, got *Route, ok bool, want Route, wantOK bool) {
		if ok != wantOK || ok && fmt.Sprint(*got) != fmt.Sprint(want) {
			t.Fatalf("%s: %v %v, want %v %v", what, got, ok, want, wantOK)
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"insert": func(t *rapid.T) {
			d := describe(id.Draw(t, "id"), "", "", rapid.Uint64Range(1, 6).Draw(t, "version"), rapid.Uint64Range(1, 3).Draw(t, "conf"))
			d.Span = shard.Span{Start: key.Draw(t, "start"), End: key.Draw(t, "end")}
			if bytes.Compare(d.Span.Start, d.Span.End) >= 0 {
				d.Span.End = shard.UserSpan().End
			}
			if got, want := c.Insert(d), m.insert(d); got != want {
				t.Fatalf("insert of %+v: %v, want %v", d, got, want)
			}
		},
		"lookup": func(t *rapid.T) {
			k := key.Draw(t, "key")
			got, ok := c.Lookup(k)
			want, wantOK := m.lookup(func(r *Route) bool { return r.Descriptor.Span.Contains(k) })
			same("lookup", got, ok, want, wantOK)
		},
		"lookup before": func(t *rapid.T) {
			k := key.Draw(t, "key")
			got, ok := c.LookupBefore(k)
			want, wantOK := m.lookup(func(r *Route) bool {
				s := r.Descriptor.Span
				return bytes.Compare(s.Start, k) < 0 && bytes.Compare(k, s.End) <= 0
			})
			same("lookup before", got, ok, want, wantOK)
		},
		"leader": func(t *rapid.T) {
			i, l, term := id.Draw(t, "id"), Leader{Replica: shard.ReplicaID(rapid.IntRange(0, 2).Draw(t, "leader"))}, rapid.Uint64Range(0, 3).Draw(t, "term")
			l.Node = shard.NodeID(l.Replica)
			accepted := c.SetLeader(i, l, term)
			for k := range m.routes {
				if r := &m.routes[k]; r.Descriptor.ID == i {
					if term == 0 {
						term = r.Term
					}
					want := term > r.Term || term == r.Term && r.Leader == Leader{} && l != Leader{}
					if want != accepted {
						t.Fatalf("leader %v in term %d: %v, want %v", l, term, accepted, want)
					}
					if want {
						updated := Route{Descriptor: r.Descriptor, Leader: l, Term: term}
						m.lookup(func(r *Route) bool { return r.Descriptor.ID == i })
						m.routes[len(m.routes)-1] = updated
					}
					break
				}
			}
		},
		"remove": func(t *rapid.T) {
			i, version := id.Draw(t, "id"), rapid.Uint64Range(1, 6).Draw(t, "version")
			c.Remove(i, version)
			for k, r := range m.routes {
				if r.Descriptor.ID == i && r.Descriptor.Epoch.Version <= version {
					m.routes = append(m.routes[:k:k], m.routes[k+1:]...)
					break
				}
			}
		},
		"": func(t *rapid.T) {
			all := c.All()
			if len(all) != len(m.routes) || len(all) != c.lru.Len() || len(all) > bound {
				t.Fatalf("%d routes, %d by ID, %d in the model, the bound is %d", len(all), c.lru.Len(), len(m.routes), bound)
			}
			for i, r := range all {
				if i > 0 && bytes.Compare(all[i-1].Descriptor.Span.End, r.Descriptor.Span.Start) > 0 {
					t.Fatalf("%v and %v overlap or are out of order", all[i-1].Descriptor, r.Descriptor)
				}
				if byID, ok := c.Shard(r.Descriptor.ID); !ok || byID != r {
					t.Fatalf("shard %d has two routes", r.Descriptor.ID)
				}
			}
		},
	})
}

func filled(n int) (*Cache, [][]byte) {
	c := NewCache(n)
	keys := make([][]byte, n)
	for i := range n {
		d := describe(shard.ID(i+2), "", "", 1, 1)
		d.Span = shard.Span{Start: userKey(fmt.Sprintf("%08d", i)), End: userKey(fmt.Sprintf("%08d", i+1))}
		c.Insert(d)
		keys[i] = userKey(fmt.Sprintf("%08d/key", i))
	}
	return c, keys
}

func TestLookupsDoNotAllocate(t *testing.T) {
	c, keys := filled(5000)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok := c.Lookup(keys[i]); !ok {
			t.Fatal("a miss")
		}
		c.LookupBefore(keys[i])
		i = (i + 77) % len(keys)
	}); n != 0 {
		t.Errorf("%v allocations per lookup", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{48, 5000, 65536} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, keys := filled(n)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				c.Lookup(keys[i])
				i = (i + 7919) % len(keys)
			}
		})
	}
}
