package main

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func healthyStatus() *kiloraftpb.StatusResponse {
	return &kiloraftpb.StatusResponse{Healthy: true, ClusterId: []byte("0123456789abcdef"), Nodes: 2, NodesLive: 2, Shards: 9, Revision: 18_204_551,
		Keys: 1_204_113, Bytes: 1_932_735_283, NodeInfos: []*kiloraftpb.NodeInfo{
			{Id: 1, Address: "127.0.0.1:7400", HttpAddress: "127.0.0.1:7401", Live: true, Shards: 9, Leaders: 5, Bytes: 1 << 30, LogBytes: 61 << 20, Incarnation: 3, UptimeSeconds: 130, Version: "0.1.0", State: "serving"},
			{Id: 2, Address: "127.0.0.1:7402", State: "serving", SilentSeconds: 65},
		}}
}

func TestStatus(t *testing.T) {
	f := &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) { return healthyStatus(), nil }}
	address := serveFake(t, f)
	var got map[string]any
	decode(t, command{}.run(t, "status", "-o", "json", "--endpoints", address), &got)
	for field, want := range map[string]any{"healthy": true, "nodes": 2.0, "nodes_live": 2.0, "shards": 9.0, "under_replicated": 0.0, "leaderless": 0.0,
		"revision": 18204551.0, "cluster": "30313233-3435-3637-3839-616263646566"} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	if problems, ok := got["problems"].([]any); !ok || len(problems) != 0 {
		t.Errorf("problems are %v, want an empty list", got["problems"])
	}
	r := command{env: map[string]string{"KILORAFT_ENDPOINTS": address}}.run(t, "status")
	for _, want := range []string{"healthy   2 of 2 nodes live, 9 shards, all with a leader", "revision 18,204,551   1.8 GiB in 1,204,113 keys (estimates)",
		"NODE  ADDRESS         LIVE  STATE             SHARDS  LEADERS  DATA     LOG       SINCE   VERSION\n1     127.0.0.1:7400  yes   serving           9       5        1.0 GiB  61.0 MiB  2m 10s  0.1.0\n2     127.0.0.1:7402  no    silent for 1m 5s  –"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	if strings.Contains(r.stdout, "\x1b") {
		t.Error("colours where there is no terminal")
	}
}

func TestStatusDegraded(t *testing.T) {
	address := serveFake(t, &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) {
		s := healthyStatus()
		s.Healthy, s.NodesLive, s.UnderReplicated, s.Problems = false, 1, 9, []string{"node 2 is not answering since 2m 10s"}
		return s, nil
	}})
	r := command{}.run(t, "status", "--endpoints", address)
	if r.code != exitDone || !strings.HasPrefix(r.stdout, "degraded  1 of 2 nodes live, 9 shards, 0 without a leader, 9 with too few caught-up voters\n          node 2 is not answering") {
		t.Errorf("status: %+v", r)
	}
}

func TestStatusWait(t *testing.T) {
	var asked atomic.Int64
	f := &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) {
		s := healthyStatus()
		switch asked.Add(1) {
		case 1:
			return nil, shard.ErrUnavailable
		case 2:
			s.Leaderless = 3
		case 3:
			s.UnderReplicated = 1
		}
		return s, nil
	}}
	// The first endpoint never answers.
	endpoints := deadAddress(t) + "," + serveFake(t, f)
	var got map[string]any
	decode(t, command{}.run(t, "status", "--wait", "-o", "json", "--endpoints", endpoints), &got)
	if asked.Load() != 4 || got["healthy"] != true {
		t.Errorf("returned after %d questions with %v", asked.Load(), got)
	}
}

func TestStatusWaitGivesUp(t *testing.T) {
	never := serveFake(t, &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) {
		s := healthyStatus()
		s.Healthy, s.Leaderless = false, 4
		return s, nil
	}})
	r := command{}.run(t, "status", "--wait", "--timeout", "300ms", "--endpoints", never)
	if r.code != exitFailed || !strings.Contains(r.stderr, "gave up after 300ms (--timeout): 2 of 2 nodes are live, 4 of 9 shards have no leader") || !strings.HasPrefix(r.stdout, "degraded") {
		t.Errorf("a cluster that stays ill: %+v", r)
	}
	dead := deadAddress(t)
	r = command{}.run(t, "status", "--wait", "--timeout", "300ms", "--endpoints", dead)
	if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "gave up after 300ms (--timeout): "+dead+" does not serve: connection refused") {
		t.Errorf("a cluster that is not there: %+v", r)
	}
}

