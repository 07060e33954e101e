package clienttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Run runs the suite: what a client promises of any cluster with more than one
// shard. open makes a client, of a cluster that may hold other keys than those
// that begin with the names of the suite's tests; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) *client.Client) {
	tests := []struct {
		name string
		run  func(t *testing.T, s *suite)
	}{
		{"PutGetDelete", putGetDelete},
		{"KeysOfEveryByte", keysOfEveryByte},
		{"Limits", limits},
		{"Scan", scan},
		{"ScanPages", scanPages},
		{"ScanLargeRows", scanLargeRows},
		{"Multi", multi},
		{"ManyCallers", manyCallers},
		{"ReadsAtARevision", readsAtARevision},
		{"SnapshotScans", snapshotScans},
		{"CompareAndSwap", compareAndSwap},
		{"Batches", batches},
		{"BadBatches", badBatches},
		{"DeleteRange", deleteRange},
		{"Operations", operations},
		{"OperationsThatDidNothing", operationsThatDidNothing},
		{"OperationsOverShards", operationsOverShards},
		{"EndedContexts", endedContexts},
		{"Closed", closed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := open(t)
			defer func() {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			test.run(t, &suite{Client: c, ctx: ctx, prefix: []byte(test.name + "/")})
		})
	}
}

type suite struct {
	*client.Client
	ctx    context.Context
	prefix []byte
}

func (s *suite) key(parts ...any) []byte {
	return append(bytes.Clone(s.prefix), fmt.Sprint(parts...)...)
}

// end is the first key after all of the test's.
func (s *suite) end() []byte {
	end := bytes.Clone(s.prefix)
	end[len(end)-1]++
	return end
}

func (s *suite) put(t *testing.T, key, value []byte) shard.Revision {
	t.Helper()
	rev, err := s.Put(s.ctx, key, value)
	if err != nil || rev == 0 {
		t.Fatalf("put: revision %d, %v", rev, err)
	}
	return rev
}

