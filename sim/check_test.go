package sim

import (
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
	"github.com/kiloraft/kiloraft/storage"
)

// Checks raise no false alarm while clients write, floors rise, versions are dropped,
// and everything else goes wrong.
func TestChecksFindNoDifference(t *testing.T) {
	compared := uint64(0)
	for seed := range uint64(4) {
		report, err := Run(Config{Seed: 900 + seed, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }, Keep: &Keep{Retention: time.Second, DropRate: 50_000}})
		if err != nil {
			t.Fatal(err)
		}
		compared += report.Compared
	}
	if compared < 60 {
		t.Errorf("only %d comparisons", compared)
	}
}

// A replica that lost a write, or holds another value, or one too many, finds out by the
// next check; the others do not differ, and nothing is repaired.
func TestCheckFindsADifference(t *testing.T) {
	plant := map[string]func(b *storage.Batch, key []byte, v storage.Version){
		"another value": func(b *storage.Batch, key []byte, v storage.Version) {
			b.PutVersion(key, v.Revision, v.Header, []byte("tampered"))
		},
		"a tombstone": func(b *storage.Batch, key []byte, v storage.Version) {
			b.PutVersion(key, v.Revision, storage.VersionHeader{Op: v.Header.Op, Tombstone: true}, nil)
		},
		"a key too many": func(b *storage.Batch, key []byte, v storage.Version) {
			b.PutVersion(append(append([]byte(nil), key...), '!'), v.Revision, v.Header, nil)
		},
	}
	for _, what := range []string{"another value", "a tombstone", "a key too many"} {
		t.Run(what, func(t *testing.T) {
			var victim *Node
			found := false
			_, _ = Run(Config{Seed: 77, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }, Keep: &Keep{}, Nodes: 3, Grown: new(bool), Overlook: func(error) bool { return true }, Direct: func(s *Stage) {
				id := shard.ID(2)
				s.When(func() bool {
					l := s.Leader(id)
					if l == nil {
						return false
					}
					victim = s.run.cluster.nodes[0]
					if victim == l {
						victim = s.run.cluster.nodes[1]
					}
					key, v, ok := s.someVersion(victim, id)
					if !ok {
						return false
					}
					b := victim.engine.NewBatch()
					plant[what](b, key, v)
					if err := victim.engine.Commit(b); err != nil {
						t.Error(err)
					}
					return true
				}, func() {
					s.When(func() bool {
						r, here := s.replica(victim, id)
						return here && r.Differs()
					}, func() {
						found = true
						for _, n := range s.run.cluster.nodes {
							if r, here := s.replica(n, id); here && n != victim && (r.Differs() || r.Checked().State == replica.CheckDiffers) {
								t.Errorf("%s: %+v", n.Name, r.Checked())
							}
						}
					})
				})
			}})
			if !found {
				t.Error("it was not found")
			}
		})
	}
}

// someVersion is a key of a shard with its newest version, as a node has it.
func (s *Stage) someVersion(n *Node, id shard.ID) (key []byte, newest storage.Version, ok bool) {
	r, here := s.replica(n, id)
	if !here {
		return nil, newest, false
	}
	state, _ := r.State()
	v := n.engine.NewView()
	defer v.Close()
	rows, _, err := v.Scan(storage.ScanOptions{Span: state.Descriptor.Span, At: shard.MaxRevision, RowsMax: 1})
	if err != nil || len(rows) == 0 {
		return nil, newest, false
	}
	versions, err := v.Versions(rows[0].Key, 1)
	if err != nil || len(versions) == 0 {
		return nil, newest, false
	}
	return rows[0].Key, versions[0], true
}