func TestEndpointsAreTriedInTurn(t *testing.T) {
	dead, refusing := deadAddress(t), serveFake(t, &fakeCluster{listNodes: func() (*kiloraftpb.ListNodesResponse, error) {
		return nil, shard.ErrUnavailable
	}})
	answering := serveFake(t, &fakeCluster{listNodes: func() (*kiloraftpb.ListNodesResponse, error) {
		return &kiloraftpb.ListNodesResponse{Nodes: healthyStatus().NodeInfos}, nil
	}})
	var nodes []map[string]any
	decode(t, command{}.run(t, "node", "list", "-o", "json", "--endpoints", dead+","+refusing+","+answering), &nodes)
	if len(nodes) != 2 || nodes[0]["id"] != 1.0 || nodes[0]["address"] != "127.0.0.1:7400" || nodes[0]["live"] != true || nodes[0]["shards"] != 9.0 ||
		nodes[0]["leaders"] != 5.0 || nodes[0]["bytes"] != 1073741824.0 || nodes[1]["live"] != false {
		t.Errorf("node list: %v", nodes)
	}
	r := command{}.run(t, "node", "list", "--endpoints", dead+","+refusing)
	if r.code != exitFailed || !strings.Contains(r.stderr, "kiloraft: node list: no endpoint serves: "+dead+": connection refused; "+refusing+": unavailable") {
		t.Errorf("without an endpoint that answers: %+v", r)
	}
}

func TestErrorsAreAnswers(t *testing.T) {
	address := serveFake(t, &fakeCluster{listNodes: func() (*kiloraftpb.ListNodesResponse, error) { return nil, errors.New("a bug") }})
	r := command{}.run(t, "node", "list", "--endpoints", address+","+deadAddress(t))
	if r.code != exitFailed || strings.Contains(r.stderr, "code =") || !strings.Contains(r.stderr, "a bug") {
		t.Errorf("an internal error: %+v", r)
	}
	empty := serveFake(t, &fakeCluster{listNodes: func() (*kiloraftpb.ListNodesResponse, error) { return &kiloraftpb.ListNodesResponse{}, nil }})
	if r := (command{}).run(t, "node", "list", "-o", "json", "--endpoints", empty); r.stdout != "[]\n" {
		t.Errorf("an empty list: %+v", r)
	}
}

func fakeShards() []*kiloraftpb.ShardInfo {
	return []*kiloraftpb.ShardInfo{
		{LeaderNode: 1, Term: 4, Descriptor_: &kiloraftpb.Descriptor{Id: 1, Start: []byte{shard.SystemKeyspace}, End: []byte{shard.SystemKeyspace + 1},
			Epoch: &kiloraftpb.Epoch{Version: 1, ConfVersion: 3}, Replicas: []*kiloraftpb.Replica{{Id: 1, Node: 1, Role: 1}}}},
		{LeaderNode: 2, Term: 6, Keys: 1500, Bytes: 2 << 20, Revision: 77,
			Descriptor_: &kiloraftpb.Descriptor{Id: 2, Start: []byte{shard.UserKeyspace}, End: []byte{shard.UserKeyspace, 'm', 0},
				Epoch: &kiloraftpb.Epoch{Version: 2, ConfVersion: 5}, Replicas: []*kiloraftpb.Replica{{Id: 1, Node: 2, Role: 1}, {Id: 4, Node: 3, Role: 2}}},
			Replicas: []*kiloraftpb.ReplicaInfo{{Node: 2, Replica: 1, Term: 6, Leading: true, First: 11, Last: 90, Commit: 90, Applied: 89, LogBytes: 2048}, {Node: 3, Replica: 4, Stopped: "checksum"}}},
		{Descriptor_: &kiloraftpb.Descriptor{Id: 3, Start: []byte{shard.UserKeyspace, 'm', 0}, End: []byte{shard.UserKeyspace + 1}, Epoch: &kiloraftpb.Epoch{Version: 2, ConfVersion: 1}}},
	}
}

func shardServer(t *testing.T) string {
	return serveFake(t, &fakeCluster{
		listShards: func(q *kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
			all := fakeShards()
			switch {
			case q.GetId() > 3:
				return &kiloraftpb.ListShardsResponse{}, nil
			case q.GetId() > 0:
				return &kiloraftpb.ListShardsResponse{Shards: all[q.GetId()-1:][:1]}, nil
			case string(q.GetKey()) == "zebra\x00":
				return &kiloraftpb.ListShardsResponse{Shards: all[2:]}, nil
			case len(q.GetKey()) > 0:
				return &kiloraftpb.ListShardsResponse{Shards: all[1:2]}, nil
			}
			return &kiloraftpb.ListShardsResponse{Shards: all}, nil
		},
		transfer: func(q *kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error) {
			if q.GetToNode() == 77 {
				return nil, &shard.InvalidError{Field: "node", Reason: "77 has no voter of this shard"}
			}
			return &kiloraftpb.TransferLeaderResponse{LeaderNode: q.GetToNode(), Term: 10 + q.GetShard()}, nil
		},
	})
}

