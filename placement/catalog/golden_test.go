package catalog

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestBootstrapBytes pins the records that a cluster is born with: they rest on
// disk for its whole life.
func TestBootstrapBytes(t *testing.T) {
	ds, err := InitialDescriptors(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	first := router.Node{ID: 1, Address: "127.0.0.1:7400", HTTPAddress: "127.0.0.1:7401", Incarnation: 1, StartNonce: 0x1122334455667788, Version: "0.1.0"}
	for _, w := range BootstrapRecords(first, ds) {
		fmt.Fprintf(&b, "%x %s\n  %x\n", w.Key, shard.FormatKey(w.Key), w.Value)
	}
	const path = "testdata/bootstrap.golden"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Fatalf("the records' bytes have changed:\n%s\nwant\n%s", b.Bytes(), want)
	}
}

func FuzzDecodeCounter(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(encodeCounter(0))
	f.Add(encodeCounter(1<<64 - 1))
	f.Add(make([]byte, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeCounter(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(encodeCounter(n), b) {
			t.Fatalf("%x is read as %d", b, n)
		}
	})
}

// A directory or node record that a fuzzer invents is refused or used, and never
// ends the process or overwrites what it does not understand.
func FuzzUpdateDirectoryOverForeignBytes(f *testing.F) {
	e := entry(2, 1, 2, 3)
	f.Add(router.AppendEntry(nil, &e))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return // no record is empty
		}
		h := newHouse(t)
		key := router.DirectoryKey(e.Descriptor.Span.Start)
		h.kv.Put(key, b)
		if _, err := h.update(e, nil); err != nil && !bytes.Equal(h.kv.Get(key), b) {
			t.Fatalf("%v, and %x became %x", err, b, h.kv.Get(key))
		}
	})
}
