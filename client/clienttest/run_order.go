package clienttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// spread is a key of the test's somewhere in the keyspace; all such keys end alike.
func (s *suite) spread(i, n int) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(i*65536/n)), s.prefix...)
}

func readsAtARevision(t *testing.T, s *suite) {
	key := s.key("a")
	before, err := s.Revision(s.ctx)
	if err != nil || before == 0 {
		t.Fatalf("revision %d, %v", before, err)
	}
	first := s.put(t, key, []byte("one"))
	second := s.put(t, key, []byte("two"))
	removed, err := s.Delete(s.ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Revision(s.ctx)
	if err != nil || before >= first || removed >= after {
		t.Errorf("drawn at %d, written at %d and %d, removed at %d, drawn at %d, %v", before, first, second, removed, after, err)
	}
	for _, anywhere := range []bool{false, true} {
		var opts []client.CallOption
		if anywhere {
			opts = append(opts, client.AnyReplica())
		}
		for _, c := range []struct {
			at, of shard.Revision
			value  string
		}{{before, 0, ""}, {first, first, "one"}, {second - 1, first, "one"}, {second, second, "two"}, {removed, 0, ""}, {after, 0, ""}} {
			kv, err := s.GetAt(s.ctx, key, c.at, opts...)
			if c.of == 0 && !errors.Is(err, client.ErrNotFound) || c.of != 0 && (err != nil || string(kv.Value) != c.value || kv.Revision != c.of) {
				t.Errorf("at %d: %q of %d, %v; want %q of %d", c.at, kv.Value, kv.Revision, err, c.value, c.of)
			}
			found, err := s.MultiGet(s.ctx, [][]byte{key, key}, append(opts, client.AtRevision(c.at))...)
			if err != nil || len(found) != 2 || found[0].Revision != c.of || string(found[1].Value) != c.value {
				t.Errorf("multi-get at %d: %+v, %v", c.at, found, err)
			}
		}
	}
	if _, err := s.GetAt(s.ctx, key, shard.MaxRevision); !errors.Is(err, shard.ErrFutureRevision) {
		t.Errorf("a revision of the future: %v", err)
	}
	var invalid *shard.InvalidError
	for _, r := range []shard.Revision{0, ^shard.Revision(0), shard.MaxRevision + 1} {
		if _, err := s.GetAt(s.ctx, key, r); !errors.As(err, &invalid) || invalid.Field != "revision" {
			t.Errorf("revision %d: %v", r, err)
		}
		if _, _, err := s.ScanPage(s.ctx, client.ScanOptions{Revision: r}); r != 0 && (!errors.As(err, &invalid) || invalid.Field != "revision") {
			t.Errorf("a scan at revision %d: %v", r, err)
		}
	}
	if _, err := s.Get(s.ctx, key, client.AnyReplica()); !errors.As(err, &invalid) {
		t.Errorf("any replica without a revision: %v", err)
	}
	if _, err := s.Put(s.ctx, key, nil, client.AtRevision(first)); !errors.As(err, &invalid) {
		t.Errorf("a put at a revision: %v", err)
	}
}

// snapshotScans: pairs of keys in different shards are written one after the other,
// again and again; no scan sees the second without the first.
func snapshotScans(t *testing.T, s *suite) {
	const pairs = 8
	left, right := make([][]byte, pairs), make([][]byte, pairs)
	for i := range pairs {
		left[i], right[i] = s.spread(i, 2*pairs), s.spread(pairs+i, 2*pairs)
		s.put(t, left[i], []byte{0, 0})
		s.put(t, right[i], []byte{0, 0})
	}
	var stop atomic.Bool
	var writers sync.WaitGroup
	for i := range pairs {
		writers.Go(func() {
			for n := uint16(1); n < 3000 && !stop.Load(); n++ {
				for _, key := range [][]byte{left[i], right[i]} {
					if _, err := s.Put(s.ctx, key, binary.BigEndian.AppendUint16(nil, n)); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	read := func(o client.ScanOptions) (values map[string]uint16, at shard.Revision) {
		values = map[string]uint16{}
		o.At = &at
		for kv, err := range s.Scan(s.ctx, o) {
			if err != nil {
				t.Fatal(err)
			}
			if bytes.HasSuffix(kv.Key, s.prefix) {
				values[string(kv.Key)] = binary.BigEndian.Uint16(kv.Value)
			}
			if kv.Revision > at {
				t.Errorf("a row of revision %d in a scan at %d", kv.Revision, at)
			}
		}
		return values, at
	}
	type seen struct {
		at     shard.Revision
		values map[string]uint16
	}
	var all []seen
	for n := range 6 {
		values, at := read(client.ScanOptions{PageRows: 100 + n%3*400, Reverse: n%2 == 0})
		if at == 0 || len(values) != 2*pairs {
			t.Fatalf("%d keys at revision %d", len(values), at)
		}
		for i := range pairs {
			l, r := values[string(left[i])], values[string(right[i])]
			if l != r && l != r+1 {
				t.Errorf("at %d the first of a pair is %d, the second %d", at, l, r)
			}
		}
		all = append(all, seen{at, values})
	}
	stop.Store(true)
	writers.Wait()
	// At a revision the same is read at any later time.
	for i, was := range all {
		values, at := read(client.ScanOptions{Revision: was.at, AnyReplica: i%2 == 0})
		if at != was.at || fmt.Sprint(values) != fmt.Sprint(was.values) {
			t.Errorf("at %d there was %v, and is %v", was.at, was.values, values)
		}
	}
	if _, _, err := s.ScanPage(s.ctx, client.ScanOptions{Revision: shard.MaxRevision}); !errors.Is(err, shard.ErrFutureRevision) {
		t.Errorf("a scan in the future: %v", err)
	}
	for i := range pairs {
		for _, key := range [][]byte{left[i], right[i]} {
			if _, err := s.Delete(s.ctx, key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func compareAndSwap(t *testing.T, s *suite) {
	key := s.key("a")
	swap := func(c client.Condition, value string, want bool, current string) client.SwapResult {
		t.Helper()
		res, err := s.CompareAndSwap(s.ctx, key, c, []byte(value))
		if err != nil || res.Swapped != want || (res.Revision != 0) != want || string(res.Current.Value) != current {
			t.Fatalf("%+v, %v; want %v, current %q", res, err, want, current)
		}
		return res
	}
	for _, c := range []client.Condition{client.IfValue(nil), client.IfValue([]byte("x")), client.IfRevision(1), client.IfPresent()} {
		if res := swap(c, "never", false, ""); res.Current.Revision != 0 {
			t.Errorf("a missing key has revision %d", res.Current.Revision)
		}
	}
	one := swap(client.IfAbsent(), "one", true, "")
	swap(client.IfAbsent(), "two", false, "one")
	swap(client.IfValue([]byte("two")), "three", false, "one")
	if res := swap(client.IfRevision(one.Revision+1), "three", false, "one"); res.Current.Revision != one.Revision || !bytes.Equal(res.Current.Key, key) {
		t.Errorf("%+v, written at %d", res, one.Revision)
	}
	two := swap(client.IfRevision(one.Revision), "two", true, "")
	swap(client.IfValue([]byte("two")), "", true, "")
	swap(client.IfValue(nil), "three", true, "")
	if kv, err := s.Get(s.ctx, key); err != nil || string(kv.Value) != "three" || kv.Revision <= two.Revision {
		t.Errorf("%+v, %v", kv, err)
	}
	if _, err := s.Delete(s.ctx, key); err != nil {
		t.Fatal(err)
	}
	swap(client.IfPresent(), "never", false, "")
	var invalid *shard.InvalidError
	for _, c := range []client.Condition{{}, client.IfRevision(0), client.IfRevision(shard.MaxRevision + 1)} {
		if _, err := s.CompareAndSwap(s.ctx, key, c, nil); !errors.As(err, &invalid) {
			t.Errorf("condition %+v: %v", c, err)
		}
	}
	// A counter: nothing is lost among those who compete.
	const callers, each = 8, 10
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for done := 0; done < each; {
				condition, n := client.IfAbsent(), uint64(0)
				if kv, err := s.Get(s.ctx, key); err == nil {
					condition, n = client.IfRevision(kv.Revision), binary.BigEndian.Uint64(kv.Value)
				} else if !errors.Is(err, client.ErrNotFound) {
					t.Error(err)
					return
				}
				res, err := s.CompareAndSwap(s.ctx, key, condition, binary.BigEndian.AppendUint64(nil, n+1))
				if err != nil {
					t.Error(err)
					return
				}
				if res.Swapped {
					done++
				}
			}
		})
	}
	wg.Wait()
	if kv, err := s.Get(s.ctx, key); err != nil || binary.BigEndian.Uint64(kv.Value) != callers*each {
		t.Errorf("%x, %v", kv.Value, err)
	}
}

func batches(t *testing.T, s *suite) {
	a, b, c := s.key("a"), s.key("b"), s.key("c")
	s.put(t, a, []byte("1"))
	s.put(t, c, []byte("3"))
	do := func(q client.BatchRequest) client.BatchResult {
		t.Helper()
		res, err := s.Batch(s.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	// Gets see what was before; all writes have one revision.
	res := do(client.BatchRequest{
		Compares: []client.Compare{{Key: a, If: client.IfValue([]byte("1"))}, {Key: b, If: client.IfAbsent()}},
		Then:     []client.BatchOp{client.PutOp(a, []byte("one")), client.PutOp(b, nil), client.DeleteOp(c)},
		Else:     []client.BatchOp{client.GetOp(a)},
	})
	if !res.Held || res.Revision == 0 || len(res.Results) != 3 {
		t.Fatalf("%+v", res)
	}
	for i, r := range res.Results {
		if r.Revision != res.Revision || !bytes.Equal(r.Key, [][]byte{a, b, c}[i]) {
			t.Errorf("result %d: %+v of %+v", i, r, res)
		}
	}
	second := do(client.BatchRequest{
		Compares: []client.Compare{{Key: c, If: client.IfPresent()}},
		Then:     []client.BatchOp{client.PutOp(a, []byte("never"))},
		Else:     []client.BatchOp{client.GetOp(a), client.GetOp(b), client.GetOp(c)},
	})
	if second.Held || second.Revision != 0 || len(second.Results) != 3 {
		t.Fatalf("%+v", second)
	}
	if r := second.Results; string(r[0].Value) != "one" || r[0].Revision != res.Revision || r[1].Revision != res.Revision || len(r[1].Value) != 0 || r[2].Revision != 0 {
		t.Errorf("%+v", r)
	}
	third := do(client.BatchRequest{Then: []client.BatchOp{client.GetOp(b), client.PutOp(a, []byte("2")), client.DeleteOp(c)}})
	if !third.Held || third.Revision <= res.Revision || third.Results[0].Revision != res.Revision || third.Results[1].Revision != third.Revision {
		t.Errorf("%+v", third)
	}
	// No else: nothing happens.
	none := do(client.BatchRequest{Compares: []client.Compare{{Key: a, If: client.IfAbsent()}}, Then: []client.BatchOp{client.DeleteOp(a)}})
	if none.Held || none.Revision != 0 || len(none.Results) != 0 {
		t.Errorf("%+v", none)
	}
	if kv, err := s.Get(s.ctx, a); err != nil || string(kv.Value) != "2" || kv.Revision != third.Revision {
		t.Errorf("%+v, %v", kv, err)
	}
}

func badBatches(t *testing.T, s *suite) {
	a := s.key("a")
	many := make([]client.BatchOp, 10_000)
	for i := range many {
		many[i] = client.PutOp(s.key("many", i), nil)
	}
	var invalid *shard.InvalidError
	for name, q := range map[string]client.BatchRequest{
		"empty":               {},
		"compares alone":      {Compares: []client.Compare{{Key: a, If: client.IfAbsent()}}},
		"a key twice":         {Then: []client.BatchOp{client.PutOp(a, nil), client.DeleteOp(a)}},
		"10,000 operations":   {Then: many},
		"no key":              {Then: []client.BatchOp{client.PutOp(nil, nil)}},
		"no condition":        {Compares: []client.Compare{{Key: a}}, Then: []client.BatchOp{client.PutOp(a, nil)}},
		"not an operation":    {Then: []client.BatchOp{{Kind: shard.KindScan, Key: a}}},
		"a value of too much": {Then: []client.BatchOp{client.PutOp(a, make([]byte, shard.ValueBytesMax+1))}},
	} {
		if _, err := s.Batch(s.ctx, q); !errors.As(err, &invalid) || errors.Is(err, shard.ErrUndetermined) {
			t.Errorf("%s: %v", name, err)
		}
	}
	first, last := append([]byte{0}, s.prefix...), append([]byte{0xff}, s.prefix...)
	_, err := s.Batch(s.ctx, client.BatchRequest{Then: []client.BatchOp{client.PutOp(first, nil), client.PutOp(last, nil)}})
	var op *client.OpError
	if err == nil {
		return // both lie in one shard
	}
	if !errors.Is(err, shard.ErrSpansShards) || errors.Is(err, shard.ErrUndetermined) || !errors.As(err, &op) || op.Op != "batch" {
		t.Errorf("a batch over the ends of the keyspace: %v", err)
	}
	for _, key := range [][]byte{a, first, last, s.key("many", 0)} {
		if _, err := s.Get(s.ctx, key); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("a refused batch has written %q: %v", key, err)
		}
	}
}

func deleteRange(t *testing.T, s *suite) {
	const n = 2500
	var pairs []client.KeyValue
	for i := range n {
		pairs = append(pairs, client.KeyValue{Key: s.key(fmt.Sprintf("%06d", i)), Value: []byte("v")})
	}
	if _, errs := s.MultiPut(s.ctx, pairs); errs != nil {
		t.Fatal(errs)
	}
	from, to := s.key(fmt.Sprintf("%06d", 10)), s.key(fmt.Sprintf("%06d", n-10))
	var steps []client.DeleteRangeResult
	res, err := s.DeleteRange(s.ctx, from, to, client.WithProgress(func(r client.DeleteRangeResult) { steps = append(steps, r) }))
	if err != nil || res.Deleted != n-20 || res.Revision == 0 || res.Next != nil {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(steps) < 3 {
		t.Errorf("%d steps", len(steps))
	}
	for i, step := range steps {
		if i > 0 && (step.Deleted < steps[i-1].Deleted || step.Revision < steps[i-1].Revision || step.Next != nil && bytes.Compare(step.Next, steps[i-1].Next) <= 0) {
			t.Errorf("steps %+v", steps)
		}
		if step.Deleted > steps[max(i-1, 0)].Deleted+shard.DeleteRangeMax {
			t.Errorf("a piece of more keys than allowed: %+v", steps)
		}
	}
	if left := count(t, s, client.ScanOptions{Start: s.prefix, End: s.end()}); left != 20 {
		t.Errorf("%d keys are left", left)
	}
	if again, err := s.DeleteRange(s.ctx, from, to); err != nil || again.Deleted != 0 || again.Revision != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	if empty, err := s.DeleteRange(s.ctx, from, from); err != nil || empty.Deleted != 0 {
		t.Errorf("an empty range: %+v, %v", empty, err)
	}
	var invalid *shard.InvalidError
	if res, err := s.DeleteRange(s.ctx, to, from); !errors.As(err, &invalid) || res.Deleted != 0 {
		t.Errorf("an inverted range: %+v, %v", res, err)
	}
	if _, err := s.DeleteRange(s.ctx, from, to, client.WithOperation(client.Operation{ID: shard.OpID{Session: 1}})); !errors.As(err, &invalid) {
		t.Errorf("a delete-range as an operation: %v", err)
	}
	if rest, err := s.DeleteRange(s.ctx, s.prefix, s.end()); err != nil || rest.Deleted != 20 {
		t.Errorf("the rest: %+v, %v", rest, err)
	}
}

// operations: one that is sent again with the same content gives the same outcome.
func operations(t *testing.T, s *suite) {
	op := func() client.CallOption {
		t.Helper()
		o, err := s.NewOperation(s.ctx)
		if err != nil || o.Birth == 0 || o.ID.Session == 0 {
			t.Fatalf("%+v, %v", o, err)
		}
		return client.WithOperation(o)
	}
	key := s.key("a")
	first := op()
	one, err := s.Put(s.ctx, key, []byte("one"), first)
	if err != nil {
		t.Fatal(err)
	}
	two := s.put(t, key, []byte("two"))
	if again, err := s.Put(s.ctx, key, []byte("one"), first); err != nil || again != one {
		t.Errorf("written at %d, and again at %d, %v", one, again, err)
	}
	if kv, err := s.Get(s.ctx, key); err != nil || kv.Revision != two {
		t.Errorf("%+v, %v", kv, err)
	}
	swap := op()
	res, err := s.CompareAndSwap(s.ctx, key, client.IfRevision(two), []byte("three"), swap)
	if err != nil || !res.Swapped {
		t.Fatalf("%+v, %v", res, err)
	}
	if again, err := s.CompareAndSwap(s.ctx, key, client.IfRevision(two), []byte("three"), swap); err != nil || !again.Swapped || again.Revision != res.Revision {
		t.Errorf("%+v, and again %+v, %v", res, again, err)
	}
	remove := op()
	removed, err := s.Delete(s.ctx, key, remove)
	if err != nil {
		t.Fatal(err)
	}
	s.put(t, key, []byte("four"))
	if again, err := s.Delete(s.ctx, key, remove); err != nil || again != removed {
		t.Errorf("removed at %d, and again at %d, %v", removed, again, err)
	}
	if kv, err := s.Get(s.ctx, key); err != nil || string(kv.Value) != "four" {
		t.Errorf("%+v, %v", kv, err)
	}
	var invalid *shard.InvalidError
	if _, err := s.Put(s.ctx, key, []byte("something else"), first); !errors.As(err, &invalid) || invalid.Field != "operation" {
		t.Errorf("an operation with other content: %v", err)
	}
	if _, err := s.Put(s.ctx, key, nil, client.WithOperation(client.Operation{})); !errors.As(err, &invalid) {
		t.Errorf("no operation: %v", err)
	}
	if kv, err := s.Get(s.ctx, key); err != nil || string(kv.Value) != "four" {
		t.Errorf("refused operations have written: %+v, %v", kv, err)
	}
}

// operationsThatDidNothing: what an operation was told once it is told for ever, that
// its condition did not hold too, and readers see nothing of that.
func operationsThatDidNothing(t *testing.T, s *suite) {
	operation := func() client.CallOption {
		t.Helper()
		o, err := s.NewOperation(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return client.WithOperation(o)
	}
	key, other := s.key("a"), s.key("b")
	one := s.put(t, key, []byte("one"))
	// The condition does not hold, and would hold later.
	swap, batch := operation(), operation()
	trySwap := func() {
		t.Helper()
		res, err := s.CompareAndSwap(s.ctx, key, client.IfValue([]byte("two")), []byte("never"), swap)
		if err != nil || res.Swapped || res.Revision != 0 || string(res.Current.Value) != "one" || res.Current.Revision != one {
			t.Errorf("the swap: %+v, %v", res, err)
		}
	}
	tryBatch := func() {
		t.Helper()
		res, err := s.Batch(s.ctx, client.BatchRequest{
			Compares: []client.Compare{{Key: key, If: client.IfValue([]byte("two"))}},
			Then:     []client.BatchOp{client.PutOp(other, []byte("never")), client.DeleteOp(key)},
			Else:     []client.BatchOp{client.GetOp(key), client.GetOp(other)},
		}, batch)
		if err != nil || res.Held || res.Revision != 0 || len(res.Results) != 2 || res.Results[0].Revision != one || res.Results[1].Revision != 0 {
			t.Errorf("the batch: %+v, %v", res, err)
		}
	}
	trySwap()
	tryBatch()
	seen, err := s.Revision(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	// To readers nothing has happened.
	for at, get := range map[string]func() (client.KeyValue, error){
		"now":           func() (client.KeyValue, error) { return s.Get(s.ctx, key) },
		"at a revision": func() (client.KeyValue, error) { return s.GetAt(s.ctx, key, seen) },
		"in a scan": func() (client.KeyValue, error) {
			return first(s.Scan(s.ctx, client.ScanOptions{Start: key, End: s.end()}))
		},
		"in reverse": func() (client.KeyValue, error) {
			return first(s.Scan(s.ctx, client.ScanOptions{Start: key, End: other, Reverse: true}))
		},
		"among many gets": func() (client.KeyValue, error) { kvs, err := s.MultiGet(s.ctx, [][]byte{key}); return kvs[0], err },
	} {
		if kv, err := get(); err != nil || string(kv.Value) != "one" || kv.Revision != one {
			t.Errorf("%s: %+v, %v; written at %d", at, kv, err, one)
		}
	}
	if left := count(t, s, client.ScanOptions{Start: s.prefix, End: s.end()}); left != 1 {
		t.Errorf("%d keys", left)
	}
	// Nor to a condition on the revision.
	res, err := s.CompareAndSwap(s.ctx, key, client.IfRevision(one), []byte("two"))
	if err != nil || !res.Swapped {
		t.Fatalf("%+v, %v", res, err)
	}
	// Now the conditions hold, and the operations were told that they do not.
	trySwap()
	tryBatch()
	if kv, err := s.Get(s.ctx, key); err != nil || string(kv.Value) != "two" || kv.Revision != res.Revision {
		t.Errorf("%+v, %v", kv, err)
	}
	if _, err := s.Get(s.ctx, other); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("%v", err)
	}
	// A condition that holds if there is nothing, and one that does not.
	missing, absent := s.key("c"), operation()
	tryAbsent := func() {
		t.Helper()
		if res, err := s.CompareAndSwap(s.ctx, missing, client.IfPresent(), []byte("never"), absent); err != nil || res.Swapped || res.Current.Revision != 0 {
			t.Errorf("%+v, %v", res, err)
		}
	}
	tryAbsent()
	if _, err := s.Get(s.ctx, missing); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("of a missing key: %v", err)
	}
	s.put(t, missing, []byte("c"))
	tryAbsent()
	var invalid *shard.InvalidError
	if _, err := s.Delete(s.ctx, missing, absent); !errors.As(err, &invalid) || invalid.Field != "operation" {
		t.Errorf("an operation that did nothing, used for a delete: %v", err)
	}
}

// first is the first row of a scan.
func first(rows func(yield func(client.KeyValue, error) bool)) (kv client.KeyValue, err error) {
	rows(func(row client.KeyValue, e error) bool {
		kv, err = row, e
		return false
	})
	return kv, err
}

// operationsOverShards: a chosen batch over several shards is refused as any other
// while it is certain that it was carried out by nobody before.
func operationsOverShards(t *testing.T, s *suite) {
	op, err := s.NewOperation(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	left, right := append([]byte{0}, s.prefix...), append([]byte{0xff}, s.prefix...)
	var lost *shard.OutcomeLostError
	for range 2 {
		_, err = s.Batch(s.ctx, client.BatchRequest{Then: []client.BatchOp{client.PutOp(left, nil), client.PutOp(right, nil)}}, client.WithOperation(op))
		switch {
		case err == nil:
			return // both lie in one shard
		case errors.As(err, &lost): // a shard that was split
		case !errors.Is(err, shard.ErrSpansShards) || errors.Is(err, shard.ErrUndetermined):
			t.Errorf("a chosen batch over two shards: %v", err)
		}
	}
	for _, key := range [][]byte{left, right} {
		if _, err := s.Get(s.ctx, key); !errors.Is(err, client.ErrNotFound) {
			t.Errorf("%x: %v", key, err)
		}
	}
}
