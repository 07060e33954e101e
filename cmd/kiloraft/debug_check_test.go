package main

import (
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// checking serves a cluster of one node that leads shard 5, whose replicas report the
// given checks, replica by replica.
func checking(t *testing.T, index uint64, beginErr error, checks ...*kiloraftpb.ReplicaCheck) string {
	var address string
	info := &kiloraftpb.ShardInfo{LeaderNode: 1, Descriptor_: &kiloraftpb.Descriptor{Id: 5, Start: []byte{shard.UserKeyspace}, End: []byte{shard.UserKeyspace + 1}}}
	for i, k := range checks {
		id := uint64(i + 1)
		info.Descriptor_.Replicas = append(info.Descriptor_.Replicas, &kiloraftpb.Replica{Id: id, Node: id, Role: uint32(shard.Voter)})
		if k != nil {
			info.Replicas = append(info.Replicas, &kiloraftpb.ReplicaInfo{Replica: id, Node: id, Leading: id == 1, Check: k})
		}
	}
	address = serveFake(t, &fakeCluster{
		listShards: func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
			return &kiloraftpb.ListShardsResponse{Shards: []*kiloraftpb.ShardInfo{info}}, nil
		},
		listNodes: func() (*kiloraftpb.ListNodesResponse, error) {
			return &kiloraftpb.ListNodesResponse{Nodes: []*kiloraftpb.NodeInfo{{Id: 1, Address: address}}}, nil
		},
		checkShard: func(q *kiloraftpb.CheckShardRequest) (*kiloraftpb.CheckShardResponse, error) {
			if q.GetShard() != 5 {
				t.Errorf("shard %d is checked", q.GetShard())
			}
			return &kiloraftpb.CheckShardResponse{Index: index}, beginErr
		},
	})
	return address
}

func TestDebugCheck(t *testing.T) {
	same := &kiloraftpb.ReplicaCheck{Index: 40, State: "same", Digest: []byte("abcd"), Versions: 1200, Bytes: 2048}
	differs := &kiloraftpb.ReplicaCheck{Index: 40, State: "differs", Digest: []byte("other"), Differs: true}
	passed := &kiloraftpb.ReplicaCheck{Index: 40, State: "not compared", Reason: "the replica came past the check by a snapshot"}
	later := &kiloraftpb.ReplicaCheck{Index: 41, State: "same", Digest: []byte("abcd")}
	early := &kiloraftpb.ReplicaCheck{Index: 39, State: "same", Digest: []byte("old")}
	computing := &kiloraftpb.ReplicaCheck{Index: 40, State: "computing"}
	for _, c := range []struct {
		name    string
		checks  []*kiloraftpb.ReplicaCheck
		verdict string
		says    string
	}{
		{"same", []*kiloraftpb.ReplicaCheck{same, same, later}, "same", ""},
		{"one differs", []*kiloraftpb.ReplicaCheck{same, differs, passed}, "differs", "replicas that differ"},
		{"one is passed over", []*kiloraftpb.ReplicaCheck{same, passed}, "incomplete", "not compared on all replicas"},
		{"one is silent", []*kiloraftpb.ReplicaCheck{same, nil}, "incomplete", "not compared on all replicas"},
		{"one is behind", []*kiloraftpb.ReplicaCheck{same, early}, "incomplete", "not compared on all replicas"},
		{"one takes longer", []*kiloraftpb.ReplicaCheck{same, computing}, "incomplete", "not compared on all replicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := checking(t, 40, nil, c.checks...)
			r := command{}.run(t, "debug", "check", "5", "-o", "json", "--endpoints", address, "--timeout", "400ms")
			want := exitDone
			if c.says != "" {
				want = exitFailed
			}
			if r.code != want || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stdout, `"verdict": "`+c.verdict+`"`) {
				t.Errorf("%+v", r)
			}
		})
	}
	r := command{}.run(t, "debug", "check", "--all", "--endpoints", checking(t, 40, nil, same, differs))
	if !strings.Contains(r.stdout, "1 (leads)") || !strings.Contains(r.stdout, "differs") || !strings.Contains(r.stdout, "1,200") || r.code != exitFailed {
		t.Errorf("%+v", r)
	}
	r = command{}.run(t, "debug", "check", "5", "--endpoints", checking(t, 0, shard.ErrUnavailable, same), "--timeout", "300ms")
	if r.code != exitFailed || !strings.Contains(r.stdout, "incomplete") {
		t.Errorf("a leader that does not answer: %+v", r)
	}
	r = command{}.run(t, "debug", "check", "6", "--endpoints", checking(t, 40, nil, same))
	if r.code != exitFailed || !strings.Contains(r.stdout, "shard 6 does not exist") {
		t.Errorf("an unknown shard: %+v", r)
	}
	for _, args := range [][]string{{}, {"5", "--all"}, {"0"}, {"five"}} {
		if r := (command{}).run(t, append([]string{"debug", "check"}, args...)...); r.code != exitUsage {
			t.Errorf("%v: %+v", args, r)
		}
	}
}
