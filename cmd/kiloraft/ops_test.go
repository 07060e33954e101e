package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// operationServer is a cluster in which an operation takes a few looks.
type operationServer struct {
	*fakeCluster
	mu    sync.Mutex
	op    *kiloraftpb.Operation
	looks int
	end   string // its state after three looks; "": it never ends
	says  string // why it failed
}

func newOperationServer(t *testing.T, end string) (s *operationServer, address string) {
	s = &operationServer{fakeCluster: &fakeCluster{}, end: end}
	s.listShards = func(q *kiloraftpb.ListShardsRequest) (*kiloraftpb.ListShardsResponse, error) {
		if q.GetId() > 3 {
			return &kiloraftpb.ListShardsResponse{}, nil
		}
		return &kiloraftpb.ListShardsResponse{Shards: fakeShards()[1:2]}, nil
	}
	s.change = func(q *kiloraftpb.ChangeReplicasRequest) (*kiloraftpb.OperationResponse, error) {
		if q.GetToNode() == 77 {
			return nil, &shard.InvalidError{Field: "--to", Reason: "node 77 does not exist"}
		}
		kind := "move"
		switch {
		case q.GetFromNode() == 0:
			kind = "add-replica"
		case q.GetToNode() == 0:
			kind = "remove-replica"
		}
		return s.begin(&kiloraftpb.Operation{Kind: kind, Shard: q.GetShard(), FromNode: q.GetFromNode(), ToNode: q.GetToNode()})
	}
	s.drain = func(q *kiloraftpb.DrainNodeRequest) (*kiloraftpb.OperationResponse, error) {
		if q.GetUndo() {
			return &kiloraftpb.OperationResponse{Operation: &kiloraftpb.Operation{Kind: "drain", Node: q.GetNode(), State: "cancelled"}}, nil
		}
		return s.begin(&kiloraftpb.Operation{Kind: "drain", Node: q.GetNode()})
	}
	s.leave = func(q *kiloraftpb.DecommissionNodeRequest) (*kiloraftpb.OperationResponse, error) {
		return s.begin(&kiloraftpb.Operation{Kind: "decommission", Node: q.GetNode()})
	}
	s.cancel = func(q *kiloraftpb.CancelOperationRequest) (*kiloraftpb.OperationResponse, error) {
		if q.GetId() != 7 {
			return nil, &shard.InvalidError{Field: "operation", Reason: "8 does not exist"}
		}
		return &kiloraftpb.OperationResponse{Operation: &kiloraftpb.Operation{Id: 7, Kind: "drain", Node: 3, State: "cancelled"}}, nil
	}
	s.operations = s.list
	s.explain = func(q *kiloraftpb.ExplainPlacementRequest) (*kiloraftpb.ExplainPlacementResponse, error) {
		return &kiloraftpb.ExplainPlacementResponse{Lines: []string{"shard " + shard.ID(q.GetShard()).String(), "node " + shard.NodeID(q.GetNode()).String()}}, nil
	}
	s.setSetting = func(q *kiloraftpb.SetSettingRequest) (*kiloraftpb.SetSettingResponse, error) {
		return &kiloraftpb.SetSettingResponse{Setting: &kiloraftpb.Setting{Name: q.GetName(), Kind: "boolean", Value: q.GetValue(), Default: "false", Min: "false", Max: "true", Set: true}}, nil
	}
	return s, serveFake(t, s.fakeCluster)
}

func (s *operationServer) begin(op *kiloraftpb.Operation) (*kiloraftpb.OperationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op.Id, op.State, op.Progress, op.BeganUnix = 7, "running", "begins", uint64(time.Now().Unix())
	s.op, s.looks = op, 0
	return &kiloraftpb.OperationResponse{Operation: op}, nil
}

func (s *operationServer) list(q *kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	switch {
	case s.op == nil || q.GetId() != 0 && q.GetId() != 7:
		return &kiloraftpb.ListOperationsResponse{}, nil
	case s.looks == 1:
		return nil, shard.ErrUnavailable // a restart; the operation is recorded
	}
	op := &kiloraftpb.Operation{Id: s.op.Id, Kind: s.op.Kind, Nodes: s.op.Nodes, Shard: s.op.Shard, FromNode: s.op.FromNode, ToNode: s.op.ToNode, Node: s.op.Node,
		State: "running", Progress: "the learner is being sent a snapshot", BeganUnix: s.op.BeganUnix}
	if s.looks >= 4 && s.end != "" {
		op.State, op.Progress, op.Reason = s.end, "", s.says
	}
	return &kiloraftpb.ListOperationsResponse{Operations: []*kiloraftpb.Operation{op}}, nil
}

