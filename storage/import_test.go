package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

const transferred shard.ID = 5

// fill writes a replica with n keys whose values name the generation.
func fill(t testing.TB, e *Engine, span shard.Span, n int, generation string, size int) *ReplicaState {
	t.Helper()
	state := testState(transferred, span)
	commit(t, e, func(b *Batch) { b.PutInitialReplica(1, state) })
	state.Applied, state.AppliedTerm, state.LastRevision = 50, 3, shard.Revision(n)
	value := append([]byte(generation), bytes.Repeat([]byte{'.'}, size)...)
	for i := range n {
		commit(t, e, func(b *Batch) {
			key := append(bytes.Clone(span.Start), fmt.Sprintf("%06d", i)...)
			b.PutVersion(key, shard.Revision(i+1), VersionHeader{Op: shard.OpID{Session: 7, Sequence: uint64(i)}}, value)
		})
	}
	commit(t, e, func(b *Batch) {
		b.PutReplicaState(transferred, state)
		b.deleteRange(recordKey(transferred, logRecords), recordKey(transferred, afterLogRecords))
		b.putAnchor(transferred, state.Applied, state.AppliedTerm)
	})
	return state
}

func TestExportSeesOneMoment(t *testing.T) {
	e := open(t, Config{})
	state := fill(t, e, userSpan("a", "b"), 3000, "old", 300)
	want := dump(t, e, userSpan("a", "b"))
	s := e.NewSnapshot()
	x, err := s.Export(transferred)
	if err != nil {
		t.Fatal(err)
	}
	// Rewritten by commits, and replaced by an ingest, while the export goes on.
	first, err := x.Next()
	if err != nil {
		t.Fatal(err)
	}
	chunks := [][]byte{bytes.Clone(first)}
	putVersion(t, e, "a000001", 9999, "new")
	source := open(t, Config{})
	fill(t, source, userSpan("a", "b"), 10, "new", 300)
	if err := receive(t, e, transferred, 2, export(t, source, transferred)).Install(userSpan("a", "b")); err != nil {
		t.Fatal(err)
	}
	chunks = append(chunks, drain(t, x)...)
	for i, c := range chunks {
		if len(c) > chunkBytes+1000 {
			t.Errorf("chunk %d has %d bytes", i, len(c))
		}
	}
	if err := errors.Join(x.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	target := open(t, Config{})
	i := receive(t, target, transferred, 2, chunks)
	if got, err := i.Finish(); err != nil || !reflect.DeepEqual(&got, state) {
		t.Errorf("the snapshot's state is %+v, %v, want %+v", got, err, state)
	}
	if err := i.Install(shard.Span{}); err != nil {
		t.Fatal(err)
	}
	if got := dump(t, target, shard.UserSpan()); !slices.Equal(got, want) {
		t.Errorf("the copy has %d rows, the original %d", len(got), len(want))
	}
}

func TestExportOfAnUnknownShard(t *testing.T) {
	s := open(t, Config{}).NewSnapshot()
	defer s.Close()
	if _, err := s.Export(77); err == nil {
		t.Error("a shard without state was exported")
	}
}

// TestInstall installs over several kinds of old content, small and not.
func TestInstall(t *testing.T) {
	for _, test := range []struct {
		name     string
		n, size  int
		old      shard.Span // of the receiver; none if empty
		leftOver []string   // keys of the receiver that stay
	}{
		{"small into nothing", 20, 100, shard.Span{}, []string{"a", "c000", "g"}},
		{"small over the same span", 20, 100, userSpan("d", "f"), []string{"a", "c000", "g"}},
		{"small over a wider span", 20, 100, userSpan("b", "h"), []string{"a"}},
		{"small over a narrower span", 20, 100, userSpan("d5", "e"), []string{"a", "c000", "g"}},
		{"small after another span", 20, 100, userSpan("b", "c5"), []string{"a", "g"}},
		{"nothing over something", 0, 0, userSpan("b", "f"), []string{"a", "g"}},
		{"large into nothing", 3000, 300, shard.Span{}, []string{"a", "c000", "g"}},
		{"large over the same span", 3000, 300, userSpan("d", "f"), []string{"a", "c000", "g"}},
		{"large over a wider span", 3000, 300, userSpan("b", "h"), []string{"a"}},
		{"large over another span", 3000, 300, userSpan("f", "h"), []string{"a", "c000"}},
		{"tiles", 70, 1 << 20, userSpan("b", "h"), []string{"a"}},
	} {
		source := open(t, Config{})
		state := fill(t, source, userSpan("d", "f"), test.n, "new", test.size)
		want := dump(t, source, shard.UserSpan())
		chunks := export(t, source, transferred)
		small := test.n*test.size < smallImportBytes
		for _, staged := range []bool{false, true} {
			if staged && !small {
				continue
			}
			for _, flushed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/staged %t/flushed %t", test.name, staged, flushed), func(t *testing.T) {
					e := open(t, Config{})
					prepareReceiver(t, e, test.old)
					if flushed {
						e.db.Flush()
					}
					i := receive(t, e, transferred, 2, chunks)
					if i.Small() != small {
						t.Fatalf("Small is %t", i.Small())
					}
					install(t, e, i, test.old, staged)
					checkInstalled(t, e, state, want, test.leftOver)
				})
			}
		}
	}
}

