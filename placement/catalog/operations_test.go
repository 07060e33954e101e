package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

func (h *house) begin(op Operation) (got Operation, err error) {
	h.t.Helper()
	h.wait(func(done func()) { h.BeginOperation(op, func(o Operation, e error) { got, err = o, e; done() }) })
	return got, err
}

func (h *house) mayBegin(id shard.ID) (err error) {
	h.t.Helper()
	h.wait(func(done func()) { h.MayBeginOperation(id, func(e error) { err = e; done() }) })
	return err
}

func (h *house) end(id shard.ID, op uint64, state OperationState, reason string) (got Operation, err error) {
	h.t.Helper()
	h.wait(func(done func()) {
		h.EndOperation(id, op, state, reason, 1_700_000_001, func(o Operation, e error) { got, err = o, e; done() })
	})
	return got, err
}

func (h *house) operations() (ops []Operation) {
	h.t.Helper()
	h.wait(func(done func()) {
		h.ListOperations(func(got []Operation, err error) {
			if ops = got; err != nil {
				h.t.Error(err)
			}
			done()
		})
	})
	return ops
}

func TestOneOperationPerShardAtATime(t *testing.T) {
	h := newHouse(t)
	first, err := h.begin(Operation{Shard: 7, From: 1, To: 2, Began: 1_700_000_000})
	if err != nil || first.ID != 1 || first.State != OperationRunning {
		t.Fatalf("%+v, %v", first, err)
	}
	var invalid *shard.InvalidError
	_, err = h.begin(Operation{Shard: 7, To: 3})
	if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "operation 1") {
		t.Fatalf("a second operation: %v", err)
	}
	if may := h.mayBegin(7); may == nil || may.Error() != err.Error() {
		t.Fatalf("in earnest %v, in thought %v", err, may)
	}
	if may := h.mayBegin(8); may != nil || len(h.operations()) != 1 {
		t.Fatalf("another shard's: %v, %+v", may, h.operations())
	}
	other, err := h.begin(Operation{Shard: 8, To: 3})
	if err != nil || other.ID <= first.ID {
		t.Fatalf("on another shard: %+v, %v", other, err)
	}
	if got, err := h.end(7, 99, OperationDone, ""); err != nil || got.State != OperationRunning {
		t.Fatalf("ending what is not there: %+v, %v", got, err)
	}
	if got, err := h.end(7, first.ID, OperationFailed, "why"); err != nil || got.State != OperationFailed || got.Reason != "why" || got.Began != first.Began || got.Ended != first.Began+1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := h.end(7, first.ID, OperationCancelled, ""); err != nil || got.State != OperationFailed {
		t.Fatalf("what has ended stays: %+v, %v", got, err)
	}
	again, err := h.begin(Operation{Shard: 7, From: 2, To: 1})
	if err != nil || again.ID <= other.ID {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := h.operations(); len(got) != 2 || !same(got[0], again) || !same(got[1], other) {
		t.Fatalf("%+v", got)
	}
	if got, err := h.end(9, 1, OperationDone, ""); err != nil || got.ID != 0 {
		t.Fatalf("a shard without operations: %+v, %v", got, err)
	}
}

func TestOnlyWhatHasEndedIsForgotten(t *testing.T) {
	h := newHouse(t)
	forget := func(op Operation) (err error) {
		h.wait(func(done func()) { h.ForgetOperation(op, func(e error) { err = e; done() }) })
		return err
	}
	op, err := h.begin(Operation{Shard: 7, To: 2})
	if err != nil || forget(op) == nil {
		t.Fatalf("an operation under way was forgotten, %v", err)
	}
	ended, err := h.end(7, op.ID, OperationDone, "")
	if err != nil {
		t.Fatal(err)
	}
	next, err := h.begin(Operation{Shard: 7, To: 3})
	if err != nil || forget(ended) != nil {
		t.Fatal(err)
	}
	if got := h.operations(); len(got) != 1 || !same(got[0], next) {
		t.Fatalf("the next one was forgotten: %+v", got)
	}
	if ended, err = h.end(7, next.ID, OperationFailed, "why"); err != nil || forget(ended) != nil {
		t.Fatal(err)
	}
	if got := h.operations(); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
}

