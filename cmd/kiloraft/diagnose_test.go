package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// soundShard is a shard with voters on nodes, led by the first of them.
func soundShard(id uint64, nodes ...uint64) *kiloraftpb.ShardInfo {
	s := &kiloraftpb.ShardInfo{LeaderNode: nodes[0], Term: 3, Descriptor_: &kiloraftpb.Descriptor{Id: id, Epoch: &kiloraftpb.Epoch{Version: 1, ConfVersion: 5}}}
	for i, n := range nodes {
		s.Descriptor_.Replicas = append(s.Descriptor_.Replicas, &kiloraftpb.Replica{Id: uint64(i + 1), Node: n, Role: uint32(shard.Voter)})
		s.Replicas = append(s.Replicas, &kiloraftpb.ReplicaInfo{Node: n, Replica: uint64(i + 1), Leading: i == 0, Term: 3})
	}
	return s
}

func soundSight() sight {
	s := sight{status: &kiloraftpb.StatusResponse{Healthy: true, Nodes: 3, NodesLive: 3, Shards: 2}, shards: []*kiloraftpb.ShardInfo{soundShard(1, 1, 2, 3), soundShard(2, 2, 3, 1)}}
	for id := range uint64(3) {
		s.status.NodeInfos = append(s.status.NodeInfos, &kiloraftpb.NodeInfo{Id: id + 1, Address: fmt.Sprintf("n%d:1", id+1), Live: true, State: "serving", Shards: 2, Leaders: 1,
			Incarnation: 2, UptimeSeconds: 9000, Version: "0.1.0", CapacityBytes: 100 << 30, AvailableBytes: 60 << 30,
			Counters: map[string]float64{"wal_syncs_total": 1000, "wal_sync_seconds_total": 1}, Gauges: map[string]float64{"l0_sublevels": 1, "snapshots_queued": 0}})
	}
	return s
}

// soundFacts are a cluster of three nodes of which there is nothing to say.
func soundFacts() *facts {
	f := &facts{before: soundSight(), now: soundSight(), between: 2 * time.Second, unix: 1_800_000_000, explained: []string{"every shard has what it needs"},
		settings: []*kiloraftpb.Setting{{Name: "placement.paused", Value: "false"}, {Name: "placement.rebalance", Value: "true"}, {Name: "placement.dead_after", Value: "5m"}, {Name: "snapshot.rate", Value: "64MiB"}}}
	for _, n := range f.now.status.NodeInfos {
		n.Counters["wal_syncs_total"], n.Counters["wal_sync_seconds_total"] = 1100, 1.2
	}
	return f
}

