package storage

import (
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func opID(n uint64) shard.OpID { return shard.OpID{Session: 3, Sequence: n} }

// findStore has versions by operations 1 to 5, some of them in files and the
// newest in the memtable.
func findStore(t *testing.T) *View {
	e := open(t, Config{})
	put := func(key string, rev shard.Revision, op uint64, value string) {
		commit(t, e, func(b *Batch) {
			b.PutVersion(userKey(key), rev, VersionHeader{Op: opID(op), Tombstone: value == ""}, []byte(value))
		})
	}
	put("a", 10, 1, "one")
	put("a", 12, 2, "second")
	put("b", 12, 2, "")
	put("b\x00", 14, 3, "x")
	if err := e.db.Flush(); err != nil {
		t.Fatal(err)
	}
	put("a", 16, 2, "again")
	put("c", 16, 2, "again")
	put("b", 18, 4, "y")
	put("d", 18, 4, "y")
	put("a", 20, 5, "")
	v := e.NewView()
	t.Cleanup(func() { v.Close() })
	return v
}

func TestVersionAt(t *testing.T) {
	v := findStore(t)
	for _, c := range []struct {
		key  string
		at   shard.Revision
		want string
	}{
		{"a", shard.MaxRevision, "20 by 5, tombstone true, \"\""},
		{"a", 20, "20 by 5, tombstone true, \"\""},
		{"a", 19, "16 by 2, tombstone false, \"again\""},
		{"a", 12, "12 by 2, tombstone false, \"second\""},
		{"a", 11, "10 by 1, tombstone false, \"one\""},
		{"a", 9, "none"},
		{"b", 17, "12 by 2, tombstone true, \"\""},
		{"b", 11, "none"},
		{"e", shard.MaxRevision, "none"},
	} {
		h, value, rev, found, err := v.VersionAt(userKey(c.key), c.at)
		got := "none"
		if found {
			got = fmt.Sprintf("%d by %d, tombstone %t, %q", rev, h.Op.Sequence, h.Tombstone, value)
		}
		if err != nil || got != c.want {
			t.Errorf("%q at %d: %s, %v; want %s", c.key, c.at, got, err, c.want)
		}
	}
}

func TestVersions(t *testing.T) {
	v := findStore(t)
	want := []Version{
		{20, VersionHeader{Op: opID(5), Tombstone: true}, 0}, {16, VersionHeader{Op: opID(2)}, 5},
		{12, VersionHeader{Op: opID(2)}, 6}, {10, VersionHeader{Op: opID(1)}, 3},
	}
	for _, max := range []int{0, 1, 3, 4, 9} {
		got, err := v.Versions(userKey("a"), max)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want[:min(max, len(want))]) {
			t.Errorf("at most %d: %v, %v", max, got, err)
		}
	}
	if got, err := v.Versions(userKey("e"), 9); len(got) != 0 || err != nil {
		t.Errorf("a missing key: %v, %v", got, err)
	}
	if got, err := v.Versions(userKey("b"), 9); len(got) != 2 || err != nil {
		t.Errorf("a key that is the prefix of another: %v, %v", got, err)
	}
}

func TestFindOp(t *testing.T) {
	v := findStore(t)
	for _, c := range []struct {
		key   string
		op    uint64
		above shard.Revision
		want  shard.Revision // 0: not found
	}{
		{"a", 2, 0, 16}, {"a", 2, 15, 16}, {"a", 2, 16, 0}, {"a", 2, shard.MaxRevision, 0},
		{"a", 1, 0, 10}, {"a", 1, 9, 10}, {"a", 1, 10, 0}, {"a", 5, 19, 20}, {"a", 3, 0, 0},
		{"b", 2, 0, 12}, {"b", 3, 0, 0}, {"b", 4, 12, 18}, {"e", 1, 0, 0},
	} {
		rev, found, err := v.FindOp(userKey(c.key), opID(c.op), c.above)
		if err != nil || rev != c.want || found != (c.want != 0) {
			t.Errorf("operation %d on %q above %d: %d, %t, %v; want %d", c.op, c.key, c.above, rev, found, err, c.want)
		}
	}
	if _, found, err := v.FindOp(userKey("a"), shard.OpID{Session: 4, Sequence: 2}, 0); found || err != nil {
		t.Errorf("another session's operation of the same sequence is found: %v", err)
	}
}