func TestShardList(t *testing.T) {
	address := shardServer(t)
	var list []map[string]any
	decode(t, command{}.run(t, "shard", "list", "-o", "json", "--endpoints", address), &list)
	if len(list) != 3 || list[0]["keyspace"] != "system" || list[0]["start"] != "" || list[0]["end"] != "" {
		t.Fatalf("shard list: %v", list)
	}
	second := list[1]
	for field, want := range map[string]any{"id": 2.0, "start": "", "end": `m\x00`, "leader": 2.0, "keys": 1500.0, "bytes": 2097152.0, "keyspace": "user"} {
		if second[field] != want {
			t.Errorf("%s is %v, want %v", field, second[field], want)
		}
	}
	if epoch := second["epoch"].(map[string]any); epoch["version"] != 2.0 || epoch["conf_version"] != 5.0 {
		t.Errorf("epoch: %v", epoch)
	}
	replicas := second["replicas"].([]any)
	if last := replicas[1].(map[string]any); len(replicas) != 2 || last["node"] != 3.0 || last["replica"] != 4.0 || last["role"] != "learner" {
		t.Errorf("replicas: %v", replicas)
	}
	if none, ok := list[2]["replicas"].([]any); !ok || len(none) != 0 {
		t.Errorf("no replicas are %v, want an empty list", list[2]["replicas"])
	}
	r := command{}.run(t, "shard", "list", "--endpoints", address)
	want := `SHARD  START     END       EPOCH  LEADER  NODES         KEYS   DATA
1      (system)  (system)  1.3    1       1             0      0 B
2      –         m\x00     2.5    2       2, 3 learner  1,500  2.0 MiB
3      m\x00     –         2.1    none                  0      0 B
`
	if r.stdout != want {
		t.Errorf("shard list:\n%s\nwant\n%s", r.stdout, want)
	}
}

func TestShardShow(t *testing.T) {
	address := shardServer(t)
	var got map[string]any
	decode(t, command{}.run(t, "shard", "show", "2", "-o", "json", "--endpoints", address), &got)
	details := got["replica_details"].([]any)
	if got["id"] != 2.0 || len(details) != 2 || details[0].(map[string]any)["applied_index"] != 89.0 || details[1].(map[string]any)["stopped"] != "checksum" {
		t.Errorf("shard show: %v", got)
	}
	decode(t, command{}.run(t, "shard", "show", "--key", `zebra\x00`, "-o", "json", "--endpoints", address), &got)
	if got["id"] != 3.0 {
		t.Errorf("shard show --key: %v", got)
	}
	if r := (command{}).run(t, "shard", "show", "2", "--endpoints", address); !strings.Contains(r.stdout, "leads") || !strings.Contains(r.stdout, "stopped: checksum") {
		t.Errorf("shard show: %+v", r)
	}
	if r := (command{}).run(t, "shard", "show", "9", "--endpoints", address); r.code != exitFailed || r.stderr != "kiloraft: shard show: there is no shard 9\n" {
		t.Errorf("shard show 9: %+v", r)
	}
}

func TestTransferLeader(t *testing.T) {
	address := shardServer(t)
	if r := (command{}).run(t, "shard", "transfer-leader", "2", "--to", "3", "--endpoints", address); r.stdout != "shard 2 is led by node 3 in term 12\n" {
		t.Errorf("transfer: %+v", r)
	}
	var got map[string]any
	decode(t, command{}.run(t, "shard", "transfer-leader", "--key", "apple", "--to", "1", "-o", "json", "--endpoints", address), &got)
	if got["id"] != 2.0 || got["leader"] != 1.0 || got["term"] != 12.0 {
		t.Errorf("transfer --key: %v", got)
	}
	r := command{}.run(t, "shard", "transfer-leader", "2", "--to", "77", "--endpoints", address)
	if r.code != exitFailed || r.stderr != "kiloraft: shard transfer-leader: shard 2: node 77 has no voter of this shard\n" {
		t.Errorf("transfer to a stranger: %+v", r)
	}
}
