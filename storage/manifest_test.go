package storage

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

// storeWithEdits makes a store whose manifest has several records, of which the last one
// begins at last.
func storeWithEdits(t testing.TB) (fs *vfs.MemFS, manifest string, content []byte, last int) {
	t.Helper()
	fs = vfs.NewMem()
	e := open(t, Config{FS: fs})
	size := func() int {
		desc, err := pebble.Peek("store", fs)
		if err != nil {
			t.Fatal(err)
		}
		manifest = desc.ManifestFilename
		b, err := fs.UnsafeGetFileDataBuffer(manifest)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.Clone(b)
		return len(b)
	}
	for i := range 4 {
		last = size()
		commit(t, e, func(b *Batch) {
			b.PutVersion(userKey(fmt.Sprintf("k%d", i)), shard.Revision(i+1), VersionHeader{}, make([]byte, 100))
		})
		if err := e.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	size()
	closeEngine(t, e)
	return fs, manifest, content, last
}

// Whatever byte of the manifest is another one, the store is refused, and nothing in it
// changes; but for those of the last record, which might be what a crash has left.
func TestCorruptManifestIsRefused(t *testing.T) {
	_, _, content, last := storeWithEdits(t)
	if last == 0 || last >= len(content) {
		t.Fatalf("the last of %d bytes begins at %d", len(content), last)
	}
	for at := range last {
		fs, manifest, _, _ := storeWithEdits(t)
		spoiled := bytes.Clone(content)
		spoiled[at] ^= 1 << (at % 8)
		replace(t, fs, manifest, spoiled)
		before, err := fs.List("store")
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(Config{FS: fs, Dir: "store", Logger: quietConfig().Logger, Fatal: func(error) {}})
		if !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d of %d: %v", at, len(content), err)
		}
		if names, err := fs.List("store"); err != nil || len(names) != len(before) {
			t.Fatalf("byte %d: the folder has changed: %v became %v, %v", at, before, names, err)
		}
	}
}

// A crash in the middle of the last record's write leaves a manifest that is as good as
// one without it.
func TestManifestWithATornEnd(t *testing.T) {
	fs, manifest, content, last := storeWithEdits(t)
	for cut := last; cut <= len(content); cut++ {
		for _, more := range []int{0, 100} { // the file may have grown before its content came
			replace(t, fs, manifest, append(bytes.Clone(content[:cut]), make([]byte, more)...))
			if err := checkManifest(fs, "store"); err != nil {
				t.Fatalf("cut at %d of %d, %d more: %v", cut, len(content), more, err)
			}
		}
	}
}

// A record of several chunks, of which a crash has left the later ones alone.
func TestManifestWithATornLongRecord(t *testing.T) {
	fs, manifest, _, _ := storeWithEdits(t)
	var log bytes.Buffer
	w := record.NewWriter(&log)
	for range 2 {
		if _, err := w.WriteRecord(bytes.Repeat([]byte("long"), manifestBlockBytes/2)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b := log.Bytes()
	second := bytes.Clone(b)
	clear(second[len(b)/2+1000 : len(b)/2+9000]) // within the second record
	replace(t, fs, manifest, second)
	if err := checkManifest(fs, "store"); err != nil {
		t.Errorf("the last record is torn: %v", err)
	}
	first := bytes.Clone(b)
	clear(first[1000:9000])
	replace(t, fs, manifest, first)
	if err := checkManifest(fs, "store"); err == nil {
		t.Error("a hole in the first of two records is overlooked")
	}
}

// A record that begins where just a header fits into the block begins with a chunk
// without data. Whatever lengths records have, a manifest that is whole is no corrupt one,
// and is none when a crash has left the last record's first chunk only.
func TestManifestWhoseRecordsEndAnywhereInABlock(t *testing.T) {
	fs, manifest, _, _ := storeWithEdits(t)
	for end := manifestBlockBytes - 2*chunkHeaderBytes - 2; end <= manifestBlockBytes+1; end++ {
		var log bytes.Buffer
		w := record.NewWriter(&log)
		var second int
		for i, n := range []int{end - chunkHeaderBytes, 300, 300} {
			if i == 1 {
				second = int(w.Size())
			}
			if _, err := w.WriteRecord(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		b := log.Bytes()
		replace(t, fs, manifest, b)
		if err := checkManifest(fs, "store"); err != nil {
			t.Errorf("the first record ends at %d: %v", end, err)
		}
		replace(t, fs, manifest, b[:second+chunkHeaderBytes])
		if err := checkManifest(fs, "store"); err != nil {
			t.Errorf("the first record ends at %d, the second is torn: %v", end, err)
		}
		if end > manifestBlockBytes-chunkHeaderBytes {
			continue
		}
		spoiled := bytes.Clone(b)
		spoiled[1000]++
		replace(t, fs, manifest, spoiled)
		if err := checkManifest(fs, "store"); err == nil {
			t.Errorf("the first record ends at %d: that it is corrupt is overlooked", end)
		}
	}
}

func replace(t testing.TB, fs vfs.FS, path string, content []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(bytes.Clone(content))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