// prepareReceiver writes keys in and around old, and replica 2 with a log over it.
func prepareReceiver(t *testing.T, e *Engine, old shard.Span) {
	t.Helper()
	for i, key := range []string{"a", "b000", "c000", "d5", "d5x", "e", "f", "g"} {
		inside := old.Contains(userKey(key))
		outside := userSpan("a", "b").Contains(userKey(key)) || !inside && !userSpan("d", "f").Contains(userKey(key))
		if inside || outside && key != "b000" && key != "f" {
			putVersion(t, e, key, shard.Revision(i+1), "old")
		}
	}
	if len(old.Start) > 0 {
		commit(t, e, func(b *Batch) { b.PutInitialReplica(1, testState(transferred, old)) })
	}
	l := openLog(t, e, transferred, 2)
	commit(t, e, func(b *Batch) {
		l.SetHardState(b, raftpb.HardState{Term: 3, Vote: 1})
		if len(old.Start) > 0 {
			l.Append(b, entries(2, 11, 600, 20))
		}
	})
}

func install(t *testing.T, e *Engine, i *Import, old shard.Span, staged bool) {
	t.Helper()
	if staged {
		commit(t, e, func(b *Batch) {
			if err := i.StageInstall(b, old); err != nil {
				t.Fatal(err)
			}
		})
	} else if err := i.Install(old); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(i.Close(), i.Close()); err != nil {
		t.Error(err)
	}
	if names, _ := e.fs.List(e.fs.PathJoin("store", incomingDir)); len(names) > 0 {
		t.Errorf("files are left behind: %v", names)
	}
}

func checkInstalled(t *testing.T, e *Engine, state *ReplicaState, rows, leftOver []string) {
	t.Helper()
	got := dump(t, e, shard.UserSpan())
	var inside, outside []string
	for _, line := range got {
		key, _, _ := strings.Cut(line, "@")
		if state.Descriptor.Span.Contains(userKey(key)) {
			inside = append(inside, line)
		} else {
			outside = append(outside, key)
		}
	}
	if !slices.Equal(inside, rows) {
		t.Errorf("%d rows are in the span, want %d", len(inside), len(rows))
	}
	if !slices.Equal(outside, leftOver) {
		t.Errorf("outside the span are %q, want %q", outside, leftOver)
	}
	if s, found, err := e.ReplicaState(transferred); err != nil || !found || !reflect.DeepEqual(&s, state) {
		t.Errorf("the state is %+v, %t, %v", s, found, err)
	}
	l := openLog(t, e, transferred, 2)
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	term, err := l.Term(state.Applied)
	if first != state.Applied+1 || last != state.Applied || term != state.AppliedTerm || err != nil {
		t.Errorf("the log is [%d, %d], the anchor's term %d, %v", first, last, term, err)
	}
	if hs, _ := l.InitialState(); hs != (raftpb.HardState{Term: 3, Vote: 1, Commit: state.Applied}) {
		t.Errorf("the hard state is %+v: the installation touched term or vote", hs)
	}
}

// TestLogAfterReset: a kept log agrees with one that is opened after the installation.
func TestLogAfterReset(t *testing.T) {
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 10, "new", 10)
	e := open(t, Config{})
	prepareReceiver(t, e, userSpan("d", "f"))
	kept := openLog(t, e, transferred, 2)
	install(t, e, receive(t, e, transferred, 2, export(t, source, transferred)), userSpan("d", "f"), true)
	kept.Reset(50, 3)
	for name, l := range map[string]*Log{"kept": kept, "opened": openLog(t, e, transferred, 2)} {
		last, _ := l.LastIndex()
		term, err := l.Term(50)
		hs, _ := l.InitialState()
		if last != 50 || term != 3 || err != nil || hs.Commit != 50 || l.Bytes() != 0 {
			t.Errorf("%s: last %d, term %d, %v, hard state %+v, %d bytes", name, last, term, err, hs, l.Bytes())
		}
	}
	commit(t, e, func(b *Batch) { kept.Append(b, entries(4, 51, 60, 10)) })
	if last, _ := openLog(t, e, transferred, 2).LastIndex(); last != 60 {
		t.Errorf("after an append the last index is %d", last)
	}
}

