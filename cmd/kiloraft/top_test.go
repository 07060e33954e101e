package main

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// busyShards are three shards, of which the third is read most and the second written
// most.
func busyShards() []*kiloraftpb.ShardInfo {
	shards := fakeShards()
	shards[2].LeaderNode = 1
	shards[2].Bytes = 1 << 10
	shards[1].Replicas[0].ReadsPerSecond, shards[1].Replicas[0].WritesPerSecond, shards[1].Replicas[0].BytesWrittenPerSecond = 10, 4000, 1<<20
	shards[1].Replicas[0].HotKeys = []*kiloraftpb.HotKey{{Key: []byte{shard.UserKeyspace, 'a', 0xff}, PerSecond: 1500}}
	shards[1].Replicas[1].ReadsPerSecond = 99_999 // no leader's word
	shards[2].Replicas = []*kiloraftpb.ReplicaInfo{{Node: 1, Replica: 1, Leading: true, ReadsPerSecond: 9000, WritesPerSecond: 0.5,
		SplitKey: []byte{shard.UserKeyspace, 'p'}, SplitReason: "load",
		HotKeys: []*kiloraftpb.HotKey{{Key: []byte{shard.UserKeyspace, 'z'}, PerSecond: 8000}, {Key: []byte{shard.UserKeyspace, 'y'}, PerSecond: 2.5}}}}
	return shards
}

func TestTop(t *testing.T) {
	address := serveFake(t, &fakeCluster{
		listNodes: func() (*kiloraftpb.ListNodesResponse, error) {
			return &kiloraftpb.ListNodesResponse{Nodes: healthyStatus().NodeInfos}, nil
		},
		listShards: func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
			return &kiloraftpb.ListShardsResponse{Shards: busyShards()}, nil
		},
	})
	// Not a terminal: one look, without colours.
	r := command{}.run(t, "top", "--endpoints", address)
	want := `2 nodes, 3 shards   9,010 reads/s, 4,001 writes/s, 1.0 MiB/s written

NODE  ADDRESS         STATE          SHARDS  LEADERS  DATA     READS/S  WRITES/S  WRITTEN
1     127.0.0.1:7400  serving        9       5        1.0 GiB  9,000    0.5       0 B/s
2     127.0.0.1:7402  not answering  0       0        0 B      10       4,000     1.0 MiB/s

SHARD  START     END       LEADER  DATA     READS/S  WRITES/S  TO SPLIT BY
3      m\x00     –         1       1.0 KiB  9,000    0.5       load
2      –         m\x00     2       2.0 MiB  10       4,000     
1      (system)  (system)  1       0 B      0        0         

HOT KEY  SHARD  PER SECOND
z        3      8,000
a\xff    2      1,500
y        3      2.5
`
	if r.code != exitDone || r.stdout != want || r.stderr != "" {
		t.Errorf("top:\n%s%s\nwant\n%s", r.stdout, r.stderr, want)
	}
	for by, first := range map[string]string{"load": "[3 2 1]", "reads": "[3 2 1]", "writes": "[2 3 1]", "bytes": "[2 3 1]", "id": "[1 2 3]"} {
		var got struct {
			Nodes  []struct{ ID uint64 }
			Shards []struct {
				ID     uint64
				Writes float64 `json:"writes_per_second"`
			}
			HotKeys []struct{ Key string } `json:"hot_keys"`
		}
		decode(t, command{}.run(t, "top", "--sort", by, "-o", "json", "--endpoints", address), &got)
		var ids []uint64
		for _, s := range got.Shards {
			ids = append(ids, s.ID)
		}
		if fmt.Sprint(ids) != first || len(got.Nodes) != 2 || len(got.HotKeys) != 3 || got.HotKeys[1].Key != `a\xff` {
			t.Errorf("by %s: %+v", by, got)
		}
	}
}

// A screen is never wider or higher than the terminal, whatever is in it.
func TestTopFitsTheScreen(t *testing.T) {
	var nodes []*kiloraftpb.NodeInfo
	var shards []*kiloraftpb.ShardInfo
	for i := range uint64(60) {
		nodes = append(nodes, &kiloraftpb.NodeInfo{Id: i + 1, Live: true, State: "serving", Address: strings.Repeat("long-name.", 9) + ":7400", Shards: 1 << 40, Leaders: 1 << 40, Bytes: 1 << 60})
		shards = append(shards, &kiloraftpb.ShardInfo{LeaderNode: i + 1, Bytes: 1 << 60, Descriptor_: &kiloraftpb.Descriptor{Id: 1<<40 + i, Start: []byte(strings.Repeat("\x02\xff", 99)), End: []byte(strings.Repeat("\x02z", 99))},
			Replicas: []*kiloraftpb.ReplicaInfo{{Node: i + 1, Leading: true, ReadsPerSecond: 1e9, WritesPerSecond: 1e9, BytesWrittenPerSecond: 1e12, SplitReason: "load",
				HotKeys: []*kiloraftpb.HotKey{{Key: []byte("\x02" + strings.Repeat("\xfe", 8000)), PerSecond: 1e9}}}}})
	}
	r := topOf(nodes, shards, "load")
	for _, size := range []struct{ width, height int }{{100, 40}, {80, 24}, {40, 10}, {20, 5}, {1, 1}} {
		var b strings.Builder
		if err := r.write(&b, size.height-2); err != nil {
			t.Fatal(err)
		}
		screen := frame("head", b.String(), size.width, size.height, false)
		lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(screen, "\x1b[H"), "\n\x1b[J"), "\n")
		if len(lines) > size.height {
			t.Errorf("%d lines on a screen of %d", len(lines), size.height)
		}
		for i, line := range lines {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\x1b[K")); i > 0 && n > max(2, size.width) {
				t.Errorf("a line of %d on a screen of %d: %q", n, size.width, line)
			}
		}
		if strings.Contains(screen, "\xfe") || strings.Contains(screen, "\x1b[1m") {
			t.Errorf("raw bytes of a key, or colours, on %v", size)
		}
	}
	if screen := frame("head", "NODE  ADDRESS\n1  a", 100, 40, true); !strings.Contains(screen, "\x1b[1mNODE  ADDRESS\x1b[0m") {
		t.Errorf("no colours: %q", screen)
	}
}

func TestTopShares(t *testing.T) {
	for _, c := range []struct {
		lines, nodes, shards, keys int
		want                       [3]int
	}{
		{0, 50, 5000, 100, [3]int{50, 5000, 100}},
		{38, 3, 9, 0, [3]int{3, 9, 0}},
		{38, 3, 5000, 4, [3]int{3, 26, 4}},
		{38, 100, 5000, 100, [3]int{11, 11, 11}},
		{5, 3, 9, 4, [3]int{0, 0, 0}},
	} {
		if got := topShares(c.lines, c.nodes, c.shards, c.keys); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