func putGetDelete(t *testing.T, s *suite) {
	key := s.key("a")
	if _, err := s.Delete(s.ctx, key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(s.ctx, key); !errors.Is(err, client.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	first := s.put(t, key, []byte("one"))
	second := s.put(t, key, []byte("two"))
	if second <= first {
		t.Errorf("revision %d after %d", second, first)
	}
	kv, err := s.Get(s.ctx, key)
	if err != nil || string(kv.Value) != "two" || kv.Revision != second || !bytes.Equal(kv.Key, key) {
		t.Fatalf("%+v, %v", kv, err)
	}
	s.put(t, key, nil)
	if kv, err := s.Get(s.ctx, key); err != nil || len(kv.Value) != 0 {
		t.Errorf("an empty value: %+v, %v", kv, err)
	}
	removed, err := s.Delete(s.ctx, key)
	if err != nil || removed <= second {
		t.Errorf("delete: revision %d, %v", removed, err)
	}
	_, err = s.Get(s.ctx, key)
	var op *client.OpError
	if !errors.Is(err, client.ErrNotFound) || !errors.As(err, &op) || op.Op != "get" || !bytes.Equal(op.Key, key) {
		t.Errorf("get after delete: %v", err)
	}
}

func keysOfEveryByte(t *testing.T, s *suite) {
	for b := range 256 {
		key := append(s.key(), byte(b), 0, byte(b))
		s.put(t, key, key)
	}
	i := 0
	for kv, err := range s.Scan(s.ctx, client.ScanOptions{Start: s.prefix, End: s.end()}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := append(s.key(), byte(i), 0, byte(i)); !bytes.Equal(kv.Key, want) || !bytes.Equal(kv.Value, want) {
			t.Fatalf("row %d: %q = %q", i, kv.Key, kv.Value)
		}
		i++
	}
	if i != 256 {
		t.Errorf("%d rows", i)
	}
}

func limits(t *testing.T, s *suite) {
	longest := append(s.key(), bytes.Repeat([]byte("k"), shard.KeyBytesMax-len(s.prefix))...)
	largest := bytes.Repeat([]byte("v"), shard.ValueBytesMax)
	s.put(t, longest, largest)
	if kv, err := s.Get(s.ctx, longest); err != nil || !bytes.Equal(kv.Value, largest) {
		t.Fatalf("%d bytes, %v", len(kv.Value), err)
	}
	if n := count(t, s, client.ScanOptions{Start: longest, End: append(bytes.Clone(longest), 0)}); n != 1 {
		t.Errorf("a scan of the longest key has %d rows", n)
	}
	if _, err := s.Delete(s.ctx, longest); err != nil {
		t.Fatal(err)
	}
	var invalid *shard.InvalidError
	refused := func(err error, text string) {
		t.Helper()
		if !errors.As(err, &invalid) || errors.Is(err, shard.ErrUndetermined) || err.Error() != text {
			t.Errorf("error %q, want %q", err, text)
		}
	}
	_, err := s.Put(s.ctx, nil, nil)
	refused(err, `put "": key is empty; a key has at least 1 byte`)
	_, err = s.Get(s.ctx, []byte{})
	refused(err, `get "": key is empty; a key has at least 1 byte`)
	_, err = s.Delete(s.ctx, append(bytes.Clone(longest), 'k'))
	if !errors.As(err, &invalid) {
		t.Errorf("delete of a key that is too long: %v", err)
	}
	_, err = s.Put(s.ctx, s.key("a\n\\"), append(largest, 'v'))
	refused(err, `put "Limits/a\x0a\\": value has 4,194,305 bytes, the limit is 4,194,304`)
	_, _, err = s.ScanPage(s.ctx, client.ScanOptions{Start: s.key("b"), End: s.key("a")})
	refused(err, `scan "Limits/b": range is inverted: it ends at "Limits/a", before it starts`)
}

func count(t *testing.T, s *suite, o client.ScanOptions) int {
	t.Helper()
	n := 0
	for _, err := range s.Scan(s.ctx, o) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// fill writes n keys that spread over the whole keyspace if spread, and returns
// them in order.
func (s *suite) fill(t *testing.T, n int, value []byte) (keys [][]byte) {
	t.Helper()
	var pairs []client.KeyValue
	for i := range n {
		keys = append(keys, s.key(fmt.Sprintf("%06d", i)))
		pairs = append(pairs, client.KeyValue{Key: keys[i], Value: value})
	}
	if _, errs := s.MultiPut(s.ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	return keys
}

func scan(t *testing.T, s *suite) {
	// Keys all over the keyspace, so that every scan crosses shards.
	var keys [][]byte
	for i := range 300 {
		key := binary.BigEndian.AppendUint16(nil, uint16(i*218))
		key = append(key, s.prefix...)
		keys = append(keys, key)
		s.put(t, key, key)
	}
	mine := func(kv client.KeyValue) bool { return bytes.HasSuffix(kv.Key, s.prefix) }
	for _, reverse := range []bool{false, true} {
		for _, keysOnly := range []bool{false, true} {
			for _, pageRows := range []int{0, 1, 7} {
				want := slices.Clone(keys)
				if reverse {
					slices.Reverse(want)
				}
				i := 0
				for kv, err := range s.Scan(s.ctx, client.ScanOptions{Reverse: reverse, KeysOnly: keysOnly, PageRows: pageRows}) {
					if err != nil {
						t.Fatal(err)
					}
					if !mine(kv) {
						continue
					}
					if i == len(want) || !bytes.Equal(kv.Key, want[i]) || kv.Revision == 0 {
						t.Fatalf("row %d is %q at %d", i, kv.Key, kv.Revision)
					}
					if wantValue := want[i]; keysOnly && len(kv.Value) != 0 || !keysOnly && !bytes.Equal(kv.Value, wantValue) {
						t.Fatalf("row %d, keys only %v: value %q", i, keysOnly, kv.Value)
					}
					i++
				}
				if i != len(want) {
					t.Fatalf("reverse %v, pages of %d: %d rows of %d", reverse, pageRows, i, len(want))
				}
			}
		}
	}
	// Bounds: the start is included, the end is not; a scan may be left early.
	for _, reverse := range []bool{false, true} {
		var got [][]byte
		for kv, err := range s.Scan(s.ctx, client.ScanOptions{Start: keys[20], End: keys[200], Reverse: reverse}) {
			if err != nil {
				t.Fatal(err)
			}
			if mine(kv) {
				got = append(got, kv.Key)
			}
		}
		if reverse {
			slices.Reverse(got)
		}
		if len(got) != 180 || !bytes.Equal(got[0], keys[20]) || !bytes.Equal(got[179], keys[199]) {
			t.Fatalf("reverse %v: %d rows", reverse, len(got))
		}
		for range s.Scan(s.ctx, client.ScanOptions{Reverse: reverse, PageRows: 2}) {
			break
		}
	}
	if n := count(t, s, client.ScanOptions{Start: keys[5], End: keys[5]}); n != 0 {
		t.Errorf("%d rows in an empty range", n)
	}
	for _, key := range keys {
		if _, err := s.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

func scanPages(t *testing.T, s *suite) {
	keys := s.fill(t, 500, []byte("v"))
	for _, reverse := range []bool{false, true} {
		for _, limit := range []int{1, 2, 10, 499, 500, 501} {
			for _, pageRows := range []int{0, 1, 3, 100} {
				if limit > 10 && pageRows == 1 {
					continue
				}
				o := client.ScanOptions{Start: s.prefix, End: s.end(), Limit: limit, PageRows: pageRows, Reverse: reverse}
				if n := count(t, s, o); n != min(limit, 500) {
					t.Errorf("reverse %v, limit %d, pages of %d: %d rows", reverse, limit, pageRows, n)
				}
			}
		}
		// Page by page, by hand.
		o := client.ScanOptions{Start: s.prefix, End: s.end(), PageRows: 7, Reverse: reverse}
		var got [][]byte
		for {
			rows, resume, err := s.ScanPage(s.ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) > 7 || len(rows) < 7 && resume != nil {
				t.Fatalf("a page of %d rows, resumed at %q", len(rows), resume)
			}
			for _, kv := range rows {
				got = append(got, kv.Key)
			}
			if resume == nil {
				break
			}
			if reverse {
				o.End = resume
			} else {
				o.Start = resume
			}
		}
		if reverse {
			slices.Reverse(got)
		}
		if !slices.EqualFunc(got, keys, bytes.Equal) {
			t.Errorf("reverse %v: pages hold %d rows", reverse, len(got))
		}
	}
	rows, resume, err := s.ScanPage(s.ctx, client.ScanOptions{Start: s.prefix, End: s.end(), Limit: 3})
	if err != nil || len(rows) != 3 || resume == nil {
		t.Errorf("a page of a limit: %d rows, resume %q, %v", len(rows), resume, err)
	}
}

// scanLargeRows: pages are bounded by bytes too, and nothing is lost between them.
func scanLargeRows(t *testing.T, s *suite) {
	value := bytes.Repeat([]byte("v"), 300<<10)
	keys := s.fill(t, 40, value)
	for _, reverse := range []bool{false, true} {
		o := client.ScanOptions{Start: s.prefix, End: s.end(), Reverse: reverse}
		if n := count(t, s, o); n != len(keys) {
			t.Errorf("reverse %v: %d rows", reverse, n)
		}
		o.KeysOnly = true
		if n := count(t, s, o); n != len(keys) {
			t.Errorf("reverse %v: %d keys", reverse, n)
		}
	}
	for _, key := range keys {
		if _, err := s.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

func multi(t *testing.T, s *suite) {
	const n = 5000
	var pairs []client.KeyValue
	var keys [][]byte
	for i := range n {
		key := append(binary.BigEndian.AppendUint16(nil, uint16(i*13)), s.key(i)...)
		keys = append(keys, key)
		pairs = append(pairs, client.KeyValue{Key: key, Value: []byte(fmt.Sprint(i))})
	}
	revisions, errs := s.MultiPut(s.ctx, pairs)
	if errs != nil || len(revisions) != n {
		t.Fatalf("%d revisions, %v", len(revisions), errs)
	}
	keys[77] = s.key("nothing")
	found, err := s.MultiGet(s.ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, kv := range found {
		switch {
		case !bytes.Equal(kv.Key, keys[i]):
			t.Fatalf("key %d is %q", i, kv.Key)
		case i == 77 && (kv.Revision != 0 || kv.Value != nil):
			t.Errorf("something in place of nothing: %+v", kv)
		case i != 77 && (kv.Revision != revisions[i] || string(kv.Value) != fmt.Sprint(i)):
			t.Fatalf("%d: %q at %d, written at %d", i, kv.Value, kv.Revision, revisions[i])
		}
	}
	revisions, errs = s.MultiPut(s.ctx, []client.KeyValue{{Key: s.key("good")}, {}, {Key: s.key("fine")}})
	var invalid *shard.InvalidError
	if len(errs) != 3 || errs[0] != nil || !errors.As(errs[1], &invalid) || errs[2] != nil || revisions[0] == 0 || revisions[2] == 0 {
		t.Errorf("a pair without a key among others: %v, %v", revisions, errs)
	}
	if revisions, errs := s.MultiPut(s.ctx, pairs[:3], client.WithRetries(1)); errs != nil || revisions[2] == 0 {
		t.Errorf("with an option: %v, %v", revisions, errs)
	}
	if revisions, errs := s.MultiPut(s.ctx, pairs[:2], client.AtRevision(1)); len(errs) != 2 || !errors.As(errs[0], &invalid) || !errors.As(errs[1], &invalid) || revisions[0] != 0 {
		t.Errorf("with an option of reads: %v, %v", revisions, errs)
	}
	if _, err := s.MultiGet(s.ctx, [][]byte{s.key("good"), {}}); !errors.As(err, &invalid) {
		t.Errorf("a get without a key: %v", err)
	}
	if found, err := s.MultiGet(s.ctx, nil); err != nil || len(found) != 0 {
		t.Errorf("no keys: %v, %v", found, err)
	}
}

// manyCallers: each sees its own writes.
func manyCallers(t *testing.T, s *suite) {
	var wg sync.WaitGroup
	for caller := range 64 {
		wg.Go(func() {
			key := append([]byte{byte(caller * 4)}, s.key(caller)...)
			var last shard.Revision
			for i := range 30 {
				value := fmt.Sprint(caller, " ", i)
				rev, err := s.Put(s.ctx, key, []byte(value))
				if err != nil || rev <= last {
					t.Errorf("revision %d after %d, %v", rev, last, err)
					return
				}
				last = rev
				kv, err := s.Get(s.ctx, key)
				if err != nil || string(kv.Value) != value || kv.Revision != rev {
					t.Errorf("%q at %d, want %q at %d, %v", kv.Value, kv.Revision, value, rev, err)
					return
				}
			}
			if _, err := s.Delete(s.ctx, key); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func endedContexts(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	key := s.key("a")
	if _, err := s.Put(ctx, key, nil); !errors.Is(err, context.Canceled) || errors.Is(err, shard.ErrUndetermined) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Get(ctx, key); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := s.ScanPage(ctx, client.ScanOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("scan: %v", err)
	}
	if _, errs := s.MultiPut(ctx, []client.KeyValue{{Key: key}}); len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("multi-put: %v", errs)
	}
	// Contexts that end under way: whatever an error says must be so.
	for i := range 50 {
		key := s.key("b", i)
		ctx, cancel := context.WithCancel(s.ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); cancel() }()
		rev, err := s.Put(ctx, key, []byte("v"))
		<-ended
		kv, getErr := s.Get(s.ctx, key)
		switch {
		case err == nil && (getErr != nil || kv.Revision != rev):
			t.Errorf("an acknowledged put is not there: %+v, %v", kv, getErr)
		case err != nil && !errors.Is(err, context.Canceled):
			t.Errorf("put: %v", err)
		case err != nil && !errors.Is(err, shard.ErrUndetermined) && getErr == nil:
			t.Errorf("a put that did not take effect is there, it said %v", err)
		}
		if _, err := s.Delete(s.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

func closed(t *testing.T, s *suite) {
	key := s.key("a")
	s.put(t, key, nil)
	if s.Cluster().IsZero() {
		t.Error("no cluster")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(s.ctx, key); !errors.Is(err, client.ErrClosed) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Put(s.ctx, key, nil); !errors.Is(err, client.ErrClosed) || errors.Is(err, shard.ErrUndetermined) {
		t.Errorf("put: %v", err)
	}
	for _, err := range s.Scan(s.ctx, client.ScanOptions{}) {
		if !errors.Is(err, client.ErrClosed) {
			t.Errorf("scan: %v", err)
		}
	}
}