// scatters has the fake answer to a scatter of shard 2, and of all, with one operation.
func (s *operationServer) scatters() {
	s.scatter = func(q *kiloraftpb.ScatterShardsRequest) (*kiloraftpb.ScatterShardsResponse, error) {
		op := &kiloraftpb.Operation{Kind: "scatter", Shard: 2, Nodes: []uint64{4, 1, 3}}
		if !q.GetDryRun() {
			begun, err := s.begin(op)
			if err != nil {
				return nil, err
			}
			op = begun.GetOperation()
		}
		r := &kiloraftpb.ScatterShardsResponse{Operations: []*kiloraftpb.Operation{op}}
		if q.GetShard() == 0 {
			r.Refused = []*kiloraftpb.PlacementNote{{Id: 3, Text: "its members are changing"}}
		}
		return r, nil
	}
}

func TestScatterWaitsForItsOperations(t *testing.T) {
	s, address := newOperationServer(t, "done")
	s.scatters()
	for line, says := range map[string]string{
		"shard scatter 2":         "scatter shard 2 over nodes 1 3 4, led by node 4: done\n",
		"shard scatter --key a":   "scatter shard 2 over nodes 1 3 4, led by node 4: done\n",
		"shard scatter":           "scatter shard 2 over nodes 1 3 4, led by node 4: done\n",
		"shard scatter --dry-run": "scatter shard 2 over nodes 1 3 4, led by node 4: planned\n",
	} {
		r := command{}.run(t, append(strings.Fields(line), "--endpoints", address)...)
		if r.code != exitDone || r.stdout != says {
			t.Errorf("%s: %+v", line, r)
		}
		if (len(strings.Fields(strings.TrimSuffix(line, " --dry-run"))) == 2) != strings.Contains(r.stderr, "shard 3 stays where it is: its members are changing\n") {
			t.Errorf("%s: stderr %q", line, r.stderr)
		}
	}
	var got struct {
		DryRun     bool `json:"dry_run"`
		Operations []operationRecord
	}
	decode(t, command{}.run(t, "shard", "scatter", "2", "-o", "json", "--endpoints", address), &got)
	if ops := got.Operations; got.DryRun || len(ops) != 1 || ops[0].Kind != "scatter" || ops[0].State != "done" || len(ops[0].Nodes) != 3 || ops[0].Nodes[0] != 4 {
		t.Errorf("%+v", got)
	}
	s, address = newOperationServer(t, "failed")
	s.scatters()
	s.says = "node 4 is dead"
	if r := (command{}).run(t, "shard", "scatter", "2", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, "operation 7 on shard 2 is failed: node 4 is dead") {
		t.Errorf("%+v", r)
	}
}

func TestCommandsWaitForTheirOperations(t *testing.T) {
	_, address := newOperationServer(t, "done")
	for line, says := range map[string]string{
		"shard move 2 --from 3 --to 4":       "shard 2 has moved from node 3 to node 4\n",
		"shard add-replica 2 --to 4":         "shard 2 has a replica on node 4\n",
		"shard remove-replica 2 --from 3":    "shard 2 has no replica on node 3 any more\n",
		"shard move --key a --from 3 --to 4": "shard 2 has moved from node 3 to node 4\n",
		"node drain 3":                       "node 3 is drained: it leads nothing, and may be stopped\n",
		"node drain 3 --undo":                "node 3 serves again; leaders come back to it by and by\n",
		"node decommission 3":                "node 3 holds nothing any more and has left the cluster\n",
	} {
		r := command{}.run(t, append(strings.Fields(line), "--endpoints", address)...)
		if r.code != exitDone || r.stdout != says {
			t.Errorf("%s: %+v", line, r)
		}
		if !strings.Contains(line, "undo") && !strings.HasPrefix(r.stderr, "operation 7: begins\n") {
			t.Errorf("%s: no progress in %q", line, r.stderr)
		}
	}
	var got map[string]any
	decode(t, command{}.run(t, "shard", "move", "2", "--from", "3", "--to", "4", "-o", "json", "--endpoints", address), &got)
	if got["id"] != 7.0 || got["kind"] != "move" || got["shard"] != 2.0 || got["from_node"] != 3.0 || got["to_node"] != 4.0 || got["state"] != "done" {
		t.Errorf("%v", got)
	}
}

