package shard

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func drawBytes(t *rapid.T, name string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, name)
}

func drawRevision(t *rapid.T, name string) Revision {
	return Revision(rapid.Uint64Range(0, uint64(MaxRevision)).Draw(t, name))
}

// drawCommand sets the fields that its kind carries, and no others.
func drawCommand(t *rapid.T) Command {
	c := Command{
		Kind:  Kind(rapid.IntRange(int(KindPut), int(KindSplit)).Draw(t, "kind")),
		Retry: rapid.Bool().Draw(t, "retry"),
		Op:    OpID{Session(rapid.Uint64().Draw(t, "session")), rapid.Uint64().Draw(t, "sequence")},
		Birth: drawRevision(t, "birth"),
	}
	switch c.Kind {
	case KindPut:
		c.Key, c.Value = drawBytes(t, "key"), drawBytes(t, "value")
	case KindDelete:
		c.Key = drawBytes(t, "key")
	case KindIncrement:
		c.Key, c.Delta = drawBytes(t, "key"), rapid.Uint64().Draw(t, "delta")
	case KindCompareAndPut:
		c.Key, c.Expect, c.Value = drawBytes(t, "key"), drawBytes(t, "expect"), drawBytes(t, "value")
		c.ExpectAbsent, c.Remove = rapid.Bool().Draw(t, "absent"), rapid.Bool().Draw(t, "remove")
	case KindGet:
		c.Key, c.Revision = drawBytes(t, "key"), drawRevision(t, "revision")
	case KindScan:
		c.Start, c.End = drawBytes(t, "start"), drawBytes(t, "end")
		c.Limit, c.Bytes, c.Revision = rapid.Uint64().Draw(t, "limit"), rapid.Uint64().Draw(t, "bytes"), drawRevision(t, "revision")
		c.Reverse, c.KeysOnly = rapid.Bool().Draw(t, "reverse"), rapid.Bool().Draw(t, "keys only")
		c.AnyReplica = rapid.Bool().Draw(t, "any replica")
	case KindDeleteRange:
		c.Start, c.End, c.Limit = drawBytes(t, "start"), drawBytes(t, "end"), rapid.Uint64().Draw(t, "limit")
	case KindDraw:
		c.Limit, c.Voter = rapid.Uint64().Draw(t, "limit"), ReplicaID(rapid.Uint64().Draw(t, "voter"))
	case KindFloor:
		c.Revision = drawRevision(t, "revision")
	case KindVerify:
		c.Digested, c.Applied, c.Value = rapid.Uint64().Draw(t, "digested"), rapid.Uint64().Draw(t, "applied"), drawBytes(t, "value")
	case KindSplit:
		c.Key, c.ConfVersion, c.Right = drawBytes(t, "key"), rapid.Uint64().Draw(t, "conf version"), ID(rapid.Uint64().Draw(t, "right"))
		c.RightKeys, c.RightBytes = rapid.Uint64().Draw(t, "keys"), rapid.Uint64().Draw(t, "bytes")
	case KindBatch:
		drawBatch(t, &c)
	}
	return c
}

func drawBatch(t *rapid.T, c *Command) {
	for range rapid.IntRange(0, 3).Draw(t, "compares") {
		x := Compare{Kind: CompareKind(rapid.IntRange(int(CompareValue), int(ComparePresent)).Draw(t, "compare")), Key: drawBytes(t, "key")}
		switch x.Kind {
		case CompareValue:
			x.Value = drawBytes(t, "value")
		case CompareRevision:
			x.Revision = drawRevision(t, "revision")
		}
		c.Compares = append(c.Compares, x)
	}
	for _, ops := range []*[]BatchOp{&c.Then, &c.Else} {
		for range rapid.IntRange(0, 3).Draw(t, "operations") {
			o := BatchOp{Kind: rapid.SampledFrom([]Kind{KindPut, KindDelete, KindGet}).Draw(t, "operation"), Key: drawBytes(t, "key")}
			if o.Kind == KindPut {
				o.Value = drawBytes(t, "value")
			}
			*ops = append(*ops, o)
		}
	}
}

func TestCommandsAndRequestsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var commands []Command
		var sent []Request
		frame := BeginRequests(nil)
		for range rapid.IntRange(0, 5).Draw(t, "requests") {
			c := drawCommand(t)
			q := Request{ID: rapid.Uint64().Draw(t, "id"), Command: AppendCommand(nil, &c), Target: Target{
				Shard: ID(rapid.Uint64().Draw(t, "shard")), Version: rapid.Uint64().Draw(t, "version"),
				Replica: ReplicaID(rapid.Uint64().Draw(t, "replica")), Term: rapid.Uint64().Draw(t, "term")}}
			commands, sent = append(commands, c), append(sent, q)
			frame = AppendRequest(frame, &q)
		}
		i := 0
		if err := DecodeRequests(frame, func(q Request) {
			if q.ID != sent[i].ID || q.Target != sent[i].Target || !bytes.Equal(q.Command, sent[i].Command) {
				t.Fatalf("request %+v became %+v", sent[i], q)
			}
			var c Command
			if err := DecodeCommand(q.Command, &c); err != nil || !sameCommand(&c, &commands[i]) {
				t.Fatalf("command %+v became %+v, %v", commands[i], c, err)
			}
			i++
		}); err != nil || i != len(sent) {
			t.Fatalf("%d of %d requests, %v", i, len(sent), err)
		}
	})
}

// A frame that is cut anywhere gives the requests before the cut and, unless the
// cut is between two of them, an error.
func TestCutFramesAreRefused(t *testing.T) {
	frame := BeginRequests(nil)
	whole := map[int]int{len(frame): 0}
	for i, s := range sampleCommands() {
		frame = AppendRequest(frame, &Request{ID: uint64(i), Target: Target{1, 1, 1, 1}, Command: AppendCommand(nil, &s.c)})
		whole[len(frame)] = i + 1
	}
	for cut := range len(frame) + 1 {
		n := 0
		err := DecodeRequests(frame[:cut], func(Request) { n++ })
		want, ok := whole[cut]
		if ok != (err == nil) || ok && n != want {
			t.Errorf("cut at %d: %d requests, %v", cut, n, err)
		}
	}
}

func TestDescriptorsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Descriptor{ID: ID(rapid.Uint64().Draw(t, "id")),
			Epoch: Epoch{rapid.Uint64().Draw(t, "version"), rapid.Uint64().Draw(t, "conf version")}}
		d.Span.Start = append([]byte{UserKeyspace}, drawBytes(t, "start")...)
		d.Span.End = append(bytes.Clone(d.Span.Start), byte(rapid.IntRange(0, 255).Draw(t, "end")))
		next := ReplicaID(1)
		for range rapid.IntRange(0, maxReplicas).Draw(t, "replicas") {
			next += ReplicaID(rapid.IntRange(0, 200).Draw(t, "gap"))
			d.Replicas = append(d.Replicas, Replica{ID: next, Node: NodeID(rapid.Uint64().Draw(t, "node")), Role: Role(rapid.IntRange(int(Voter), int(Outgoing)).Draw(t, "role"))})
			next++
		}
		d.NextReplica = next
		b := AppendDescriptor(nil, &d)
		got, err := DecodeDescriptor(b)
		if err != nil || !sameDescriptor(&d, &got) {
			t.Fatalf("%+v became %+v, %v", d, got, err)
		}
		clear(b) // the result shares no memory with its source
		if !sameDescriptor(&d, &got) {
			t.Fatal("the descriptor changed with the bytes that it was read from")
		}
		c := d.Clone()
		c.Span.Start[0], c.Replicas = 9, append(c.Replicas[:0], Replica{})
		if !sameDescriptor(&d, &got) {
			t.Fatal("the descriptor changed with its clone")
		}
	})
}

func TestResponsesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Response{ID: rapid.Uint64().Draw(t, "id")}
		if rapid.Bool().Draw(t, "failed") {
			p.Err = rapid.SampledFrom(sampleErrors()[1:]).Draw(t, "error").err
		} else {
			p.Result = Result{Revision: drawRevision(t, "revision"), Found: rapid.Bool().Draw(t, "found"), Value: drawBytes(t, "value"), Count: rapid.Uint64().Draw(t, "count")}
			for range rapid.IntRange(0, 4).Draw(t, "rows") {
				p.Result.Rows = append(p.Result.Rows, Row{Key: drawBytes(t, "key"), Value: drawBytes(t, "row value"), Revision: drawRevision(t, "row revision")})
			}
			if rapid.Bool().Draw(t, "more") {
				p.Result.Resume = append([]byte{}, drawBytes(t, "resume")...)
			}
		}
		n := 0
		newest, err := DecodeResponses(AppendResponse(BeginResponses(nil, 77), &p), func(got Response) {
			n++
			r, w := got.Result, p.Result
			same := got.ID == p.ID && sameError(got.Err, p.Err) && r.Revision == w.Revision && r.Found == w.Found && r.Count == w.Count &&
				bytes.Equal(r.Value, w.Value) && bytes.Equal(r.Resume, w.Resume) && (r.Resume == nil) == (w.Resume == nil) && len(r.Rows) == len(w.Rows)
			for i := range w.Rows {
				same = same && bytes.Equal(r.Rows[i].Key, w.Rows[i].Key) && bytes.Equal(r.Rows[i].Value, w.Rows[i].Value) && r.Rows[i].Revision == w.Rows[i].Revision
			}
			if !same {
				t.Fatalf("%+v became %+v", p, got)
			}
		})
		if err != nil || n != 1 || newest != 77 {
			t.Fatalf("%d responses, %v", n, err)
		}
	})
}

func TestPageOfManyRowsIsRefused(t *testing.T) {
	rows := make([]Row, PageRowsMax+1)
	b := AppendResponse(BeginResponses(nil, 77), &Response{Result: Result{Rows: rows}})
	if _, err := DecodeResponses(b, func(Response) { t.Error("accepted") }); err == nil {
		t.Error("no error")
	}
	b = AppendResponse(BeginResponses(nil, 77), &Response{Result: Result{Rows: rows[1:]}})
	if _, err := DecodeResponses(b, func(Response) {}); err != nil {
		t.Error(err)
	}
}

// A WrongShardError with more descriptors than a reader accepts still travels.
func TestWrongShardErrorIsCutToWhatTravels(t *testing.T) {
	d := sampleDescriptor()
	e := &WrongShardError{Shard: 1}
	for range descriptorsPerErrorMax + 1 {
		e.Descriptors = append(e.Descriptors, d)
	}
	sent, err := DecodeError(AppendError(nil, e))
	if err != nil || len(sent.(*WrongShardError).Descriptors) != descriptorsPerErrorMax {
		t.Errorf("%v", err)
	}
}

func TestUserKeysArePrintedAndReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := drawBytes(t, "key")
		got, err := ParseUserKey(FormatUserKey(key))
		if err != nil || !bytes.Equal(got, key) {
			t.Fatalf("%x printed %q read back %x, %v", key, FormatUserKey(key), got, err)
		}
		if FormatKey(UserKey(key)) != FormatUserKey(key) {
			t.Fatalf("%x prints differently with its keyspace", key)
		}
	})
}

func BenchmarkDecodeCommand(b *testing.B) {
	c := Command{Kind: KindPut, Op: OpID{1, 2}, Key: UserKey(make([]byte, 32)), Value: make([]byte, 256)}
	enc := AppendCommand(nil, &c)
	b.ReportAllocs()
	for b.Loop() {
		var c Command
		if err := DecodeCommand(enc, &c); err != nil {
			b.Fatal(err)
		}
		if err := c.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
