package storage

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a new format")

// goldenState has a value in every field.
func goldenState() *ReplicaState {
	s := testState(300, userSpan("a", "m\x00"))
	s.Applied, s.AppliedTerm, s.LastRevision, s.Floor, s.Versions, s.Bytes = 1000, 7, 123456, 1<<40, 55, 1<<33
	s.Descriptor.Replicas[1].Role = shard.Incoming
	return s
}

var goldenCluster = shard.ClusterID{0xde, 0xad, 0xbe, 0xef, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// goldenRecords are keys and values of every record that rests on a disk.
func goldenRecords() []struct {
	name       string
	key, value []byte
} {
	version := func(h VersionHeader, value string) []byte {
		b := make([]byte, versionHeaderLen(h))
		return append(b[:putVersionHeader(b, h)], value...)
	}
	entry := func(e raftpb.Entry) []byte {
		b := make([]byte, entryLen(&e))
		putEntry(b, &e)
		return b
	}
	return []struct {
		name       string
		key, value []byte
	}{
		{"marker_creating", nil, []byte(formatMarker(markerCreating))},
		{"marker_ready", nil, []byte(formatMarker(markerReady))},
		{"identity", identityKey(), appendIdentity(nil, Identity{Cluster: goldenCluster, Node: 300, Incarnation: 2})},
		{"address", addressKey(300), appendAddress(nil, "node.example:7400")},
		{"state", recordKey(300, stateRecord), appendReplicaState(nil, goldenState())},
		{"vote", recordKey(300, voteRecord), appendVote(nil, voteState{Replica: 4, Term: 500, Vote: 3})},
		{"birth", recordKey(300, birthRecord), appendBirth(nil, 4)},
		{"commit", recordKey(300, commitRecord), appendCommit(nil, commitState{Replica: 4, Commit: 1000})},
		{"tombstone", recordKey(300, tombstoneRecord), appendTombstone(nil, Tombstone{NextReplica: 5})},
		{"anchor", logKey(300, 10), appendAnchor(nil, 1)},
		{"entry_normal", logKey(300, 1001), entry(raftpb.Entry{Index: 1001, Term: 500, Data: []byte("operation")})},
		{"entry_conf_change", logKey(300, 1002), entry(raftpb.Entry{Index: 1002, Term: 500, Type: raftpb.EntryConfChange, Data: []byte("cc")})},
		{"entry_conf_change_v2", logKey(300, 1003), entry(raftpb.Entry{Index: 1003, Term: 500, Type: raftpb.EntryConfChangeV2})},
		{"version", appendVersionKey(nil, userKey("key\x00"), 123456),
			version(VersionHeader{Op: shard.OpID{Session: 0x0102030405060708, Sequence: 300}}, "value")},
		{"version_tombstone", appendVersionKey(nil, userKey("key"), shard.MaxRevision),
			version(VersionHeader{Op: shard.OpID{Session: 1, Sequence: 1}, Tombstone: true}, "")},
		{"version_trace", appendVersionKey(nil, userKey("key"), 123456),
			version(VersionHeader{Op: shard.OpID{Session: 1, Sequence: 300}, Trace: true, Origin: 123000}, "")},
		{"version_tombstone_trace", appendVersionKey(nil, userKey("key"), 123456),
			version(VersionHeader{Op: shard.OpID{Session: 1, Sequence: 300}, Tombstone: true, Trace: true}, "")},
		{"unversioned", appendDataKey(nil, []byte{shard.SystemKeyspace, 'k'}), []byte("\x01value")},
	}
}

// TestGoldenRecords fixes the bytes on disk: stores that were written before
// must be readable for ever.
func TestGoldenRecords(t *testing.T) {
	for _, r := range goldenRecords() {
		checkGolden(t, r.name, fmt.Sprintf("key   %x\nvalue %x\n", r.key, r.value))
	}
}

func TestGoldenChunks(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		b.PutInitialReplica(1, testState(5, userSpan("a", "b")))
		b.PutVersion(userKey("a1"), 3, VersionHeader{Op: shard.OpID{Session: 9, Sequence: 1}}, []byte("new"))
		b.PutVersion(userKey("a1"), 2, VersionHeader{Op: shard.OpID{Session: 9, Sequence: 0}, Tombstone: true}, nil)
		b.PutVersion(userKey("c"), 2, VersionHeader{}, []byte("outside"))
	})
	var text strings.Builder
	for _, chunk := range export(t, e, 5) {
		fmt.Fprintf(&text, "%x\n", chunk)
	}
	checkGolden(t, "chunks", text.String())
}

