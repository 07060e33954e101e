package placement

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// forecastShard is a shard with voters on nodes, led by the first of them.
func forecastShard(id shard.ID, nodes ...shard.NodeID) *Shard {
	s := &Shard{Descriptor: shard.Descriptor{ID: id, Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, Span: shard.UserSpan(), NextReplica: shard.ReplicaID(len(nodes) + 1)},
		Leader: nodes[0], Commit: 20}
	for i, n := range nodes {
		s.Descriptor.Replicas = append(s.Descriptor.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: n, Role: shard.Voter})
		s.Progress = append(s.Progress, Progress{Replica: shard.ReplicaID(i + 1), Match: 20, Active: true})
	}
	return s
}

// told is a shard after a forecast: who leads, and who votes.
func told(s *Shard) string {
	var on []string
	for _, r := range s.Descriptor.Replicas {
		text := r.Node.String()
		if r.Role != shard.Voter {
			text += " " + r.Role.String()
		}
		on = append(on, text)
	}
	return fmt.Sprintf("%d of %s", s.Leader, strings.Join(on, ", "))
}

func TestForecast(t *testing.T) {
	nodes := func(states ...shard.NodeState) (all []Node) {
		for i, state := range states {
			all = append(all, Node{ID: shard.NodeID(i + 1), Live: true, State: state})
		}
		return all
	}
	const ok, drains, leaves = shard.Serving, shard.Draining, shard.Leaving
	task := func(s *Shard, from, to shard.NodeID) *Shard {
		s.Task = &Task{From: from, To: to}
		return s
	}
	silent := func(s *Shard, replica int) *Shard {
		s.Progress[replica-1].Active = false
		return s
	}
	for _, c := range []struct {
		name  string
		nodes []Node
		s     *Shard
		want  string
		waits string // part of what is said of what is left
	}{
		{"nothing to do", nodes(ok, ok, ok, ok), forecastShard(2, 1, 2, 3), "1 of 1, 2, 3", ""},
		{"a move", nodes(ok, ok, ok, ok), task(forecastShard(2, 1, 2, 3), 3, 4), "1 of 1, 2, 4", ""},
		{"a move of the leader", nodes(ok, ok, ok, ok), task(forecastShard(2, 1, 2, 3), 1, 4), "2 of 2, 3, 4", ""},
		{"one replica more", nodes(ok, ok, ok, ok), task(forecastShard(2, 1, 2, 3), 0, 4), "1 of 1, 2, 3, 4", ""},
		{"one replica less", nodes(ok, ok, ok, ok), task(forecastShard(2, 1, 2, 3, 4), 2, 0), "1 of 1, 3, 4", ""},
		{"a node drains", nodes(drains, ok, ok, ok), forecastShard(2, 1, 2, 3), "2 of 1, 2, 3", ""},
		{"a node leaves", nodes(leaves, ok, ok, ok), forecastShard(2, 1, 2, 3), "2 of 2, 3, 4", ""},
		{"two nodes leave", nodes(leaves, leaves, ok, ok, ok), forecastShard(2, 1, 2, 3), "3 of 3, 4, 5", ""},
		{"a node leaves and nobody takes its place", nodes(ok, ok, leaves), forecastShard(2, 1, 2, 3), "1 of 1, 2, 3", "stay"},
		{"a silent voter", nodes(ok, ok, ok, ok), task(silent(forecastShard(2, 1, 2, 3), 2), 3, 4), "1 of 1, 2, 3, 4 learner", "waits until node 2"},
		{"no leader", nodes(ok, ok, ok, ok), func() *Shard { s := forecastShard(2, 1, 2, 3); s.Leader = 0; return s }(), "0 of 1, 2, 3", "no leader is known"},
	} {
		p := NewPlan(View{Nodes: c.nodes, Shards: []*Shard{c.s}}, Limits{})
		p.Forecast([]*Shard{c.s})
		text := ""
		if c.s.Task == nil || func() bool { state, _ := p.Judge(c.s); return state != TaskDone }() {
			text = p.Explain(c.s)
		}
		if got := told(c.s); got != c.want || (c.waits == "") != (text == "") || !strings.Contains(text, c.waits) {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, got, text, c.want, c.waits)
		}
	}
}

// Many shards that leave a node at once go to all others alike.
func TestForecastSpreads(t *testing.T) {
	v := View{Nodes: []Node{{ID: 1, Live: true, State: shard.Leaving}}}
	for id := shard.NodeID(2); id <= 6; id++ {
		v.Nodes = append(v.Nodes, Node{ID: id, Live: true})
	}
	for id := shard.ID(2); id < 22; id++ {
		v.Shards = append(v.Shards, forecastShard(id, 1, 2, 3))
	}
	NewPlan(v, Limits{}).Forecast(v.Shards)
	held := map[shard.NodeID]int{}
	for _, s := range v.Shards {
		for _, r := range s.Descriptor.Replicas {
			held[r.Node]++
		}
	}
	if held[1] != 0 || held[4] < 6 || held[5] < 6 || held[6] < 6 {
		t.Errorf("replicas go to %v", held)
	}
}