func TestFindOpInSpan(t *testing.T) {
	v := findStore(t)
	for _, c := range []struct {
		start, end string
		op         uint64
		above      shard.Revision
		rev        shard.Revision
		keys       int
	}{
		{"", "", 2, 0, 16, 2}, {"", "", 2, 15, 16, 2}, {"", "", 2, 16, 0, 0},
		{"b", "", 2, 0, 16, 1}, {"b", "c", 2, 0, 12, 1}, {"b\x00", "c", 2, 0, 0, 0},
		{"", "", 4, 17, 18, 2}, {"", "d", 4, 17, 18, 1}, {"c", "d", 4, 0, 0, 0},
		{"", "", 9, 0, 0, 0}, {"e", "", 1, 0, 0, 0},
	} {
		rev, keys, err := v.FindOpInSpan(userSpan(c.start, c.end), opID(c.op), c.above)
		if err != nil || rev != c.rev || keys != c.keys {
			t.Errorf("operation %d in [%q, %q) above %d: %d keys at %d, %v; want %d at %d", c.op, c.start, c.end, c.above, keys, rev, err, c.keys, c.rev)
		}
		// Reads of other kinds may be mixed with it.
		if _, found, err := v.FindOp(userKey("a"), opID(1), 0); !found || err != nil {
			t.Error(found, err)
		}
	}
}

func TestWalk(t *testing.T) {
	v := findStore(t) // a at 20, 16, 12 and 10; b at 18, 12; b 00 at 14; c at 16; d at 18
	for _, c := range []struct {
		start, end string
		above      shard.Revision
		max        int
		want       int
	}{
		{"", "", shard.MaxRevision, 99, 5}, {"", "", 99, 99, 5}, {"", "", 0, 99, 9}, {"", "", 12, 99, 8}, {"", "", 15, 99, 8},
		{"", "", 0, 4, 4}, {"", "", 0, 0, 0}, {"a", "b", 0, 99, 4}, {"b", "b\x00", 0, 99, 2}, {"b", "c", 99, 99, 2}, {"e", "", 0, 99, 0},
	} {
		if steps, err := v.Walk(userSpan(c.start, c.end), c.above, c.max); err != nil || steps != c.want {
			t.Errorf("[%q, %q) above %d, at most %d: %d steps, %v; want %d", c.start, c.end, c.above, c.max, steps, err, c.want)
		}
	}
}

// A batch tells the versions that were written to it, and nothing else in it.
func TestVersionsSince(t *testing.T) {
	e := open(t, Config{})
	b := e.NewBatch()
	defer b.Close()
	since := func(m Mark) string {
		var s []string
		b.VersionsSince(m, func(key []byte, rev shard.Revision, h VersionHeader, value []byte) {
			s = append(s, fmt.Sprintf("%q@%d by %d %t %q", key[1:], rev, h.Op.Sequence, h.Tombstone, value))
		})
		return fmt.Sprint(s)
	}
	put := func(key string, rev shard.Revision, h VersionHeader, value string) string {
		b.PutVersion(userKey(key), rev, h, []byte(value))
		return fmt.Sprintf("%q@%d by %d %t %q", key, rev, h.Op.Sequence, h.Tombstone, value)
	}
	empty := b.Mark()
	if got := since(empty); got != "[]" {
		t.Errorf("of an empty batch: %s", got)
	}
	before := put("a", 1, VersionHeader{Op: opID(1)}, "one")
	m := b.Mark()
	if got := since(m); got != "[]" {
		t.Errorf("nothing since: %s", got)
	}
	b.PutUnversioned([]byte{shard.SystemKeyspace, 'k'}, []byte("v"))
	gone := put("b\x00", 2, VersionHeader{Op: opID(2), Tombstone: true}, "")
	b.DeleteUnversioned([]byte{shard.SystemKeyspace, 'k'})
	b.PutReplicaState(7, testState(7, userSpan("a", "b")))
	large := put("c", shard.MaxRevision, VersionHeader{Op: opID(300)}, string(make([]byte, 1<<20)))
	if got, want := since(m), fmt.Sprintf("[%s %s]", gone, large); got != want {
		t.Errorf("since the mark: %d bytes, want %d", len(got), len(want))
	}
	if got, want := since(empty), fmt.Sprintf("[%s %s %s]", before, gone, large); got != want {
		t.Errorf("all: %d bytes, want %d", len(got), len(want))
	}
	b.RollBack(m)
	if got, want := since(empty), fmt.Sprintf("[%s]", before); got != want {
		t.Errorf("after it was rolled back: %s, want %s", got, want)
	}
}
