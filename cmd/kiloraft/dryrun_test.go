package main

import (
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// dryServer foretells, and fails the test if anything is asked for in earnest.
func dryServer(t *testing.T) string {
	foretell := func(dry bool, node uint64) (*kiloraftpb.Forecast, error) {
		if !dry {
			t.Error("a change was asked for in earnest")
		}
		switch node {
		case 77:
			return nil, &shard.InvalidError{Field: "--to", Reason: "node 77 does not exist"}
		case 1:
			return &kiloraftpb.Forecast{}, nil
		}
		return &kiloraftpb.Forecast{Changes: []*kiloraftpb.ForecastChange{
			{Kind: "transfer-leader", Shard: 2, FromNode: 3, ToNode: 1}, {Kind: "move", Shard: 2, FromNode: 3, ToNode: 4, Bytes: 3 << 20},
			{Kind: "add-replica", Shard: 5, ToNode: 4, Bytes: 1 << 20}, {Kind: "remove-replica", Shard: 6, FromNode: 3},
		}, Waits: []string{"shard 9: waits until node 2 answers"}}, nil
	}
	f := &fakeCluster{}
	f.listShards = func(*kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
		return &kiloraftpb.ListShardsResponse{Shards: fakeShards()[1:2]}, nil
	}
	operation := func(forecast *kiloraftpb.Forecast, err error) (*kiloraftpb.OperationResponse, error) {
		return &kiloraftpb.OperationResponse{Forecast: forecast}, err
	}
	f.change = func(q *kiloraftpb.ChangeReplicasRequest) (*kiloraftpb.OperationResponse, error) {
		return operation(foretell(q.GetDryRun(), q.GetToNode()))
	}
	f.drain = func(q *kiloraftpb.DrainNodeRequest) (*kiloraftpb.OperationResponse, error) {
		return operation(foretell(q.GetDryRun(), q.GetNode()))
	}
	f.leave = func(q *kiloraftpb.DecommissionNodeRequest) (*kiloraftpb.OperationResponse, error) {
		return operation(foretell(q.GetDryRun(), q.GetNode()))
	}
	f.transfer = func(q *kiloraftpb.TransferLeaderRequest) (*kiloraftpb.TransferLeaderResponse, error) {
		forecast, err := foretell(q.GetDryRun(), q.GetToNode())
		return &kiloraftpb.TransferLeaderResponse{Forecast: forecast}, err
	}
	return serveFake(t, f)
}

func TestDryRun(t *testing.T) {
	address := dryServer(t)
	const want = `dry run: nothing was changed; this would be done:
  hand the lead of shard 2 from node 3 to node 1
  move shard 2 from node 3 to node 4, about 3.0 MiB
  add a replica of shard 5 on node 4, about 1.0 MiB
  remove the replica of shard 6 on node 3
it would wait: shard 9: waits until node 2 answers
about 4.0 MiB would be copied in all
`
	for _, line := range []string{"shard move 2 --from 3 --to 4", "shard move --key a --from 3 --to 4", "shard add-replica 2 --to 4", "shard remove-replica --key a --from 3",
		"shard transfer-leader --key a --to 4", "node drain 4", "node drain 4 --undo", "node decommission 4"} {
		r := command{}.run(t, append(strings.Fields(line), "--dry-run", "--endpoints", address)...)
		if r.code != exitDone || r.stdout != want || r.stderr != "" {
			t.Errorf("%s: %+v", line, r)
		}
		var got struct {
			DryRun  bool `json:"dry_run"`
			Changes []map[string]any
			Bytes   uint64
			Waits   []string
		}
		decode(t, command{}.run(t, append(strings.Fields(line), "--dry-run", "-o", "json", "--endpoints", address)...), &got)
		if !got.DryRun || len(got.Changes) != 4 || got.Changes[1]["kind"] != "move" || got.Changes[1]["bytes"] != 3145728.0 || got.Bytes != 4<<20 || len(got.Waits) != 1 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	// Refused as in earnest.
	if r := (command{}).run(t, "shard", "add-replica", "2", "--to", "77", "--dry-run", "--endpoints", address); r.code != exitUsage || r.stdout != "" ||
		r.stderr != "kiloraft: shard add-replica: shard 2: --to node 77 does not exist\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "node", "drain", "1", "--dry-run", "--endpoints", address); r.code != exitDone || r.stdout != "dry run: nothing was changed, and nothing would be\n" {
		t.Errorf("%+v", r)
	}
	var got struct{ Changes, Waits []any }
	decode(t, command{}.run(t, "node", "drain", "1", "--dry-run", "-o", "json", "--endpoints", address), &got)
	if got.Changes == nil || got.Waits == nil {
		t.Errorf("no changes are %v and %v, want empty lists", got.Changes, got.Waits)
	}
}
