package bench

import (
	"context"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// StatusFunc asks any node for the cluster's status.
type StatusFunc func(ctx context.Context) (*kiloraftpb.StatusResponse, error)

// clusterState is the part of a status that figures are made of.
type clusterState struct {
	shards int
	nodes  map[uint64]nodeState // live ones, by ID
}

type nodeState struct {
	incarnation uint64
	counters    map[string]float64
}

// statusTimeout bounds a question that must not hold a run up.
const statusTimeout = 2 * time.Second

// askCluster returns nil if the cluster cannot be asked.
func askCluster(ctx context.Context, c *Config) *clusterState {
	if c.Status == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	status, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	s := &clusterState{shards: int(status.GetShards()), nodes: map[uint64]nodeState{}}
	for _, n := range status.GetNodeInfos() {
		if n.GetLive() {
			s.nodes[n.GetId()] = nodeState{incarnation: n.GetIncarnation(), counters: n.GetCounters()}
		}
	}
	return s
}

// figuresOf compares the cluster's counters before and after the measured phase.
// Figures that cannot be told are nil: of a counter that the servers do not have,
// or when a node came, went or restarted meanwhile.
func figuresOf(before, after *clusterState, ops, puts uint64) *Cluster {
	if after == nil {
		return nil
	}
	c := &Cluster{Shards: after.shards, Nodes: len(after.nodes)}
	if before == nil || !sameProcesses(before, after) {
		return c
	}
	grown := func(counter string) (sum float64, known bool) {
		for id, n := range after.nodes {
			now, ok := n.counters[counter]
			if !ok {
				return 0, false
			}
			sum += now - before.nodes[id].counters[counter]
		}
		return sum, true
	}
	ratio := func(counter string, per float64, scale float64) *float64 {
		sum, known := grown(counter)
		if !known || per == 0 {
			return nil
		}
		v := sum / per * scale
		return &v
	}
	rounds, _ := grown("rounds_total")
	entries, _ := grown("entries_total")
	draws, _ := grown("revision_draws_total")
	c.FsyncsPerPut = ratio("wal_syncs_total", float64(puts), 1)
	c.CommitsPerPut = ratio("commits_total", float64(puts), 1)
	c.GroupsPerRound = ratio("groups_in_rounds_total", rounds, 1)
	c.OperationsPerEntry = ratio("operations_total", entries, 1)
	c.GrantsPerDraw = ratio("revisions_drawn_total", draws, 1)
	c.ServerCPUMicrosPerOp = ratio("process_cpu_seconds_total", float64(ops), 1e6)
	return c
}

func sameProcesses(a, b *clusterState) bool {
	if len(a.nodes) != len(b.nodes) {
		return false
	}
	for id, n := range a.nodes {
		if m, ok := b.nodes[id]; !ok || m.incarnation != n.incarnation {
			return false
		}
	}
	return len(a.nodes) > 0
}