// One call begins one operation, also if its answer is lost and the operation is
// over by the time it asks again.
func TestALostAnswerBeginsNothingTwice(t *testing.T) {
	h := newHouse(t)
	lose := true
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if cmd.Kind == shard.KindCompareAndPut && lose {
			lose = false
			return shard.ErrUndetermined, true
		}
		return nil, true
	}
	ended := false
	h.kv.Meanwhile = func(cmd *shard.Command) {
		if lose || ended || cmd.Kind != shard.KindGet {
			return
		}
		ended = true
		op, err := decodeOperation(h.kv.Get(operationKey(7)))
		if err != nil {
			t.Fatal(err)
		}
		op.State = OperationDone
		h.kv.Put(operationKey(7), op.encode())
	}
	got, err := h.begin(Operation{Shard: 7, To: 2})
	if err != nil || !ended || got.ID != 1 || got.State != OperationDone {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestNodeStates(t *testing.T) {
	h := newHouse(t)
	set := func(id shard.NodeID, to shard.NodeState) (n router.Node, err error) {
		h.wait(func(done func()) {
			h.SetNodeState(id, to, 5, func(got router.Node, e error) { n, err = got, e; done() })
		})
		return n, err
	}
	ask := func(id shard.NodeID, to shard.NodeState) (n router.Node, err error) {
		h.wait(func(done func()) {
			h.MaySetNodeState(id, to, func(got router.Node, e error) { n, err = got, e; done() })
		})
		return n, err
	}
	var invalid *shard.InvalidError
	if _, err := set(2, shard.Draining); !errors.As(err, &invalid) {
		t.Fatalf("a node that is not there: %v", err)
	}
	if _, err := ask(2, shard.Draining); !errors.As(err, &invalid) {
		t.Fatalf("asked of a node that is not there: %v", err)
	}
	node := router.Node{ID: 2, Address: "b:1", Incarnation: 3, StartNonce: 7, Version: "v"}
	if err := h.register(node); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		to, is shard.NodeState
		refuse bool
	}{
		{shard.Removed, shard.Serving, true},
		{shard.Draining, shard.Draining, false},
		{shard.Draining, shard.Draining, false},
		{shard.Serving, shard.Serving, false},
		{shard.Leaving, shard.Leaving, false},
		{shard.Draining, shard.Leaving, true},
		{shard.Serving, shard.Serving, false},
		{shard.Leaving, shard.Leaving, false},
		{shard.Removed, shard.Removed, false},
		{shard.Serving, shard.Removed, true},
		{shard.Removed, shard.Removed, false},
	} {
		before, _ := router.DecodeNode(h.kv.Get(router.NodeKey(2)))
		may, mayErr := ask(2, c.to)
		if unchanged, _ := router.DecodeNode(h.kv.Get(router.NodeKey(2))); unchanged != before || may != before {
			t.Fatalf("step %d: asked whether it may be, %+v became %+v, and %+v is answered", i, before, unchanged, may)
		}
		n, err := set(2, c.to)
		if (err == nil) != (mayErr == nil) || err != nil && err.Error() != mayErr.Error() {
			t.Errorf("step %d: in earnest %v, in thought %v", i, err, mayErr)
		}
		after, _ := router.DecodeNode(h.kv.Get(router.NodeKey(2)))
		if errors.As(err, &invalid) != c.refuse || err != nil && !c.refuse || after.State != c.is {
			t.Fatalf("step %d: %+v, %v", i, after, err)
		}
		if err == nil && n != after {
			t.Errorf("step %d: %+v is answered, %+v recorded", i, n, after)
		}
		switch {
		case after.State == before.State && after != before:
			t.Errorf("step %d: %+v became %+v", i, before, after)
		case before.State == shard.Draining && after.State == shard.Serving && (after.Operation != 0 || after.Since != 0):
			t.Errorf("step %d: %+v", i, after)
		case before.State == shard.Leaving && after.State == shard.Serving && (after.Operation != before.Operation || after.Since != before.Since):
			t.Errorf("step %d: %+v is forgotten, which was cancelled: %+v", i, before, after)
		case after.State != shard.Serving && after.State != before.State && after.State != shard.Removed && after.Operation <= before.Operation:
			t.Errorf("step %d: %+v has the operation of %+v", i, after, before)
		case (after.Ended != 0) != (after.Operation != 0 && (after.State == shard.Serving || after.State == shard.Removed)):
			t.Errorf("step %d: the end of %+v is not recorded, or one that is none", i, after)
		case after.State == shard.Removed && after.Operation == 0:
			t.Errorf("step %d: %+v", i, after)
		}
		if after.Address != node.Address || after.Incarnation != 3 || after.StartNonce != 7 {
			t.Errorf("step %d: %+v", i, after)
		}
	}
}

