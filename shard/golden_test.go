package shard

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares named byte strings with a file of hexadecimal lines. These
// bytes travel between versions and rest in logs: a difference is a format change.
type golden struct {
	t    *testing.T
	name string
	text strings.Builder
}

func (g *golden) add(name string, b []byte) {
	fmt.Fprintf(&g.text, "%s\n", name)
	for len(b) > 0 {
		n := min(len(b), 32)
		fmt.Fprintf(&g.text, "  %s\n", hex.EncodeToString(b[:n]))
		b = b[n:]
	}
}

func (g *golden) check() {
	g.t.Helper()
	file := filepath.Join("testdata", g.name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(g.text.String()), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		g.t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(g.text.String())) {
		g.t.Errorf("%s: the bytes changed; got\n%s", file, g.text.String())
	}
}

// sampleCommands has every kind and every flag.
func sampleCommands() []struct {
	name string
	c    Command
} {
	op := OpID{Session: 0x0123456789abcdef, Sequence: 300}
	return []struct {
		name string
		c    Command
	}{
		{"put", Command{Kind: KindPut, Op: op, Birth: 7, Key: []byte("\x02key"), Value: []byte("value")}},
		{"put, empty value, retried", Command{Kind: KindPut, Retry: true, Op: op, Birth: MaxRevision, Key: []byte("\x02k"), Value: []byte{}}},
		{"delete", Command{Kind: KindDelete, Op: op, Key: []byte("\x02key")}},
		{"increment", Command{Kind: KindIncrement, Op: op, Delta: 1 << 40, Key: []byte("\x01counter")}},
		{"compare and put", Command{Kind: KindCompareAndPut, Op: op, Key: []byte("\x01k"), Expect: []byte("old"), Value: []byte("new")}},
		{"compare and put, absent", Command{Kind: KindCompareAndPut, Op: op, ExpectAbsent: true, Key: []byte("\x01k"), Expect: []byte{}, Value: []byte("new")}},
		{"compare and put, remove", Command{Kind: KindCompareAndPut, Op: op, Remove: true, Key: []byte("\x01k"), Expect: []byte("old"), Value: []byte{}}},
		{"get", Command{Kind: KindGet, Op: op, Key: []byte("\x02key")}},
		{"get at a revision", Command{Kind: KindGet, Op: op, Revision: 12345, Key: []byte("\x02key")}},
		{"scan", Command{Kind: KindScan, Op: op, Start: []byte("\x02a"), End: []byte("\x02b"), Limit: 10, Bytes: 1000}},
		{"scan, reverse, keys only", Command{Kind: KindScan, Op: op, Start: []byte("\x02"), End: []byte("\x03"), Reverse: true, KeysOnly: true, Revision: 9}},
		{"get at a revision, at any replica", Command{Kind: KindGet, Op: op, Revision: 12345, AnyReplica: true, Key: []byte("\x02key")}},
		{"batch", Command{Kind: KindBatch, Op: op, Birth: 7,
			Compares: []Compare{{Kind: CompareValue, Key: []byte("\x02a"), Value: []byte("v")}, {Kind: CompareRevision, Key: []byte("\x02b"), Revision: 300},
				{Kind: CompareAbsent, Key: []byte("\x02c")}, {Kind: ComparePresent, Key: []byte("\x02d")}},
			Then: []BatchOp{{Kind: KindPut, Key: []byte("\x02a"), Value: []byte("new")}, {Kind: KindDelete, Key: []byte("\x02b")}},
			Else: []BatchOp{{Kind: KindGet, Key: []byte("\x02a")}}}},
		{"delete range", Command{Kind: KindDeleteRange, Op: op, Start: []byte("\x02a"), End: []byte("\x02b"), Limit: 1000}},
		{"draw", Command{Kind: KindDraw, Op: op, Limit: 300, Voter: 4}},
		{"raise", Command{Kind: KindRaise}},
		{"floor", Command{Kind: KindFloor, Revision: 12345}},
		{"digest", Command{Kind: KindDigest}},
		{"verify", Command{Kind: KindVerify, Digested: 300, Applied: 301, Value: []byte("digest")}},
		{"split", Command{Kind: KindSplit, ConfVersion: 300, Right: 301, RightKeys: 7, RightBytes: 1000, Key: []byte("\x02m")}},
	}
}

func sampleDescriptor() Descriptor {
	return Descriptor{ID: 42, Span: Span{Start: []byte("\x02a"), End: []byte("\x02m")}, Epoch: Epoch{Version: 3, ConfVersion: 500},
		Replicas:    []Replica{{1, 11, Voter}, {4, 12, Outgoing}, {5, 13, Incoming}, {300, 14, Learner}},
		NextReplica: 301}
}

func sampleErrors() []struct {
	name string
	err  error
} {
	d := sampleDescriptor()
	return []struct {
		name string
		err  error
	}{
		{"none", nil},
		{"invalid", &InvalidError{Field: "key", Reason: "is empty"}},
		{"not leader, no hint", &NotLeaderError{Shard: 42}},
		{"not leader", &NotLeaderError{Shard: 42, Leader: LeaderHint{Replica: 4, Node: 12, Term: 77, Address: "127.0.0.1:7400"}}},
		{"wrong shard, nothing known", &WrongShardError{Shard: 42}},
		{"wrong shard", &WrongShardError{Shard: 42, Descriptors: []Descriptor{d, d}, Leaders: []LeaderHint{{}, {Replica: 4, Node: 12, Term: 77, Address: "127.0.0.1:7400"}}}},
		{"busy", ErrBusy},
		{"dropped", ErrDropped},
		{"undetermined", ErrUndetermined},
		{"unavailable", ErrUnavailable},
		{"stopped", ErrStopped},
		{"future revision", ErrFutureRevision},
		{"compacted", ErrCompacted},
		{"malformed", ErrMalformed},
		{"internal", &InternalError{Reason: "the disk is on fire"}},
		{"no revision", ErrNoRevision},
		{"spans shards", ErrSpansShards},
		{"denied", &DeniedError{Reason: "an admin is needed"}},
		{"outcome lost", &OutcomeLostError{Reason: "it is older than the retention"}},
		{"range too wide", ErrRangeTooWide},
		{"not ready", &NotReadyError{Shard: 42, Reason: "replica 7 is not caught up"}},
	}
}

