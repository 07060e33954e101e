package machine

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func operation(rev shard.Revision, version uint64, c shard.Command) []byte {
	return shard.AppendCommand(AppendHeader(nil, Header{Revision: rev, Version: version}), &c)
}

// Operations rest in logs: these bytes must be read for ever.
func TestGoldenOperations(t *testing.T) {
	op := shard.OpID{Session: 0x0102030405060708, Sequence: 9}
	var text strings.Builder
	for _, s := range []struct {
		name string
		h    Header
		c    shard.Command
	}{
		{"put at revision 300 in epoch 2", Header{300, 2}, shard.Command{Kind: shard.KindPut, Op: op, Key: []byte("\x02k"), Value: []byte("v")}},
		{"delete at the last revision", Header{shard.MaxRevision, 1 << 40}, shard.Command{Kind: shard.KindDelete, Op: op, Key: []byte("\x02k")}},
		{"increment without a revision", Header{0, 1}, shard.Command{Kind: shard.KindIncrement, Op: op, Delta: 5, Key: []byte("\x01k")}},
		{"later attempt of a batch", Header{300, 2}, shard.Command{Kind: shard.KindBatch, Op: op, Retry: true, Birth: 299,
			Compares: []shard.Compare{{Kind: shard.CompareAbsent, Key: []byte("\x02k")}}, Then: batchOps("k=v -l ?m")}},
		{"delete-range", Header{300, 2}, shard.Command{Kind: shard.KindDeleteRange, Op: op, Limit: 1000, Start: []byte("\x02a"), End: []byte("\x02b")}},
		{"raise to revision 300", Header{300, 2}, shard.Command{Kind: shard.KindRaise, Op: op}},
		{"floor at revision 200", Header{0, 2}, shard.Command{Kind: shard.KindFloor, Op: op, Revision: 200}},
		{"digest", Header{0, 2}, shard.Command{Kind: shard.KindDigest, Op: op}},
		{"verify", Header{0, 2}, shard.Command{Kind: shard.KindVerify, Op: op, Digested: 40, Applied: 41, Value: []byte("digest")}},
	} {
		b := operation(s.h.Revision, s.h.Version, s.c)
		fmt.Fprintf(&text, "%s\n  %s\n", s.name, hex.EncodeToString(b))
		var h Header
		var c shard.Command
		if err := DecodeOperation(b, &h, &c); err != nil || h != s.h || c.Kind != s.c.Kind || c.Op != op || !bytes.Equal(c.Key, s.c.Key) {
			t.Errorf("%s: %+v, %+v, %v", s.name, h, c, err)
		}
	}
	const file = "testdata/operations.golden"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != text.String() {
		t.Errorf("%s: %v; got\n%s", file, err, text.String())
	}
}

func TestHeaderFitsItsBound(t *testing.T) {
	if n := len(AppendHeader(nil, Header{Revision: shard.MaxRevision, Version: 1<<64 - 1})); n > HeaderBytesMax {
		t.Errorf("%d bytes", n)
	}
}

// seeds are commands of all kinds for keys with versions.
func seeds() []shard.Command {
	return []shard.Command{
		put("k", "v"), remove("k"), again(put("k", "one"), 4), again(remove("k"), 4), deleteRange("b", "y", 3), again(deleteRange("c", "l", 1), 4),
		batch("k=one k@5 -l +k", "k=two -l ?m", "?k l=3"), again(batch("-k", "k=two", "k=one"), 4), batch("", "?k", ""),
		{Kind: shard.KindRaise}, {Kind: shard.KindFloor, Revision: 5},
		{Kind: shard.KindDigest}, {Kind: shard.KindVerify, Digested: 3, Applied: 3, Value: []byte("digest")},
	}
}

// Whatever rests in a log, a machine applies it, refuses it or says that it is
// corrupt. It neither panics nor changes anything but by what it applies.
func FuzzApply(f *testing.F) {
	for _, c := range seeds() {
		f.Add(versioned(6, 1, c))
	}
	f.Add(system(shard.Command{Kind: shard.KindIncrement, Key: []byte("\x01k"), Delta: 1}))
	f.Add(operation(6, 2, shard.Command{Kind: shard.KindDeleteRange, Start: key("y"), End: key("b")}))
	f.Add(operation(6, 2, shard.Command{Kind: shard.KindDeleteRange, Start: key("c"), End: key("d")}))
	f.Add(operation(6, 2, shard.Command{Kind: shard.KindBatch, Then: []shard.BatchOp{{Kind: shard.KindPut}}}))
	f.Fuzz(func(t *testing.T, op []byte) {
		for _, state := range []*storage.ReplicaState{userState(), systemState()} {
			b := newBench(t, state)
			if state.Descriptor.ID != shard.MetaID {
				b.must(versioned(5, 1, put("k", "one")))
			}
			before := *b.m.State()
			res, err := b.apply(op)
			switch {
			case err != nil && !errors.Is(err, shard.ErrMalformed):
				t.Fatal(err)
			case err != nil || res.Err != nil:
				if s := *b.m.State(); s.LastRevision != before.LastRevision || s.Floor != before.Floor || s.Versions != before.Versions || s.Bytes != before.Bytes {
					t.Fatalf("%+v became %+v", before, s)
				}
			}
			b.end()
			b.close()
		}
	})
}

func FuzzDecodeOperation(f *testing.F) {
	b := operation(300, 2, shard.Command{Kind: shard.KindPut, Op: shard.OpID{Session: 1, Sequence: 2}, Key: []byte("\x02k"), Value: []byte("v")})
	f.Add(b)
	f.Add(b[:3])
	for _, c := range seeds() {
		f.Add(operation(300, 2, c))
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 30))
	f.Add([]byte{operationFormat, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Header
		var c shard.Command
		if err := DecodeOperation(b, &h, &c); err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var h2 Header
		var c2 shard.Command
		if err := DecodeOperation(operation(h.Revision, h.Version, c), &h2, &c2); err != nil || h2 != h || fmt.Sprintf("%+v", c2) != fmt.Sprintf("%+v", c) {
			t.Fatalf("%+v %+v became %+v %+v, %v", h, c, h2, c2, err)
		}
	})
}