// A start ends draining, and nothing else.
func TestAStartAndANodesState(t *testing.T) {
	for was, want := range map[shard.NodeState]shard.NodeState{shard.Serving: shard.Serving, shard.Draining: shard.Serving, shard.Leaving: shard.Leaving, shard.Removed: shard.Removed} {
		h := newHouse(t)
		old := router.Node{ID: 2, Incarnation: 3, StartNonce: 7, State: was, Operation: 9, Since: 10, Ended: 11}
		h.kv.Put(router.NodeKey(2), router.AppendNode(nil, &old))
		err := h.register(router.Node{ID: 2, Incarnation: 4, StartNonce: 8})
		got, decodeErr := router.DecodeNode(h.kv.Get(router.NodeKey(2)))
		if errors.Is(err, ErrRemoved) != (was == shard.Removed) || err != nil && was != shard.Removed || decodeErr != nil || got.State != want {
			t.Errorf("%v: %+v, %v", was, got, err)
		}
		if (was == shard.Leaving || was == shard.Serving) && (got.Operation != 9 || got.Since != 10 || got.Ended != 11) {
			t.Errorf("%+v", got)
		}
		if was == shard.Draining && got.Operation != 0 {
			t.Errorf("%+v", got)
		}
	}
}

func same(a, b Operation) bool { return reflect.DeepEqual(a, b) }

func sampleOperations() []Operation {
	return []Operation{
		{ID: 1, Shard: 2, To: 3, State: OperationRunning},
		{ID: 300, Shard: 400, From: 1, To: 200, State: OperationFailed, Reason: "node 200 is dead", Began: 1_700_000_000},
		{ID: 301, Shard: 401, From: 1, State: OperationDone, Began: 1_700_000_000, Ended: 1_700_000_009},
		{ID: 302, Shard: 402, Nodes: []shard.NodeID{4, 1, 300}, State: OperationRunning, Began: 1_700_000_000},
		{ID: 303, Shard: 403, Nodes: []shard.NodeID{5}, State: OperationFailed, Reason: "node 5 is dead", Began: 1_700_000_000, Ended: 1_700_000_009},
	}
}

// These bytes rest on disk.
func TestOperationBytes(t *testing.T) {
	var b bytes.Buffer
	for _, op := range sampleOperations() {
		fmt.Fprintf(&b, "%x\n  %x\n", operationKey(op.Shard), op.encode())
	}
	const path = "testdata/operations.golden"
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

func FuzzDecodeOperation(f *testing.F) {
	for _, op := range sampleOperations() {
		f.Add(op.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		op, err := decodeOperation(b)
		if err != nil {
			if !errors.Is(err, shard.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if again, err := decodeOperation(op.encode()); err != nil || !same(again, op) {
			t.Fatalf("%+v became %+v, %v", op, again, err)
		}
	})
}

func TestALongReasonIsCutToWholeLetters(t *testing.T) {
	op := Operation{ID: 1, Shard: 1, State: OperationFailed, Reason: strings.Repeat("x", operationReasonMax-1) + "é"}
	got, err := decodeOperation(op.encode())
	if err != nil || got.Reason != op.Reason[:operationReasonMax-1] {
		t.Fatalf("%d bytes, %v", len(got.Reason), err)
	}
}