func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is written as\n%sand was\n%s", name, got, want)
	}
}

func TestRecordsReadBack(t *testing.T) {
	state := goldenState()
	if got, err := decodeReplicaState(appendReplicaState(nil, state)); err != nil || !reflect.DeepEqual(&got, state) {
		t.Errorf("state %+v, %v", got, err)
	}
	id := Identity{Cluster: goldenCluster, Node: 300, Incarnation: 2}
	if got, err := decodeIdentity(appendIdentity(nil, id)); err != nil || got != id {
		t.Errorf("identity %+v, %v", got, err)
	}
	h := VersionHeader{Op: shard.OpID{Session: 1 << 63, Sequence: 1 << 63}}
	b := make([]byte, versionHeaderLen(h))
	b = append(b[:putVersionHeader(b, h)], "value"...)
	if got, value, err := decodeVersion(b); err != nil || got != h || string(value) != "value" {
		t.Errorf("version %+v %q, %v", got, value, err)
	}
	h.Trace, h.Origin = true, shard.MaxRevision
	b = make([]byte, versionHeaderLen(h))
	b = b[:putVersionHeader(b, h)]
	if got, value, err := decodeVersion(b); err != nil || got != h || len(value) != 0 {
		t.Errorf("version %+v %q, %v", got, value, err)
	}
	if got, _, err := decodeVersion(append(b, 'v')); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a trace with a value: %+v, %v", got, err)
	}
	none := append(bytes.Clone(b[:versionHeaderLen(VersionHeader{Op: h.Op})]), 0)
	if got, _, err := decodeVersion(none); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a trace of no revision: %+v, %v", got, err)
	}
}

func TestAddressBook(t *testing.T) {
	e := open(t, Config{})
	commit(t, e, func(b *Batch) {
		b.PutIdentity(Identity{Node: 1})
		b.PutAddress(1, "a:1")
		b.PutAddress(1<<64-1, "b:2")
		b.PutAddress(2, "c:3")
		b.PutInitialReplica(1, testState(5, shard.UserSpan()))
	})
	commit(t, e, func(b *Batch) { b.PutAddress(2, "") })
	book, err := e.AddressBook()
	if want := map[shard.NodeID]string{1: "a:1", 1<<64 - 1: "b:2"}; err != nil || !reflect.DeepEqual(book, want) {
		t.Errorf("the address book is %v, %v", book, err)
	}
}

func TestReplicas(t *testing.T) {
	e := open(t, Config{})
	if found, err := e.Replicas(); err != nil || len(found) != 0 {
		t.Fatalf("an empty store has replicas %v, %v", found, err)
	}
	if _, found, err := e.Identity(); err != nil || found {
		t.Fatalf("an empty store has an identity: %t, %v", found, err)
	}
	commit(t, e, func(b *Batch) {
		b.PutInitialReplica(1, testState(1, shard.SystemSpan()))
		b.PutInitialReplica(4, testState(1<<40, userSpan("", "m")))
		b.PutTombstone(5, Tombstone{NextReplica: 9})
	})
	for _, id := range []shard.ID{2, 300} { // have voted, nothing else
		l, err := e.OpenLog(id, 7)
		if err != nil {
			t.Fatal(err)
		}
		commit(t, e, func(b *Batch) { l.SetHardState(b, raftpb.HardState{Term: 3, Vote: 2}) })
	}
	found, err := e.Replicas()
	want := []ReplicaRecord{{1, 1, true}, {2, 7, false}, {300, 7, false}, {1 << 40, 4, true}}
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("replicas %v, want %v, %v", found, want, err)
	}
	if s, found, err := e.Tombstone(5); err != nil || !found || s.NextReplica != 9 {
		t.Errorf("tombstone %v, %t, %v", s, found, err)
	}
	s, ok, err := e.ReplicaState(1 << 40)
	if err != nil || !ok || !reflect.DeepEqual(&s, testState(1<<40, userSpan("", "m"))) {
		t.Errorf("state %+v, %t, %v", s, ok, err)
	}
	// A state without {term, vote} would come back as a replica without a name.
	commit(t, e, func(b *Batch) { b.PutReplicaState(50, testState(50, userSpan("x", "y"))) })
	if _, err := e.Replicas(); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a state without term and vote: %v", err)
	}
}

