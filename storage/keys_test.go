package storage

import (
	"bytes"
	"cmp"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// drawKey draws full keys that are close to each other: few bytes, the awkward
// ones preferred.
func drawKey(t *rapid.T, label string) []byte {
	awkward := rapid.SampledFrom([]byte{0x00, 0x01, 0x09, 0x12, 'a', 0xfe, 0xff})
	return append([]byte{shard.UserKeyspace}, rapid.SliceOfN(rapid.OneOf(awkward, rapid.Byte()), 1, 12).Draw(t, label)...)
}

func TestKeysOrderAsTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawKey(t, "a"), drawKey(t, "b")
		revA := shard.Revision(rapid.Uint64Range(1, uint64(shard.MaxRevision)).Draw(t, "revision of a"))
		revB := shard.Revision(rapid.Uint64Range(1, uint64(shard.MaxRevision)).Draw(t, "revision of b"))
		want := bytes.Compare(a, b)
		for _, pair := range [][2][]byte{
			{appendDataKey(nil, a), appendDataKey(nil, b)},
			{appendVersionKey(nil, a, revA), appendVersionKey(nil, b, revB)},
			{appendDataKey(nil, a), appendVersionKey(nil, b, revB)},
		} {
			if want == 0 {
				continue // below
			}
			if got := comparer.Compare(pair[0], pair[1]); got != want {
				t.Fatalf("keys %x and %x compare as %d, their records as %d", a, b, want, got)
			}
		}
		// One key's versions: newest first, all above the bare prefix, all below
		// the bare prefix of the next key.
		if got := comparer.Compare(appendVersionKey(nil, a, revA), appendVersionKey(nil, a, revB)); got != cmp.Compare(revB, revA) {
			t.Fatalf("revisions %d and %d of one key compare as %d", revA, revB, got)
		}
		if comparer.Compare(appendDataKey(nil, a), appendVersionKey(nil, a, shard.MaxRevision)) >= 0 {
			t.Fatal("a bare prefix is not below the versions")
		}
		if comparer.Compare(appendVersionKey(nil, a, 1), appendDataKey(nil, append(bytes.Clone(a), 0))) >= 0 {
			t.Fatal("the oldest version is not below the next key")
		}
		key, rev, err := parseDataKey(appendVersionKey(nil, a, revA))
		if err != nil || !bytes.Equal(key, a) || rev != revA {
			t.Fatalf("key %x at %d is read back as %x at %d, %v", a, revA, key, rev, err)
		}
		if err := cockroachkvs.Comparer.ValidateKey.Validate(appendVersionKey(nil, a, revA)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSpansEncloseTheirKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := shard.Span{Start: drawKey(t, "start"), End: drawKey(t, "end")}
		if !span.Valid() {
			return
		}
		key, rev := drawKey(t, "key"), shard.Revision(rapid.Uint64Range(1, 9).Draw(t, "revision"))
		lower, upper := spanBounds(span)
		record := appendVersionKey(nil, key, rev)
		inside := comparer.Compare(lower, record) <= 0 && comparer.Compare(record, upper) < 0
		if inside != span.Contains(key) {
			t.Fatalf("key %x in [%x, %x): %t, its record: %t", key, span.Start, span.End, !inside, inside)
		}
	})
}

func TestLocalKeys(t *testing.T) {
	ordered := [][]byte{
		recordKey(1, stateRecord), recordKey(1, voteRecord), recordKey(1, commitRecord), recordKey(1, tombstoneRecord), recordKey(1, birthRecord),
		recordKey(1, logRecords), logKey(1, 0), logKey(1, 1), logKey(1, 255), logKey(1, 256), logKey(1, 1<<63), logKey(1, 1<<64-1),
		recordKey(1, afterLogRecords), recordKey(2, stateRecord), logKey(2, 7), recordKey(256, stateRecord),
		recordKey(1<<64-1, stateRecord), logKey(1<<64-1, 1<<64-1), recordKey(1<<64-1, afterLogRecords),
		addressKey(0), addressKey(1), addressKey(1<<64 - 1), identityKey(),
	}
	lower, upper := replicaBounds()
	for i, key := range ordered {
		if key[len(key)-1] != 0x00 {
			t.Errorf("local key %x does not end in the sentinel", key)
		}
		if n := comparer.Split(key); n != len(key) {
			t.Errorf("local key %x is split at %d", key, n)
		}
		if i > 0 && comparer.Compare(ordered[i-1], key) >= 0 {
			t.Errorf("%x is not above %x", key, ordered[i-1])
		}
		if inside := comparer.Compare(lower, key) <= 0 && comparer.Compare(key, upper) < 0; inside != (key[1] == replicaRecords) {
			t.Errorf("key %x inside the replicas' bounds: %t", key, inside)
		}
		if comparer.Compare(key, dataLower) >= 0 {
			t.Errorf("local key %x is not below the data", key)
		}
	}
}

// A lock's suffix is reserved: it lies between a key's bare prefix and its
// newest version, and a View refuses it.
func TestLockClassIsReserved(t *testing.T) {
	lock := append(appendDataKey(nil, userKey("k")), 0xff)
	lock = append(lock, bytes.Repeat([]byte{7}, 16)...)
	lock = append(lock, 18)
	if comparer.Compare(appendDataKey(nil, userKey("k")), lock) >= 0 ||
		comparer.Compare(lock, appendVersionKey(nil, userKey("k"), shard.MaxRevision)) >= 0 {
		t.Error("a lock does not lie between its key and the key's versions")
	}
	if _, _, err := parseDataKey(lock); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a lock is read as data: %v", err)
	}
}

func FuzzParseDataKey(f *testing.F) {
	f.Add(appendVersionKey(nil, userKey("k"), 7))
	f.Add(appendDataKey(nil, []byte{shard.SystemKeyspace, 'k'}))
	f.Add([]byte{dataPrefix, shard.UserKeyspace, 9})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		key, rev, err := parseDataKey(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		back := appendDataKey(nil, key)
		if rev > 0 {
			back = appendVersionKey(nil, key, rev)
		}
		if !bytes.Equal(back, b) {
			t.Fatalf("%x is read as %x at %d", b, key, rev)
		}
	})
}
