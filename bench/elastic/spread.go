package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kiloraft/kiloraft/bench"
)

const (
	// shareMin is the part of all operations with which a node bears its load.
	shareMin = 0.15
	// spreadAfter is for how long the load goes on when every node bears its part.
	spreadAfter = 10 * time.Second
	rowsMax     = 15 // of the table over time
)

// spreadFigures are those of a spread.
type spreadFigures struct {
	Peak    float64            `json:"peak"` // operations per second of the one shard
	Rate    float64            `json:"rate"`
	First   map[uint64]float64 `json:"first_share_seconds"` // by node: when it first had its part
	Samples []sample           `json:"samples"`
	Ops     uint64             `json:"ops"`
	Failed  uint64             `json:"failed"`
	Latency bench.Latency      `json:"latency_ms"`
}

// sample is the cluster at one moment, and what it did since the one before.
type sample struct {
	Seconds float64     `json:"seconds"`
	Shards  int         `json:"shards"`
	Nodes   []nodeShare `json:"nodes"`
}

// nodeShare is what a node bears.
type nodeShare struct {
	holding
	OpsPerSec float64 `json:"ops_per_sec"` // by its own counters
	Share     float64 `json:"share"`       // of all nodes' operations
}

// spread measures how a load on one shard comes to be one on all nodes.
func spread(ctx context.Context, s *scene, r *report) error {
	f := spreadFigures{First: map[uint64]float64{}}
	var err error
	if f.Peak, err = s.peak(ctx); err != nil {
		return err
	}
	c := s.config()
	f.Rate = math.Max(math.Floor(f.Peak/2), 1)
	c.Rate, c.Duration = f.Rate, s.Scale.Spread
	s.say("the peak is %s/s; %s/s until every node bears its part, for %v at most", count(f.Peak), count(f.Rate), s.Scale.Spread)
	nodes := 0
	var looked error
	load, err := s.until(ctx, c, func(ctx context.Context) { nodes, looked = f.look(ctx, s) })
	if err == nil {
		err = looked
	}
	if err != nil {
		return err
	}
	f.Ops, f.Failed, f.Latency = load.Ops, load.Errors, load.Latency
	r.load("while shards split and moved", load)
	if s.Scale.Judged && len(f.First) < nodes {
		r.fail("after %v only %d of %d nodes had borne %.0f %% of the operations", s.Scale.Spread, len(f.First), nodes, 100*shareMin)
	}
	f.report(r, nodes)
	return nil
}

// look takes samples until every node bears its part, and for a while after. It returns
// how many nodes there are.
func (f *spreadFigures) look(ctx context.Context, s *scene) (nodes int, err error) {
	began := time.Now()
	before, _, err := s.holdings(ctx)
	if err != nil {
		return 0, err
	}
	at, nodes := time.Now(), len(before)
	var enough time.Time
	for sleep(ctx, lookEvery) {
		now, shards, err := s.holdings(ctx)
		switch {
		case ctx.Err() != nil: // the load's time is over
			return nodes, nil
		case err != nil:
			return nodes, err
		case len(now) != nodes:
			return nodes, fmt.Errorf("there were %d nodes and are %d", nodes, len(now))
		}
		one := compare(before, now, time.Since(at))
		one.Seconds, one.Shards = time.Since(began).Seconds(), shards
		before, at = now, time.Now()
		f.Samples = append(f.Samples, one)
		for _, n := range one.Nodes {
			if _, had := f.First[n.Node]; !had && n.Share >= shareMin {
				f.First[n.Node] = one.Seconds
				s.say("node %d bears %.0f %% of the operations; %d shards", n.Node, 100*n.Share, shards)
			}
		}
		if len(f.First) == nodes {
			if enough.IsZero() {
				enough = time.Now()
			}
			if time.Since(enough) >= spreadAfter {
				break
			}
		}
	}
	return nodes, nil
}

// compare tells what nodes did between two looks.
func compare(before, now []holding, d time.Duration) (s sample) {
	var all float64
	for i, h := range now {
		n := nodeShare{holding: h, OpsPerSec: math.Max(h.ops-before[i].ops, 0) / d.Seconds()}
		all += n.OpsPerSec
		s.Nodes = append(s.Nodes, n)
	}
	for i := range s.Nodes {
		s.Nodes[i].Share = s.Nodes[i].OpsPerSec / math.Max(all, 1)
	}
	return s
}

func (f *spreadFigures) report(r *report, nodes int) {
	r.put(f)
	rows := [][]string{{"time", "shards"}}
	least, last := 0.0, 0.0
	for i, s := range f.Samples {
		if i == 0 {
			for _, n := range s.Nodes {
				rows[0] = append(rows[0], fmt.Sprintf("node %d: leaders, ops/s, share", n.Node))
			}
		}
		if i == len(f.Samples)-1 {
			least = 1
			for _, n := range s.Nodes {
				least = math.Min(least, n.Share)
			}
		} else if i%max(len(f.Samples)/rowsMax, 1) != 0 {
			continue
		}
		row := []string{fmt.Sprintf("%.0f s", s.Seconds), fmt.Sprint(s.Shards)}
		for _, n := range s.Nodes {
			row = append(row, fmt.Sprintf("%d  %6s  %3.0f %%", n.Leaders, count(n.OpsPerSec), 100*n.Share))
		}
		rows = append(rows, row)
	}
	for _, at := range f.First {
		last = math.Max(last, at)
	}
	all := "never"
	if nodes > 0 && len(f.First) == nodes {
		all = fmt.Sprintf("%.0fs", last)
	}
	shards := 0
	if n := len(f.Samples); n > 0 {
		shards = f.Samples[n-1].Shards
	}
	r.Table = tableOf(rows)
	r.Summary = fmt.Sprintf("peak=%.0f rate=%.0f ops=%d failed=%d shards=%d all_nodes_after=%s least_share=%.0f%% p99=%.1fms", f.Peak, f.Rate, f.Ops, f.Failed, shards, all, 100*least, f.Latency.P99)
}