func TestDiagnose(t *testing.T) {
	node := func(f *facts, id int) *kiloraftpb.NodeInfo { return f.now.status.NodeInfos[id-1] }
	silent := func(f *facts, dead bool) {
		n := node(f, 3)
		n.Live, n.SilentSeconds, n.Dead = false, 130, dead
		f.now.status.NodesLive, f.now.status.Healthy = 2, false
		f.now.status.Problems = []string{"node 3 (n3:1) is not answering since 2m10s: its 9 replicas are rebuilt elsewhere in 2m50s, unless it is back"}
	}
	pause := func(f *facts) { f.settings[0].Value = "true" }
	for _, c := range []struct {
		name   string
		change func(*facts)
		want   []string // of each finding: "severity about", then words of it, all separated by |
	}{
		{"nothing", func(*facts) {}, nil},
		{"plaintext", func(f *facts) { f.plaintext = true }, []string{"note cluster|plaintext|--certs-dir"}},
		{"a silent node", func(f *facts) { silent(f, false) }, []string{"warning node 3|not answering at n3:1|since 2m 10s|its 9 replicas are rebuilt elsewhere in 2m50s|start it again with its store"}},
		{"a dead node", func(f *facts) { silent(f, true) }, []string{"warning node 3|kiloraft node decommission 3"}},
		{"a silent node while placement is paused", func(f *facts) { silent(f, false); pause(f) }, []string{"warning node 3|nothing: placement is paused", "warning placement|paused|kiloraft placement resume"}},
		{"a shard without a leader", func(f *facts) {
			f.now.shards[1].LeaderNode, f.now.status.Leaderless, f.now.status.UnderReplicated = 0, 1, 1
			f.explained = []string{"shard 2: no leader is known: a majority of nodes 1, 2, 3 has to be up"}
		}, []string{"critical shard 2|no leader|a majority of nodes 1, 2, 3|bring nodes back"}},
		{"the meta shard does not answer", func(f *facts) {
			f.now.status.Leaderless, f.now.status.UnderReplicated, f.unasked = 1, 1, []string{"no endpoint serves"}
		}, []string{"critical cluster|the meta shard does not answer", "warning cluster|no endpoint serves"}},
		{"many shards without enough voters", func(f *facts) {
			f.explained = nil
			for id := uint64(3); id < 12; id++ {
				f.now.shards = append(f.now.shards, soundShard(id, 1, 2))
				f.explained = append(f.explained, fmt.Sprintf("shard %d: needs 1 more of 3 voters", id))
			}
			f.now.status.UnderReplicated = 9
		}, []string{"warning shards 3, 4, 5, 6, 7 and 4 more|fewer than 3 voters|needs 1 more of 3 voters"}},
		{"voters that lag", func(f *facts) { f.now.status.UnderReplicated = 1 }, []string{"warning cluster|1 of 2 shards have voters that are not caught up"}},
		{"a stopped replica", func(f *facts) { f.now.shards[0].Replicas[1].Stopped = "checksum" }, []string{"critical shard 1|node 2 takes no further part: checksum"}},
		{"a replica that differs", func(f *facts) { f.now.shards[0].Replicas[1].Check = &kiloraftpb.ReplicaCheck{Differs: true} }, []string{"critical shard 1|node 2 differs from the leader's on node 1|debug check 1"}},
		{"a joint configuration in both looks", func(f *facts) {
			f.before.shards[1].Descriptor_.Replicas[2].Role, f.now.shards[1].Descriptor_.Replicas[2].Role = uint32(shard.Outgoing), uint32(shard.Outgoing)
		}, []string{"warning shard 2|joint configuration for more than 2s|shard show 2"}},
		{"a joint configuration that is new", func(f *facts) {
			f.now.shards[1].Descriptor_.Replicas[2].Role, f.now.shards[1].Descriptor_.Epoch.ConfVersion = uint32(shard.Outgoing), 6
		}, nil},
		{"a long operation", func(f *facts) {
			f.operations = []*kiloraftpb.Operation{{Id: 4, Kind: "move", Shard: 2, FromNode: 1, ToNode: 4, State: "running", Progress: "node 4 does not answer", BeganUnix: f.unix - 3600}}
		}, []string{"warning operation 4|move shard 2|since 1h 0m|node 4 does not answer|ops cancel 4"}},
		{"an operation that has much to copy", func(f *facts) {
			f.operations = []*kiloraftpb.Operation{{Id: 4, Kind: "move", Shard: 2, State: "running", BeganUnix: f.unix - 3600, BytesTotal: 10 << 30}}
		}, nil},
		{"operations that failed", func(f *facts) {
			f.operations = []*kiloraftpb.Operation{{Id: 4, Kind: "move", State: "failed", Reason: "node 4 is dead", EndedUnix: f.unix - 60}, {Id: 5, Kind: "move", State: "failed", EndedUnix: f.unix - 9999}, {Id: 6, Kind: "move", State: "done", EndedUnix: f.unix}}
		}, []string{"note operation 4|node 4 is dead|since 1m 0s"}},
		{"nobody drives placement", func(f *facts) { f.explained = []string{"placement is not at work: the meta shard has no leader"} }, []string{"warning placement|not at work"}},
		{"a disk that fills", func(f *facts) { node(f, 2).AvailableBytes = 19 << 30 }, []string{"warning node 2|19.0 GiB of its disk of 100 GiB are free|snapshots that would fill it are refused|add a node"}},
		{"a disk that is nearly full", func(f *facts) { node(f, 2).AvailableBytes = 4 << 30 }, []string{"critical node 2|free space now"}},
		{"a disk of which nothing is known", func(f *facts) { node(f, 2).CapacityBytes, node(f, 2).AvailableBytes = 0, 0 }, nil},
		{"a certificate that expires", func(f *facts) { node(f, 1).Gauges["certificate_expiry_seconds"] = float64(f.unix) + 10*86400 }, []string{"warning node 1|expires in 10d 0h|cert create-node"}},
		{"a certificate that expires soon", func(f *facts) { node(f, 1).Gauges["certificate_expiry_seconds"] = float64(f.unix) + 86400 }, []string{"critical node 1|expires in 1d 0h"}},
		{"a certificate that has expired", func(f *facts) { node(f, 1).Gauges["certificate_expiry_seconds"] = float64(f.unix) - 1 }, []string{"critical node 1|has expired"}},
		{"a good certificate", func(f *facts) { node(f, 1).Gauges["certificate_expiry_seconds"] = float64(f.unix) + 90*86400 }, nil},
		{"a slow disk", func(f *facts) { node(f, 3).Counters["wal_sync_seconds_total"] = 9 }, []string{"warning node 3|takes 80 ms"}},
		{"a slow disk of which too little was seen", func(f *facts) {
			node(f, 3).Counters["wal_syncs_total"], node(f, 3).Counters["wal_sync_seconds_total"] = 1002, 2
		}, nil},
		{"compaction behind", func(f *facts) { node(f, 3).Gauges["l0_sublevels"] = 25 }, []string{"warning node 3|25 sublevels behind"}},
		{"a line of snapshots", func(f *facts) {
			f.before.status.NodeInfos[0].Gauges["snapshots_queued"], node(f, 1).Gauges["snapshots_queued"] = 40, 41
		}, []string{"warning node 1|41 snapshots are in line|64MiB per second"}},
		{"a line of snapshots that gets shorter", func(f *facts) {
			f.before.status.NodeInfos[0].Gauges["snapshots_queued"], node(f, 1).Gauges["snapshots_queued"] = 42, 41
		}, nil},
		{"restarts", func(f *facts) { node(f, 2).Incarnation, node(f, 2).UptimeSeconds = 9, 30 }, []string{"warning node 2|started 9 times, and others 2|since 30s"}},
		{"restarts of long ago", func(f *facts) { node(f, 2).Incarnation = 9 }, nil},
		{"versions", func(f *facts) { node(f, 2).Version = "0.2.0" }, []string{"warning cluster|0.1.0 on 1, 3; 0.2.0 on 2"}},
		{"a bad setting", func(f *facts) { f.settings[2].Problem = "is of no known format" }, []string{"warning setting placement.dead_after|no known format|settings set placement.dead_after"}},
		{"nodes on their way out", func(f *facts) { node(f, 1).State, node(f, 2).State = "draining", "leaving" }, []string{"note node 1|draining|--undo", "note node 2|decommissioned|2 are left"}},
		{"an even number of voters", func(f *facts) { f.now.shards[1] = soundShard(2, 1, 2, 3, 4) }, []string{"note shard 2|even number of voters"}},
		{"a shard that cannot be split", func(f *facts) {
			f.now.shards[1].Replicas[0].SplitReason, f.now.shards[1].Replicas[0].SplitRefusal = "load", "one key has it all"
			f.now.shards[1].Replicas[1].SplitRefusal = "no leader's word"
		}, []string{"note shard 2|by load|one key has it all"}},
		{"an uneven spread", func(f *facts) { node(f, 1).Leaders, node(f, 2).Leaders = 30, 20 }, []string{"note cluster|node 1 has 30 leaders, and node 3 has 1|placement evens that out"}},
		{"an uneven spread that stays", func(f *facts) { node(f, 1).Shards, f.settings[1].Value = 40, "false" }, []string{"note cluster|node 1 has 40 replicas, and node 2 has 2|switched off"}},
		{"two nodes", func(f *facts) {
			f.now.status.NodeInfos, f.now.status.Nodes = f.now.status.NodeInfos[:2], 2
		}, []string{"note cluster|two nodes"}},
		{"the worst first", func(f *facts) { f.plaintext = true; pause(f); node(f, 2).AvailableBytes = 1 }, []string{"critical node 2", "warning placement", "note cluster"}},
	} {
		f := soundFacts()
		c.change(f)
		found := diagnose(f)
		if len(found) != len(c.want) {
			t.Errorf("%s: %+v", c.name, found)
			continue
		}
		for i, x := range found {
			head, words, _ := strings.Cut(c.want[i], "|")
			if x.Severity+" "+x.About != head {
				t.Errorf("%s: %q, want %q", c.name, x.Severity+" "+x.About, head)
			}
			for _, w := range strings.Split(words, "|") {
				if !strings.Contains(x.text(), w) {
					t.Errorf("%s: no %q in %q", c.name, w, x.text())
				}
			}
		}
		problem := strings.Contains(strings.Join(c.want, " ")+" ", "critical ") || strings.Contains(strings.Join(c.want, " "), "warning ")
		if healthy(found) == problem {
			t.Errorf("%s: healthy is %t", c.name, !problem)
		}
	}
}