func TestOperationsThatDoNotEndWell(t *testing.T) {
	s, address := newOperationServer(t, "failed")
	s.says = "node 4 is dead"
	r := command{}.run(t, "shard", "move", "2", "--from", "3", "--to", "4", "--endpoints", address)
	if r.code != exitFailed || r.stdout != "" || !strings.HasSuffix(r.stderr, "kiloraft: shard move: operation 7 failed: node 4 is dead\n") {
		t.Errorf("%+v", r)
	}
	_, address = newOperationServer(t, "cancelled")
	if r := (command{}).run(t, "node", "decommission", "3", "--endpoints", address); r.code != exitFailed || !strings.HasSuffix(r.stderr, "operation 7 was cancelled\n") {
		t.Errorf("%+v", r)
	}
	// Somebody else cancels a drain: nothing is left of it.
	s, address = newOperationServer(t, "")
	s.operations = func(*kiloraftpb.ListOperationsRequest) (*kiloraftpb.ListOperationsResponse, error) {
		return &kiloraftpb.ListOperationsResponse{}, nil
	}
	if r := (command{}).run(t, "node", "drain", "3", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, "operation 7 is over: it was cancelled") {
		t.Errorf("%+v", r)
	}
	_, address = newOperationServer(t, "")
	r = command{}.run(t, "node", "drain", "3", "--timeout", "700ms", "--endpoints", address)
	if r.code != exitFailed || !strings.Contains(r.stderr, "gave up after 700ms (--timeout), and operation 7 goes on") || !strings.Contains(r.stderr, "kiloraft ops cancel 7") {
		t.Errorf("%+v", r)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if r := (command{}).runWithin(t, ctx, "shard", "add-replica", "2", "--to", "4", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, "interrupted") {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "shard", "add-replica", "2", "--to", "77", "--endpoints", address); r.code != exitUsage || r.stderr != "kiloraft: shard add-replica: shard 2: --to node 77 does not exist\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "shard", "move", "99", "--from", "1", "--to", "2", "--endpoints", address); r.code != exitFailed || r.stderr != "kiloraft: shard move: there is no shard 99\n" {
		t.Errorf("%+v", r)
	}
}

func TestOps(t *testing.T) {
	s, address := newOperationServer(t, "")
	if r := (command{}).run(t, "ops", "list", "-o", "json", "--endpoints", address); r.stdout != "[]\n" {
		t.Errorf("no operations: %+v", r)
	}
	if _, err := s.begin(&kiloraftpb.Operation{Kind: "move", Shard: 2, FromNode: 3, ToNode: 4}); err != nil {
		t.Fatal(err)
	}
	s.looks = 1
	want := `OPERATION  WHAT                                STATE    BEGAN   ENDED  NOW
7          move shard 2 from node 3 to node 4  running  `
	if r := (command{}).run(t, "ops", "list", "--endpoints", address); !strings.HasPrefix(r.stdout, want) || !strings.HasSuffix(r.stdout, " ago  –      the learner is being sent a snapshot\n") {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "ops", "show", "7", "--endpoints", address); r.stdout != "operation 7: move shard 2 from node 3 to node 4: running: the learner is being sent a snapshot\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "ops", "show", "8", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, "there is no operation 8") {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "ops", "cancel", "7", "--endpoints", address); r.stdout != "operation 7: drain node 3: cancelled\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "ops", "cancel", "8", "--endpoints", address); r.code != exitFailed || !strings.Contains(r.stderr, "operation 8 does not exist") {
		t.Errorf("%+v", r)
	}
}

func TestPlacementCommands(t *testing.T) {
	_, address := newOperationServer(t, "")
	var got map[string]any
	decode(t, command{}.run(t, "placement", "pause", "-o", "json", "--endpoints", address), &got)
	if got["name"] != "placement.paused" || got["value"] != true || got["default"] != false {
		t.Errorf("%v", got)
	}
	if r := (command{}).run(t, "placement", "resume", "--endpoints", address); r.stdout != "placement works by itself again\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "placement", "explain", "--shard", "5", "--endpoints", address); r.stdout != "shard 5\nnode 0\n" {
		t.Errorf("%+v", r)
	}
	if r := (command{}).run(t, "placement", "explain", "--key", "apple", "--endpoints", address); r.stdout != "shard 2\nnode 0\n" {
		t.Errorf("%+v", r)
	}
	decode(t, command{}.run(t, "placement", "explain", "--node", "3", "-o", "json", "--endpoints", address), &got)
	if lines := got["lines"].([]any); got["node"] != 3.0 || len(lines) != 2 || lines[1] != "node 3" {
		t.Errorf("%v", got)
	}
}
