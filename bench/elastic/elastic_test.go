package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/bench"
	"github.com/kiloraft/kiloraft/shard"
)

func TestGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watched
		step := func(d time.Duration, key string, err error) {
			time.Sleep(d)
			w.answered([]byte(key), err)
		}
		all, left, right := w.watch(span{}), w.watch(span{end: []byte("m")}), w.watch(span{start: []byte("m")})
		step(3*time.Second, "a", nil)
		step(time.Second, "m", nil) // belongs to the right side
		step(time.Second, "a", errors.New("refused"))
		step(time.Second, "z", nil)
		time.Sleep(4 * time.Second)
		if got := w.end(left); got != 7*time.Second {
			t.Errorf("left: %v, from the answer of a to the end", got)
		}
		if got := w.end(right); got != 4*time.Second {
			t.Errorf("right: %v, from the start to the answer of m", got)
		}
		w.endAll()
		time.Sleep(time.Hour)
		step(0, "a", nil)
		if got := w.end(all); got != 4*time.Second {
			t.Errorf("all: %v, from the last answer to the end of all", got)
		}
	})
}

func TestSequence(t *testing.T) {
	got := strings.Join(sequence(4, 2), " ")
	if got != "split split move split split move" {
		t.Error(got)
	}
	many := sequence(20, 10)
	if moves := len(slices.DeleteFunc(many, func(k string) bool { return k == splitEvent })); moves != 10 {
		t.Errorf("%d moves", moves)
	}
	if got := sequence(0, 1); got[0] != moveEvent {
		t.Error(got)
	}
}

// shardAt is a shard of users between two keys; nil: unbounded.
func shardAt(id, leader uint64, start, end []byte) *pb.ShardInfo {
	d := &pb.Descriptor{Id: id, Start: shard.UserKey(start), End: shard.UserKey(end)}
	if end == nil {
		d.End = shard.UserSpan().End
	}
	return &pb.ShardInfo{Descriptor_: d, LeaderNode: leader}
}

func TestChoose(t *testing.T) {
	d := &director{rand: rand.New(rand.NewPCG(1, 1)), busy: map[uint64]bool{}}
	shards := []*pb.ShardInfo{shardAt(2, 1, nil, []byte{0x20}), shardAt(3, 0, []byte{0x20}, []byte{0x90}), shardAt(4, 1, []byte{0x90}, []byte{0xe0}), shardAt(5, 2, []byte{0xe0}, nil)}
	// The widest has no leader; the others go by their width, each of them once.
	for _, want := range []uint64{4, 2, 5} {
		s, err := d.choose(splitEvent, shards)
		if err != nil || s.GetDescriptor_().GetId() != want {
			t.Fatalf("%v, %v; want shard %d", s, err, want)
		}
	}
	if s, err := d.choose(moveEvent, shards); err == nil {
		t.Errorf("moves shard %v, to which something happens", s)
	}
}

func TestWidth(t *testing.T) {
	half := binary.BigEndian.AppendUint64(nil, 1<<63)
	for _, c := range []struct {
		name string
		span
		want uint64
	}{
		{"all", span{}, math.MaxUint64},
		{"left", span{end: half}, 1 << 63},
		{"right", span{start: half}, math.MaxUint64 - 1<<63},
		{"longer keys", span{start: append(half, "more"...), end: append(binary.BigEndian.AppendUint64(nil, 1<<63+5), "x"...)}, 5},
	} {
		if got := width(c.span); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := spanOf(shardAt(2, 1, nil, nil)); len(got.start)+len(got.end) > 0 {
		t.Errorf("all keys are %q", got)
	}
}

func TestShares(t *testing.T) {
	bytes, leaders := shares([]holding{{Node: 1, Bytes: 50, Leaders: 6}, {Node: 2, Bytes: 30, Leaders: 2}, {Node: 4, Bytes: 40, Leaders: 1}}, map[uint64]bool{1: true, 2: true})
	if bytes != 1 || leaders != 1.0/3 {
		t.Errorf("%v of bytes, %v of leaders", bytes, leaders)
	}
	s := compare([]holding{{Node: 1, ops: 100}, {Node: 2, ops: 5000}}, []holding{{Node: 1, ops: 400}, {Node: 2, ops: 0}}, 3*time.Second)
	if s.Nodes[0].OpsPerSec != 100 || s.Nodes[0].Share != 1 || s.Nodes[1].OpsPerSec != 0 {
		t.Errorf("%+v: the second node's counter began anew", s)
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		load bench.Report
		want string
	}{
		{bench.Report{Ops: 1000, NeverBegun: 1}, ""},
		{bench.Report{Ops: 1000, NeverBegun: 100, Interrupted: true}, ""},
		{bench.Report{Ops: 1000, Errors: 1, FirstErrors: []string{"no way"}}, "no way"},
		{bench.Report{Ops: 1000, NotFound: 1}, "did not find"},
		{bench.Report{Ops: 1000, NeverBegun: 2}, "never begun"},
	} {
		r := report{Part: "churn", Summary: "x=1"}
		r.load("quiet", &c.load)
		r.OK = len(r.Wrong) == 0
		var b bytes.Buffer
		r.print(&b)
		want := "elastic: part=churn x=1 ok\n"
		if c.want != "" {
			want = fmt.Sprintf("FAILED: %s\nelastic: part=churn x=1 FAILED\n", strings.Join(r.Wrong, ""))
		}
		if got := b.String(); got != want || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q", c.load, got)
		}
	}
}

func TestOptions(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "kiloraft")
	if err := os.WriteFile(binary, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := options([]string{"-kiloraft", binary, "-part", "join,churn", "-duration", "30s", "-size", "0.5", "-set", "a=b", "-o", "json"})
	if err != nil || !c.json || len(c.parts) != 2 || c.scale.Busy != 30*time.Second || c.scale.Bytes != 512<<20 || len(c.scale.Settings) != 1 || !c.scale.Judged {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := options([]string{"-kiloraft", binary, "-quick"}); err != nil || c.scale.Judged || c.scale.Busy != quick.Busy {
		t.Errorf("%+v, %v", c, err)
	}
	for _, wrong := range []string{"-part nothing", "-o yaml", "-duration 5s", "-duration -1m", "-size -1", "-size 0.0001", "-set novalue", "more"} {
		if c, err := options(append([]string{"-kiloraft", binary}, strings.Fields(wrong)...)); err == nil {
			t.Errorf("%s: %+v", wrong, c)
		}
	}
	if _, err := options([]string{"-kiloraft", binary + "x"}); err == nil {
		t.Error("a binary that is not there")
	}
}

// A demo that cannot be run leaves a report that says so.
func TestNotMeasured(t *testing.T) {
	r := parts[0].inDemo(context.Background(), config{binary: filepath.Join(t.TempDir(), "none")})
	if r.OK || len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], "not measured") {
		t.Errorf("%+v", r)
	}
}