// TestImportRefuses hands over streams that were tampered with.
func TestImportRefuses(t *testing.T) {
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 3000, "new", 300)
	chunks := export(t, source, transferred)
	if len(chunks) < 5 {
		t.Fatalf("only %d chunks", len(chunks))
	}
	mutate := func(f func(c [][]byte) [][]byte) [][]byte { return f(slices.Clone(chunks)) }
	reseal := func(chunk []byte, change func(body []byte)) []byte {
		body := bytes.Clone(chunk[:len(chunk)-crcLen])
		change(body)
		sealed, _ := endChunk(body)
		return sealed
	}
	for _, test := range []struct {
		name    string
		chunks  [][]byte
		replica shard.ReplicaID
		id      shard.ID
	}{
		{"a missing chunk", mutate(func(c [][]byte) [][]byte { return slices.Delete(c, 2, 3) }), 2, transferred},
		{"a doubled chunk", mutate(func(c [][]byte) [][]byte { return slices.Insert(c, 2, c[1]) }), 2, transferred},
		{"swapped chunks", mutate(func(c [][]byte) [][]byte { c[2], c[3] = c[3], c[2]; return c }), 2, transferred},
		{"no state", chunks[1:], 2, transferred},
		{"no end", chunks[:len(chunks)-1], 2, transferred},
		{"no data", [][]byte{chunks[0], chunks[len(chunks)-1]}, 2, transferred},
		{"a chunk after the end", append(slices.Clone(chunks), chunks[len(chunks)-1]), 2, transferred},
		{"a flipped bit", mutate(func(c [][]byte) [][]byte { c[2] = bytes.Clone(c[2]); c[2][1000] ^= 4; return c }), 2, transferred},
		{"a cut chunk", mutate(func(c [][]byte) [][]byte { c[2] = c[2][:len(c[2])-9]; return c }), 2, transferred},
		{"an empty chunk", mutate(func(c [][]byte) [][]byte { c[1] = nil; return c }), 2, transferred},
		{"a key outside the span", mutate(func(c [][]byte) [][]byte {
			c[1] = reseal(c[1], func(b []byte) { b[bytes.Index(b, []byte("d000003"))] = 'z' })
			return c
		}), 2, transferred},
		{"keys out of order", mutate(func(c [][]byte) [][]byte {
			c[1] = reseal(c[1], func(b []byte) { copy(b[bytes.Index(b, []byte("d000003")):], "d000001") })
			return c
		}), 2, transferred},
		{"a value that was replaced", mutate(func(c [][]byte) [][]byte {
			c[1] = reseal(c[1], func(b []byte) { copy(b[bytes.Index(b, []byte("new...")):], "bad") })
			return c
		}), 2, transferred},
		{"another shard", chunks, 2, 6},
		{"a receiver that is no member", chunks, 9, transferred},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := open(t, Config{})
			i, err := e.NewImport(test.id, test.replica)
			if err != nil {
				t.Fatal(err)
			}
			for _, chunk := range test.chunks {
				if err = i.Add(chunk); err != nil {
					break
				}
			}
			if err == nil {
				_, err = i.Finish()
			}
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatalf("error %v", err)
			}
			if err := i.Install(shard.Span{}); err == nil {
				t.Error("it was installed")
			}
			if err := i.Close(); err != nil {
				t.Error(err)
			}
			if names, _ := e.fs.List(e.fs.PathJoin("store", incomingDir)); len(names) > 0 {
				t.Errorf("files are left behind: %v", names)
			}
		})
	}
}