func TestGoldenCommands(t *testing.T) {
	g := &golden{t: t, name: "commands"}
	for _, s := range sampleCommands() {
		b := AppendCommand(nil, &s.c)
		g.add(s.name, b)
		var c Command
		if err := DecodeCommand(b, &c); err != nil || !sameCommand(&c, &s.c) {
			t.Errorf("%s: decoded %+v, %v", s.name, c, err)
		}
	}
	g.check()
}

func TestGoldenDescriptors(t *testing.T) {
	g := &golden{t: t, name: "descriptors"}
	d := sampleDescriptor()
	one := Descriptor{ID: MetaID, Span: SystemSpan(), Epoch: Epoch{1, 1}, Replicas: []Replica{{1, 1, Voter}}, NextReplica: 2}
	none := Descriptor{ID: 7, Span: UserSpan(), Epoch: Epoch{1, 1}, NextReplica: 1}
	for _, s := range []struct {
		name string
		d    Descriptor
	}{{"every role", d}, {"the meta shard", one}, {"no replicas", none}} {
		b := AppendDescriptor(nil, &s.d)
		g.add(s.name, b)
		got, err := DecodeDescriptor(b)
		if err != nil || !sameDescriptor(&got, &s.d) {
			t.Errorf("%s: decoded %+v, %v", s.name, got, err)
		}
	}
	m := MembershipChange{Shard: 42, Epoch: Epoch{3, 500}, Changes: []Change{{Kind: Promote, Replica: 300}, {Kind: Demote, Replica: 1}}}
	g.add("a joint change", AppendMembershipChange(nil, &m))
	m = MembershipChange{Shard: 42, Epoch: Epoch{3, 500}, Changes: []Change{{Kind: AddLearner, Replica: 301, Node: 15}}}
	g.add("a learner is added", AppendMembershipChange(nil, &m))
	g.check()
}

func TestGoldenErrors(t *testing.T) {
	g := &golden{t: t, name: "errors"}
	for _, s := range sampleErrors() {
		b := AppendError(nil, s.err)
		g.add(s.name, b)
		sent, err := DecodeError(b)
		if err != nil || !sameError(sent, s.err) {
			t.Errorf("%s: decoded %v, %v", s.name, sent, err)
		}
	}
	g.check()
}

func TestGoldenFrames(t *testing.T) {
	g := &golden{t: t, name: "frames"}
	cluster := ClusterID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	greeting := Greeting{Cluster: cluster, Node: 3, Incarnation: 200, Newest: 300}
	b := AppendGreeting(nil, greeting)
	g.add("greeting", b)
	if got, err := DecodeGreeting(b); err != nil || got != greeting {
		t.Errorf("greeting: %+v, %v", got, err)
	}
	hello := Hello{Cluster: cluster, Session: 1 << 63, Stream: 5, Node: 6}
	b = AppendHello(nil, hello)
	g.add("hello", b)
	if got, err := DecodeHello(b); err != nil || got != hello {
		t.Errorf("hello: %+v, %v", got, err)
	}

	b = BeginRequests(nil)
	for i, s := range sampleCommands()[:2] {
		b = AppendRequest(b, &Request{ID: uint64(i + 1), Target: Target{Shard: 42, Version: 3, Replica: 4, Term: 77}, Command: AppendCommand(nil, &s.c)})
	}
	g.add("requests", b)

	b = BeginResponses(nil, 77)
	for i, p := range []Response{
		{Err: ErrBusy},
		{Err: &NotLeaderError{Shard: 42, Leader: LeaderHint{Node: 3, Address: "h:1"}}},
		{Result: Result{Revision: 99}},
		{Result: Result{Revision: 99, Found: true, Value: []byte("value")}},
		{Result: Result{Rows: []Row{{Key: []byte("\x02a"), Value: []byte("x"), Revision: 5}, {Key: []byte("\x02b"), Revision: 300}}, Resume: []byte("\x02c")}},
		{Result: Result{Revision: 99, Resume: []byte("\x02c"), Count: 1000}},
	} {
		p.ID = uint64(i + 1)
		b = AppendResponse(b, &p)
	}
	g.add("responses", b)
	b = BeginResponses(nil, 78)
	g.add("news", b)
	if newest, err := DecodeResponses(b, func(Response) { t.Error("a response in a frame without any") }); newest != 78 || err != nil {
		t.Errorf("news: %d, %v", newest, err)
	}
	g.check()
}

// sameError compares what travels of two errors: all that a caller can see.
func sameError(a, b error) bool {
	return bytes.Equal(AppendError(nil, a), AppendError(nil, b)) && fmt.Sprintf("%T", a) == fmt.Sprintf("%T", b)
}

func sameDescriptor(a, b *Descriptor) bool {
	return a.ID == b.ID && a.Span.Equal(b.Span) && a.Epoch == b.Epoch && a.NextReplica == b.NextReplica &&
		fmt.Sprint(a.Replicas) == fmt.Sprint(b.Replicas)
}

// sameCommand does not tell a nil slice from an empty one, as the encoding does not.
func sameCommand(a, b *Command) bool {
	return fmt.Sprintf("%+v", *a) == fmt.Sprintf("%+v", *b)
}
