package storage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// digestOf computes a digest in parts of the given size.
func digestOf(t *testing.T, e *Engine, o DigestOptions, part int) (sum []byte, versions uint64) {
	t.Helper()
	s := e.NewSnapshot()
	defer s.Close()
	d := s.NewDigest(o)
	for {
		_, done, err := d.Part(part)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return d.Sum([]byte("state")), d.Versions
		}
	}
}

// Replicas that have applied the same have the same digest, whatever each has dropped of
// what is below the floor, has written later, and however the parts are cut.
func TestDigestOfEqualContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	span := userSpan("a", "z")
	for round := range 20 {
		one, two := open(t, Config{}), open(t, Config{})
		shows := map[string]shard.Revision{} // the version with a key's value; 0: absent
		write := func(key string, rev shard.Revision, tombstone bool, only *Engine) {
			trace := rng.IntN(4) == 0
			if trace {
				tombstone = shows[key] == 0
			} else if shows[key] = rev; tombstone {
				shows[key] = 0
			}
			for _, e := range []*Engine{one, two} {
				if only != nil && e != only {
					continue
				}
				commit(t, e, func(b *Batch) {
					h := VersionHeader{Op: shard.OpID{Session: 7, Sequence: uint64(rev)}, Tombstone: tombstone}
					var value []byte
					if trace {
						h.Trace, h.Origin = true, shows[key]
					} else if !tombstone {
						value = fmt.Appendf(nil, "value of %s at %d", key, rev)
					}
					b.PutVersion(append([]byte{shard.UserKeyspace}, key...), rev, h, value)
				})
			}
		}
		const last = 120
		for rev := shard.Revision(1); rev <= last; rev++ {
			write(fmt.Sprintf("k%d", rng.IntN(12)), rev, rng.IntN(4) == 0, nil)
		}
		o := DigestOptions{Span: span, UpTo: last, Floor: shard.Revision(rng.IntN(last))}
		want, versions := digestOf(t, one, o, 1<<20)
		// One drops everything that it may, by this floor or a lower one; both write on.
		for _, floor := range []shard.Revision{o.Floor / 2, o.Floor} {
			v := two.NewView()
			g, err := v.Garbage(GarbageOptions{Span: span, Floor: max(floor, 1), VisitsMax: 1 << 20, DropsMax: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if floor > 0 {
				commit(t, two, func(b *Batch) { b.Drop(&g) })
			}
		}
		for rev := shard.Revision(last + 1); rev < last+30; rev++ {
			write(fmt.Sprintf("k%d", rng.IntN(14)), rev, rng.IntN(4) == 0, two)
		}
		for _, part := range []int{1, 50, 1000, 1 << 20} {
			if got, n := digestOf(t, two, o, part); !bytes.Equal(got, want) || n != versions {
				t.Fatalf("round %d, floor %d, parts of %d: %x over %d versions, want %x over %d", round, o.Floor, part, got, n, want, versions)
			}
		}
		// And each thing that is different shows.
		key := append([]byte{shard.UserKeyspace}, "k0"...)
		for what, change := range map[string]func(b *Batch){
			"another value":       func(b *Batch) { b.PutVersion(key, last, VersionHeader{}, []byte("x")) },
			"a key too many":      func(b *Batch) { b.PutVersion(append(key, 'x'), last, VersionHeader{}, nil) },
			"a version too many":  func(b *Batch) { b.PutVersion(append(key, 'y'), o.Floor+1, VersionHeader{Tombstone: true}, nil) },
			"another operation":   func(b *Batch) { b.PutVersion(key, last, VersionHeader{Op: shard.OpID{Session: 9}}, []byte("x")) },
			"a value from before": func(b *Batch) { b.PutVersion(append(key, 'z'), 1, VersionHeader{}, []byte("old")) },
		} {
			before, _ := digestOf(t, one, o, 100)
			commit(t, one, change)
			if got, _ := digestOf(t, one, o, 100); bytes.Equal(got, before) {
				t.Errorf("round %d, floor %d: %s does not show", round, o.Floor, what)
			}
		}
	}
}

func TestDigestOfKeysWithoutVersions(t *testing.T) {
	e := open(t, Config{})
	o := DigestOptions{Span: shard.SystemSpan()}
	seen := map[string]bool{}
	for i := range 5 {
		sum, n := digestOf(t, e, o, 10)
		if seen[string(sum)] || n != uint64(i) {
			t.Errorf("%x again, or of %d keys, want %d", sum, n, i)
		}
		seen[string(sum)] = true
		commit(t, e, func(b *Batch) { b.PutUnversioned([]byte{shard.SystemKeyspace, byte(i)}, []byte("v")) })
	}
	before, _ := digestOf(t, e, o, 10)
	commit(t, e, func(b *Batch) { b.PutUnversioned([]byte{shard.SystemKeyspace, 2}, []byte("w")) })
	if after, _ := digestOf(t, e, o, 10); bytes.Equal(before, after) {
		t.Error("a changed value does not show")
	}
}