// fuzzDecoder runs decode on arbitrary bytes: it must refuse or accept, and what
// it accepts must be what encode writes, so that no record has two readings.
func fuzzDecoder[T any](f *testing.F, decode func([]byte) (T, error), encode func([]byte, T) []byte, seeds ...[]byte) {
	for _, seed := range seeds {
		f.Add(seed)
		f.Add(seed[:len(seed)/2])
		f.Add(append(bytes.Clone(seed), 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		record, err := decode(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatalf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		again, err := decode(encode(nil, record))
		if err != nil || !reflect.DeepEqual(again, record) {
			t.Fatalf("%x is read as %+v and then as %+v, %v", b, record, again, err)
		}
	})
}

func golden(name string) []byte {
	for _, r := range goldenRecords() {
		if r.name == name {
			return r.value
		}
	}
	panic(name)
}

func FuzzIdentity(f *testing.F) {
	fuzzDecoder(f, decodeIdentity, appendIdentity, golden("identity"))
}

func FuzzAddress(f *testing.F) {
	fuzzDecoder(f, decodeAddress, appendAddress, golden("address"))
}

func FuzzReplicaState(f *testing.F) {
	fuzzDecoder(f, decodeReplicaState, func(b []byte, s ReplicaState) []byte { return appendReplicaState(b, &s) }, golden("state"))
}

func FuzzVote(f *testing.F) { fuzzDecoder(f, decodeVote, appendVote, golden("vote")) }

func FuzzBirth(f *testing.F) { fuzzDecoder(f, decodeBirth, appendBirth, golden("birth")) }

func FuzzCommit(f *testing.F) { fuzzDecoder(f, decodeCommit, appendCommit, golden("commit")) }

func FuzzTombstone(f *testing.F) {
	fuzzDecoder(f, decodeTombstone, appendTombstone, golden("tombstone"))
}

func FuzzEntry(f *testing.F) {
	fuzzDecoder(f, decodeEntry, func(b []byte, r entryRecord) []byte {
		if r.kind == entryAnchor {
			return appendAnchor(b, r.term)
		}
		e := r.entry(1)
		b = make([]byte, entryLen(&e))
		putEntry(b, &e)
		return b
	}, golden("anchor"), golden("entry_normal"), golden("entry_conf_change"), golden("entry_conf_change_v2"))
}

type fuzzedVersion struct {
	h     VersionHeader
	value string
}

func FuzzVersion(f *testing.F) {
	fuzzDecoder(f, func(b []byte) (fuzzedVersion, error) {
		h, value, err := decodeVersion(b)
		return fuzzedVersion{h, string(value)}, err
	}, func(_ []byte, v fuzzedVersion) []byte {
		b := make([]byte, versionHeaderLen(v.h))
		return append(b[:putVersionHeader(b, v.h)], v.value...)
	}, golden("version"), golden("version_tombstone"), golden("version_trace"), golden("version_tombstone_trace"))
}

func FuzzUnversioned(f *testing.F) {
	fuzzDecoder(f, decodeUnversioned, func(b, v []byte) []byte { return append(append(b, recordFormat), v...) }, golden("unversioned"))
}

func FuzzTotals(f *testing.F) {
	fuzzDecoder(f, decodeTotals, appendTotals, appendTotals(nil, totals{300, 1 << 40, 7}))
}

func FuzzMarker(f *testing.F) {
	f.Add(formatMarker(markerReady))
	f.Add(formatMarker(markerCreating))
	f.Add("kiloraft store, format 99, x")
	f.Fuzz(func(t *testing.T, text string) {
		stage, err := parseMarker(text)
		if err == nil && text != formatMarker(stage) {
			t.Fatalf("%q is read as %d", text, stage)
		}
		if err != nil && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}