func TestDoctor(t *testing.T) {
	s := soundSight()
	f := &fakeCluster{
		status: func() (*kiloraftpb.StatusResponse, error) { return s.status, nil },
		listShards: func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
			return &kiloraftpb.ListShardsResponse{Shards: s.shards}, nil
		},
		operations: func(*kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error) {
			return &kiloraftpb.ListOperationsResponse{}, nil
		},
		settings: func() (*kiloraftpb.ListSettingsResponse, error) { return &kiloraftpb.ListSettingsResponse{}, nil },
		explain: func(*kiloraftpb.ExplainPlacementRequest) (*kiloraftpb.ExplainPlacementResponse, error) {
			return &kiloraftpb.ExplainPlacementResponse{}, nil
		},
	}
	address := serveFake(t, f)
	r := command{}.run(t, "doctor", "--endpoints", address)
	if r.code != exitDone || !strings.HasPrefix(r.stdout, "nothing is wrong   3 of 3 nodes live, 2 shards\n\nnote      cluster: it speaks plaintext") || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	s.status.NodeInfos[1].AvailableBytes = 1 << 30
	f.operations = func(*kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error) {
		return nil, errors.New("the meta shard is away")
	}
	r = command{}.run(t, "doctor", "--endpoints", address)
	if r.code != exitFailed || !strings.HasPrefix(r.stdout, "2 problems   3 of 3 nodes live") || !strings.Contains(r.stdout, "\ncritical  node 2: 1.0 GiB of its disk") || !strings.Contains(r.stdout, "the meta shard is away") || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	r = command{}.run(t, "doctor", "-o", "json", "--endpoints", address)
	if r.code != exitFailed || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	var got struct {
		Healthy  *bool
		Findings []struct{ Severity, About, What, Doing, Todo string }
	}
	r.code = exitDone
	decode(t, r, &got)
	if got.Healthy == nil || *got.Healthy || len(got.Findings) != 3 || got.Findings[0].About != "node 2" || got.Findings[0].Todo == "" {
		t.Errorf("%+v", got)
	}
	if r := (command{}).run(t, "doctor", "--timeout", "300ms", "--endpoints", deadAddress(t)); r.code != exitFailed || !strings.Contains(r.stderr, "does not serve") {
		t.Errorf("%+v", r)
	}
}
