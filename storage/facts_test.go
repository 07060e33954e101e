package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// These tests pin what this package takes for granted of Pebble. One that fails
// after an upgrade tells which part to think about anew.

func openFacts(t *testing.T, fs vfs.FS) *pebble.DB {
	t.Helper()
	o := baseOptions()
	o.FS = fs
	o.Logger = pebbleLogger{newEngine(quietConfig())}
	db, err := pebble.Open("db", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func has(t *testing.T, db *pebble.DB, key []byte) bool {
	t.Helper()
	_, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	closer.Close()
	return true
}

// The empty batch's SyncWait is why CommitSync writes an empty log record.
func TestFactEmptyBatchSyncWaitWaitsForNothing(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := openFacts(t, fs)
	key := []byte("x\x00")
	if err := db.Set(key, nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	if err := db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := b.SyncWait(); err != nil {
		t.Fatal(err)
	}
	if has(t, openFacts(t, fs.CrashClone(vfs.CrashCloneCfg{})), key) {
		t.Error("the sync of an empty batch made an earlier commit durable")
	}
	if err := db.LogData(nil, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if !has(t, openFacts(t, fs.CrashClone(vfs.CrashCloneCfg{})), key) {
		t.Error("LogData(nil, Sync) did not make an earlier commit durable")
	}
	// The same as a part of a batch, without waiting in the commit.
	if err := db.Set([]byte("y\x00"), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	b = db.NewBatch()
	b.LogData(nil, nil)
	if b.Empty() {
		t.Fatal("a batch with an empty log record is empty")
	}
	if err := errors.Join(db.ApplyNoSyncWait(b, pebble.Sync), b.SyncWait()); err != nil {
		t.Fatal(err)
	}
	if !has(t, openFacts(t, fs.CrashClone(vfs.CrashCloneCfg{})), []byte("y\x00")) {
		t.Error("an empty log record in a batch did not make an earlier commit durable")
	}
}

// A crash keeps a prefix of the commits: what rules like "truncation follows
// apply" rest on.
func TestFactCrashKeepsAPrefix(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := openFacts(t, fs)
	key := func(i int) []byte { return fmt.Appendf(nil, "%04d\x00", i) }
	for i := range 300 {
		opts := pebble.NoSync
		if i == 200 {
			opts = pebble.Sync
		}
		if err := db.Set(key(i), bytes.Repeat([]byte("v"), 500), opts); err != nil {
			t.Fatal(err)
		}
	}
	crashed := openFacts(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	n := 0
	for ; n < 300 && has(t, crashed, key(n)); n++ {
	}
	if n < 201 {
		t.Errorf("%d commits are left, 201 were synced", n)
	}
	for i := n; i < 300; i++ {
		if has(t, crashed, key(i)) {
			t.Errorf("commit %d is lost and commit %d is not", n, i)
		}
	}
}

func writeFactSST(t *testing.T, db *pebble.DB, fs vfs.FS, name string, value string, n int) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	o := baseOptions()
	o.EnsureDefaults()
	w := sstable.NewWriter(objstorageprovider.NewFileWritable(f), o.MakeWriterOptions(0, db.TableFormat()))
	if err := w.DeleteRange([]byte("a\x00"), []byte("b\x00")); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Set(fmt.Appendf(nil, "a%04d\x00", i), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file's range tombstone clears what was there before and spares the file's
// own records; iterators see the ingest wholly or not at all; a plain snapshot
// does not see it.
func TestFactIngestWithRangeTombstones(t *testing.T) {
	fs := vfs.NewMem()
	db := openFacts(t, fs)
	const n = 50
	generation := 0
	ingest := func() {
		generation++
		// Every second time the span also has something in the memtable.
		// In one batch: an iterator may open between two commits, and would see
		// the stray record rightly.
		if generation%2 == 0 {
			b := db.NewBatch()
			b.Set([]byte("a9999\x00"), []byte("stray"), nil)
			b.Delete([]byte("a9999\x00"), nil)
			if err := b.Commit(pebble.NoSync); err != nil {
				t.Error(err)
			}
		}
		writeFactSST(t, db, fs, "next.sst", fmt.Sprint(generation), n)
		if err := db.Ingest(context.Background(), []string{"next.sst"}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(r pebble.Reader) (rows int, values map[string]bool) {
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte("a\x00"), UpperBound: []byte("b\x00")})
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		values = map[string]bool{}
		for it.First(); it.Valid(); it.Next() {
			rows++
			values[string(it.Value())] = true
		}
		if err := it.Close(); err != nil {
			t.Error(err)
		}
		return rows, values
	}
	for i := range n { // more keys than the files have, partly others
		db.Set(fmt.Appendf(nil, "a%04d-old\x00", i), []byte("old"), pebble.NoSync)
	}
	ingest()
	snapshot := db.NewSnapshot()
	defer snapshot.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if rows, values := count(db); rows != n || len(values) != 1 {
				t.Errorf("an iterator sees %d rows of %d generations", rows, len(values))
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 100 {
		ingest()
	}
	close(stop)
	wg.Wait()
	if rows, values := count(db); rows != n || !values[fmt.Sprint(generation)] {
		t.Errorf("in the end there are %d rows of %v", rows, values)
	}
	if rows, values := count(snapshot); rows != n || !values["1"] || len(values) != 1 {
		t.Errorf("the snapshot sees %d rows of %v", rows, values)
	}
}

// An excise makes a snapshot of before empty where it was, which is why excises.begin marks
// those; an iterator that is open keeps what it saw.
func TestFactExcisePiercesSnapshots(t *testing.T) {
	for _, flushed := range []bool{true, false} {
		fs := vfs.NewMem()
		db := openFacts(t, fs)
		for i := range 50 {
			db.Set(fmt.Appendf(nil, "a%04d-old\x00", i), []byte("old"), pebble.NoSync)
		}
		if flushed {
			db.Flush()
		}
		count := func(it *pebble.Iterator, err error) (rows int) {
			if err != nil {
				t.Fatal(err)
			}
			for it.First(); it.Valid(); it.Next() {
				rows++
			}
			return rows
		}
		snapshot := db.NewSnapshot()
		open, err := snapshot.NewIter(nil)
		writeFactSST(t, db, fs, "next.sst", "new", 20)
		if _, err := db.IngestAndExcise(context.Background(), []string{"next.sst"}, nil, nil,
			pebble.KeyRange{Start: []byte("a\x00"), End: []byte("b\x00")}); err != nil {
			t.Fatal(err)
		}
		db.Flush()
		later, laterErr := snapshot.NewIter(nil)
		present, presentErr := db.NewIter(nil)
		if a, b, c := count(open, err), count(later, laterErr), count(present, presentErr); a != 50 || b != 0 || c != 20 {
			t.Errorf("flushed %t: an iterator of before sees %d rows, one of its snapshot opened afterwards %d, one of afterwards %d", flushed, a, b, c)
		}
		if err := errors.Join(open.Close(), later.Close(), present.Close(), snapshot.Close()); err != nil {
			t.Error(err)
		}
	}
}

// An ingest is durable although an earlier commit of the WAL is not.
func TestFactIngestOvertakesTheWAL(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db := openFacts(t, fs)
	if err := db.Set([]byte("vote\x00"), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	writeFactSST(t, db, fs, "next.sst", "v", 1)
	if err := db.Ingest(context.Background(), []string{"next.sst"}); err != nil {
		t.Fatal(err)
	}
	crashed := openFacts(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if !has(t, crashed, []byte("a0000\x00")) {
		t.Error("an ingest is not durable when it returns")
	}
	if has(t, crashed, []byte("vote\x00")) {
		t.Error("an ingest makes earlier commits durable: Install need not sync the WAL any more")
	}
}

func TestFactFormats(t *testing.T) {
	if pebble.FormatNewest != 24 {
		t.Errorf("the newest format is %d: read what it changes", pebble.FormatNewest)
	}
	if format < pebble.FormatWALSyncChunks || format < pebble.FormatColumnarBlocks {
		t.Error("the format lacks columnar blocks or WAL sync chunks")
	}
	if db := openFacts(t, vfs.NewMem()); db.FormatMajorVersion() != format {
		t.Errorf("a new store has format %d", db.FormatMajorVersion())
	}
}

// The kinds of keys that cockroachkvs knows: none, 8, 12, 13 and 17 bytes and
// their length. Suffixes order descending, the bare prefix first.
func TestFactKeyKinds(t *testing.T) {
	if cockroachkvs.MaxSuffixLen != 18 {
		t.Errorf("the longest suffix has %d bytes", cockroachkvs.MaxSuffixLen)
	}
	suffix := func(n int, first byte) []byte {
		s := append([]byte{first}, bytes.Repeat([]byte{1}, n-1)...)
		return append(s, byte(n+1))
	}
	ordered := [][]byte{nil, suffix(17, 0xff), suffix(8, 9), suffix(8, 8), suffix(8, 7)}
	c := &cockroachkvs.Comparer
	for i, s := range ordered {
		key := append([]byte("key\x00"), s...)
		if n := c.Split(key); n != 4 {
			t.Errorf("key %x is split at %d", key, n)
		}
		if err := c.ValidateKey.Validate(key); err != nil {
			t.Error(err)
		}
		if i > 0 && c.Compare(append([]byte("key\x00"), ordered[i-1]...), key) >= 0 {
			t.Errorf("suffix %x is not after %x", s, ordered[i-1])
		}
	}
	if got := cockroachkvs.EncodeMVCCKey(nil, []byte("key"), 258, 0); !bytes.Equal(got, []byte("key\x00\x00\x00\x00\x00\x00\x00\x01\x02\x09")) {
		t.Errorf("a version's key is %x", got)
	}
}

// A memtable begins with 256 KiB whatever MemTableSize says.
func TestFactFirstMemtable(t *testing.T) {
	if size := openFacts(t, vfs.NewMem()).Metrics().MemTable.Size; size > simulatedMemtableBytes {
		t.Errorf("the first memtable has %d bytes", size)
	}
}
