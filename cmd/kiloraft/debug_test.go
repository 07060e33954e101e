package main

import (
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// inspecting serves a node that has the given answer for every key.
func inspecting(t *testing.T, answer *kiloraftpb.InspectKeyResponse, err error) string {
	return serveFake(t, &fakeCluster{inspectKey: func(*kiloraftpb.InspectKeyRequest) (*kiloraftpb.InspectKeyResponse, error) { return answer, err }})
}

// directing serves a node that knows shard 2 with replicas on nodes at addresses,
// the first being node 1.
func directing(t *testing.T, addresses ...string) string {
	d := &kiloraftpb.Descriptor{Id: 2, Start: []byte{shard.UserKeyspace}, End: []byte{shard.UserKeyspace, 'm'}, Epoch: &kiloraftpb.Epoch{Version: 3, ConfVersion: 4}}
	list := &kiloraftpb.ListNodesResponse{}
	for i, address := range addresses {
		id := uint64(i + 1)
		d.Replicas = append([]*kiloraftpb.Replica{{Id: id + 10, Node: id, Role: uint32(shard.Voter)}}, d.Replicas...)
		list.Nodes = append(list.Nodes, &kiloraftpb.NodeInfo{Id: id, Address: address})
	}
	return serveFake(t, &fakeCluster{
		listShards: func(q *kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
			if string(q.GetKey()) != "hello\x00" {
				return &kiloraftpb.ListShardsResponse{}, nil
			}
			return &kiloraftpb.ListShardsResponse{Shards: []*kiloraftpb.ShardInfo{{Descriptor_: d}}}, nil
		},
		listNodes: func() (*kiloraftpb.ListNodesResponse, error) { return list, nil },
	})
}

func TestDebugKey(t *testing.T) {
	versions := []*kiloraftpb.KeyVersion{
		{Revision: 1200, Tombstone: true, Session: 0xbeef, Sequence: 17},
		{Revision: 1100, Bytes: 2048, Session: 0xcafe, Sequence: 3},
	}
	leader := &kiloraftpb.InspectKeyResponse{Node: 1, Shard: 2, Replica: 11, Leading: true, Floor: 1000, LastRevision: 1250, Applied: 88, Versions: versions}
	follower := &kiloraftpb.InspectKeyResponse{Node: 2, Shard: 2, Replica: 12, Floor: 900, LastRevision: 1200, Applied: 80, Versions: versions}
	lagging := &kiloraftpb.InspectKeyResponse{Node: 3, Shard: 2, Replica: 13, Floor: 900, LastRevision: 1100, Applied: 70, Versions: versions[1:], More: true}
	dead := deadAddress(t)
	address := directing(t, inspecting(t, leader, nil), inspecting(t, follower, nil), inspecting(t, lagging, nil), dead, "10.1.2.3:7400", inspecting(t, leader, nil))

	var got keyRecord
	decode(t, command{}.run(t, "debug", "key", `hello\x00`, "-o", "json", "--endpoints", address), &got)
	if got.Key != `hello\x00` || got.Shard != 2 || got.Start != "" || got.End != "m" || len(got.Replicas) != 6 {
		t.Fatalf("%+v", got)
	}
	first := got.Replicas[0]
	if first.Node != 1 || first.Replica != 11 || !first.Leading || first.Role != "voter" || first.Floor != 1000 || first.LastRevision != 1250 || first.Applied != 88 || len(first.Versions) != 2 ||
		(first.Versions[0] != versionRecord{Revision: 1200, Kind: "delete", Session: "000000000000beef", Sequence: 17}) ||
		(first.Versions[1] != versionRecord{Revision: 1100, Kind: "put", Bytes: 2048, Session: "000000000000cafe", Sequence: 3}) {
		t.Errorf("%+v", first)
	}
	for i, says := range map[int]string{3: "connection refused", 4: "not a loopback address", 5: "there is node 1"} {
		if r := got.Replicas[i]; r.Node != uint64(i+1) || !strings.Contains(r.Error, says) || r.Versions == nil {
			t.Errorf("%+v, want an error that says %q", r, says)
		}
	}

	r := command{}.run(t, "debug", "key", `hello\x00`, "--endpoints", address)
	for _, want := range []string{
		"key hello\\x00 is in shard 2, from – to m, epoch 3.4\n\n",
		"NODE  REPLICA  STATE    FLOOR  LAST REVISION  APPLIED  VERSIONS\n1     11       leads    1000   1250           88       2\n2     12       follows  900    1200           80       2\n3     13       follows  900    1100           70       1 or more\n4     14       ",
		"\nversions on nodes 1, 2, newest first:\nREVISION  KIND    SIZE     OPERATION\n1200      delete  0 B      000000000000beef/17\n1100      put     2.0 KiB  000000000000cafe/3\n",
		"\nversions on node 3, newest first:\nREVISION  KIND  SIZE     OPERATION\n1100      put   2.0 KiB  000000000000cafe/3\n… and older ones\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no\n%s\nin\n%s", want, r.stdout)
		}
	}
}

func TestDebugKeyWithoutAnswers(t *testing.T) {
	address := directing(t, inspecting(t, nil, &shard.WrongShardError{Shard: 2}), deadAddress(t))
	r := command{}.run(t, "debug", "key", `hello\x00`, "--endpoints", address)
	if r.code != exitFailed || r.stdout != "" || !strings.HasPrefix(r.stderr, "kiloraft: debug key: no replica of shard 2 tells what it has: node 1: shard 2 does not serve") || !strings.Contains(r.stderr, "node 2: ") {
		t.Errorf("debug key: %+v", r)
	}
	if r := (command{}).run(t, "debug", "key", "other", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, `no shard is known to hold key "other"`) {
		t.Errorf("of no shard: %+v", r)
	}
}