func TestDataRecordsAreChecked(t *testing.T) {
	good := golden("version")
	span := userSpan("d", "f")
	for name, test := range map[string]struct {
		r  dataRecord
		ok bool
	}{
		"a version":                 {dataRecord{userKey("d"), 1, good}, true},
		"a key outside":             {dataRecord{userKey("f"), 1, good}, false},
		"an unversioned user key":   {dataRecord{userKey("d"), 0, []byte{recordFormat}}, false},
		"a value without a header":  {dataRecord{userKey("d"), 1, []byte("x")}, false},
		"an empty value":            {dataRecord{userKey("d"), 1, nil}, false},
		"a key of another keyspace": {dataRecord{[]byte{shard.SystemKeyspace, 'd'}, 0, []byte{recordFormat}}, false},
	} {
		if err := test.r.check(span); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenRemovesAbandonedImports(t *testing.T) {
	source := open(t, Config{})
	fill(t, source, userSpan("d", "f"), 3000, "new", 300)
	fs := vfs.NewMem()
	e := open(t, Config{FS: fs})
	receive(t, e, transferred, 2, export(t, source, transferred)) // and the process ends
	dir := fs.PathJoin("store", incomingDir)
	if names, _ := fs.List(dir); len(names) == 0 {
		t.Fatal("the import wrote no files")
	}
	closeEngine(t, e)
	open(t, Config{FS: fs})
	if names, _ := fs.List(dir); len(names) > 0 {
		t.Errorf("files are left behind: %v", names)
	}
}

// TestReadersSeeOldOrNewContent: while big imports replace a span again and
// again, every view sees one generation wholly, or says that it does not; a view of
// what lies beside the span never says so.
func TestReadersSeeOldOrNewContent(t *testing.T) {
	const n = 1500
	e := open(t, Config{})
	span := userSpan("d", "f")
	snapshots := make([][][]byte, 2)
	for g := range snapshots {
		source := open(t, Config{})
		fill(t, source, span, n, fmt.Sprint("generation", g), 300)
		snapshots[g] = export(t, source, transferred)
	}
	if err := receive(t, e, transferred, 2, snapshots[0]).Install(shard.Span{}); err != nil {
		t.Fatal(err)
	}
	putVersion(t, e, "f", 1, "beside")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for reads := 0; ; {
				select {
				case <-stop:
					if reads == 0 {
						t.Error("no read happened")
					}
					return
				default:
				}
				v := e.NewView()
				rows, _, err := v.Scan(ScanOptions{Span: span, At: shard.MaxRevision})
				beside, _, besideErr := v.Scan(ScanOptions{Span: userSpan("f", "g"), At: shard.MaxRevision})
				if len(beside) != 1 || besideErr != nil {
					t.Errorf("beside the span a view sees %d rows, %v", len(beside), besideErr)
				}
				if errors.Is(err, ErrReplaced) {
					v.Close()
					runtime.Gosched()
					continue
				}
				reads++
				if err == nil && len(rows) == n {
					for _, r := range rows {
						if !bytes.Equal(r.Value, rows[0].Value) {
							t.Error("an iterator sees two generations")
							break
						}
					}
				} else {
					t.Errorf("an iterator sees %d of %d rows, %v", len(rows), n, err)
				}
				v.Close()
			}
		})
	}
	for g := range 12 {
		putVersion(t, e, "d000003", shard.Revision(n+1), "generation") // sometimes in the memtable, sometimes not
		commit(t, e, func(b *Batch) { b.delete(appendVersionKey(nil, userKey("d000003"), n+1)) })
		if err := receive(t, e, transferred, 2, snapshots[g%2]).Install(span); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
}

// TestCrashDuringInstall crashes at every sync, rename and link of an
// installation: what comes back is the old content or the new, with the state and
// the log that belong to it, and the new never without what was committed before.
func TestCrashDuringInstall(t *testing.T) {
	source := open(t, Config{})
	state := fill(t, source, userSpan("d", "f"), 2000, "new", 300)
	newRows := dump(t, source, shard.UserSpan())
	chunks := export(t, source, transferred)
	for _, inMemtable := range []bool{true, false} {
		fs := &crashingFS{FS: vfs.NewCrashableMem()}
		e := open(t, Config{FS: fs})
		old := userSpan("b", "e")
		prepareReceiver(t, e, old)
		oldRows := dump(t, e, shard.UserSpan())
		i := receive(t, e, transferred, 2, chunks)
		l := openLog(t, e, transferred, 2)
		commit(t, e, func(b *Batch) { l.SetHardState(b, raftpb.HardState{Term: 8, Vote: 2}) })
		if !inMemtable { // the ingest then does not touch the memtable, nor the WAL by itself
			e.db.Flush()
		}
		commitSync(t, e, func(*Batch) {})
		before := len(fs.clones())
		commit(t, e, func(b *Batch) { b.PutAddress(77, "committed before, synced by nobody") })
		if err := i.Install(old); err != nil {
			t.Fatal(err)
		}
		fs.crash() // after the installation, before anything else is synced
		clones := fs.clones()[before:]
		var olds, news int
		for n, clone := range clones {
			c := open(t, Config{FS: clone})
			rows := dump(t, c, shard.UserSpan())
			s, _, err := c.ReplicaState(transferred)
			if err != nil {
				t.Fatal(err)
			}
			l := openLog(t, c, transferred, 2)
			last, _ := l.LastIndex()
			hs, _ := l.InitialState()
			switch s.Applied {
			case 10:
				olds++
				if !slices.Equal(rows, oldRows) || last != 600 {
					t.Errorf("crash %d: the old state, with %d of %d rows and a log up to %d", n, len(rows), len(oldRows), last)
				}
			case state.Applied:
				news++
				var inside []string
				for _, row := range rows {
					if row[0] >= 'd' && row[0] < 'f' {
						inside = append(inside, row)
					}
				}
				if !slices.Equal(inside, newRows) || last != state.Applied || len(rows) != len(newRows)+2 {
					t.Errorf("crash %d: the new state, with %d of %d rows and a log up to %d", n, len(rows), len(newRows), last)
				}
				if book, err := c.AddressBook(); err != nil || len(book) != 1 {
					t.Errorf("crash %d: the new state without a commit from before it, %v", n, err)
				}
				if hs.Term != 8 || hs.Vote != 2 {
					t.Errorf("crash %d: the new state with the hard state %+v from before", n, hs)
				}
			default:
				t.Errorf("crash %d: applied is %d", n, s.Applied)
			}
			closeEngine(t, c)
		}
		if olds == 0 || news == 0 {
			t.Errorf("of %d crashes %d left the old state and %d the new one: the test shows nothing", len(clones), olds, news)
		}
	}
}

func TestInstallSimulated(t *testing.T) {
	source := open(t, Config{})
	state := fill(t, source, userSpan("d", "f"), 3000, "new", 300)
	want := dump(t, source, shard.UserSpan())
	chunks := export(t, source, transferred)
	world := newFakeEnv(1)
	fs := vfs.NewCrashableMem()
	e := openSimulated(t, fs, world)
	prepareReceiver(t, e, userSpan("d", "f"))
	install(t, e, receive(t, e, transferred, 2, chunks), userSpan("d", "f"), false)
	crashed := openSimulated(t, fs.CrashClone(vfs.CrashCloneCfg{}), world)
	checkInstalled(t, crashed, state, want, []string{"a", "c000", "g"})
}

func FuzzImport(f *testing.F) {
	source := open(f, Config{})
	fill(f, source, userSpan("d", "f"), 20, "new", 20)
	for _, chunk := range export(f, source, transferred) {
		f.Add(chunk[:len(chunk)-crcLen])
	}
	state := export(f, source, transferred)[0]
	e := open(f, Config{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, chunks := range [][][]byte{{body}, {state, body}} {
			i, err := e.NewImport(transferred, 2)
			if err != nil {
				t.Fatal(err)
			}
			for n, chunk := range chunks {
				if n == len(chunks)-1 {
					chunk, _ = endChunk(bytes.Clone(chunk)) // the checksum is not what is tested
				}
				if err := i.Add(chunk); err != nil {
					if !errors.Is(err, shard.ErrMalformed) {
						t.Fatal(err)
					}
					break
				}
			}
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzChunk(f *testing.F) {
	sealed, _ := endChunk(append(beginChunk(nil, chunkData, 300), "payload"...))
	f.Add(sealed)
	f.Add(sealed[:3])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, _, _, err := decodeChunk(b); err != nil && !errors.Is(err, shard.ErrMalformed) {
			t.Fatal(err)
		}
	})
}

func TestExportEnds(t *testing.T) {
	e := open(t, Config{})
	fill(t, e, userSpan("d", "f"), 3, "v", 3)
	s := e.NewSnapshot()
	defer s.Close()
	x, err := s.Export(transferred)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	drain(t, x)
	if _, err := x.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last chunk: %v", err)
	}
}

// Sender and receiver agree on which snapshots are small.
func TestSmallIsAsTheReceiverFindsIt(t *testing.T) {
	seen := map[bool]bool{}
	for n := 700; n < 1100; n += 13 {
		e := open(t, Config{})
		fill(t, e, userSpan("d", "f"), n, "new", 230)
		s := e.NewSnapshot()
		small, err := s.Small(transferred)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		i := receive(t, open(t, Config{}), transferred, 2, export(t, e, transferred))
		if i.Small() != small {
			t.Errorf("%d records: small for the sender %v, for the receiver %v", n, small, i.Small())
		}
		seen[small] = true
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(seen) != 2 {
		t.Errorf("only one kind was seen: %v", seen)
	}
}
