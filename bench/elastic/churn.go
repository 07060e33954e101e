package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kiloraft/kiloraft/bench"
)

// ratioMax is how many times the quiet p99 the one with splits and moves may be.
const ratioMax = 2.0

// churnFigures are those of a churn. Latencies and gaps are in milliseconds.
type churnFigures struct {
	Peak   float64       `json:"peak"` // operations per second
	Rate   float64       `json:"rate"`
	Quiet  bench.Latency `json:"quiet_ms"`
	Busy   bench.Latency `json:"busy_ms"`
	Ratio  float64       `json:"p99_ratio"`
	Ops    uint64        `json:"ops"`
	Failed uint64        `json:"failed"`
	// Gaps by kind: "quiet", "split" and "move".
	Gaps   map[string]*gapFigures `json:"gaps"`
	Events []event                `json:"events"`
}

// gapFigures are the longest times without an answer, in milliseconds.
type gapFigures struct {
	Events int     `json:"events"`
	Took   float64 `json:"longest_took_ms"` // of the events
	All    float64 `json:"all_keys_ms"`
	Shard  float64 `json:"one_shard_ms"` // of the keys of the event's shard; quiet: of the worst shard
}

func (g *gapFigures) add(took, all, shard float64) {
	g.Events++
	g.Took, g.All, g.Shard = max(g.Took, took), max(g.All, all), max(g.Shard, shard)
}

// churn measures a steady load alone, and while shards are split and moved.
func churn(ctx context.Context, s *scene, r *report) error {
	// Whatever placement would do besides is no part of either measurement.
	if err := s.set(ctx, "placement.paused", "true"); err != nil {
		return err
	}
	f := churnFigures{Gaps: map[string]*gapFigures{"quiet": {}, splitEvent: {}, moveEvent: {}}}
	var err error
	if f.Peak, err = s.peak(ctx); err != nil {
		return err
	}
	c := s.config()
	c.Warmup = warmup
	// Whole operations: a peak of nothing is no rate, which would be a closed loop.
	c.Rate = math.Max(math.Floor(f.Peak/2), 1)
	f.Rate = c.Rate

	s.say("the peak is %s/s; %s/s alone for %v", count(f.Peak), count(f.Rate), s.Scale.Quiet)
	c.Duration = s.Scale.Quiet
	var looked error
	quiet, err := s.under(ctx, c, func(ctx context.Context) { looked = s.watchQuiet(ctx, f.Gaps["quiet"]) })
	if err == nil {
		err = looked
	}
	if err != nil {
		return err
	}

	s.say("%s/s with %d splits and %d moves for %v", count(f.Rate), s.Scale.Splits, s.Scale.Moves, s.Scale.Busy)
	c.Duration = s.Scale.Busy
	busy, err := s.under(ctx, c, func(ctx context.Context) { f.Events = s.events(ctx) })
	if err != nil {
		return err
	}

	f.Quiet, f.Busy = quiet.Latency, busy.Latency
	f.Ratio = f.Busy.P99 / math.Max(f.Quiet.P99, 0.001)
	f.Ops, f.Failed = quiet.Ops+busy.Ops, quiet.Errors+busy.Errors
	for _, e := range f.Events {
		if e.Error != "" {
			r.fail("%s of shard %d: %s", e.Kind, e.Shard, e.Error)
			continue
		}
		f.Gaps[e.Kind].add(e.Took, e.GapAll, e.GapShard)
	}
	r.load("quiet", quiet)
	r.load("with splits and moves", busy)
	if s.Scale.Judged && f.Ratio > ratioMax {
		r.fail("p99 with splits and moves is %.2f times the quiet one; it may be %g times", f.Ratio, ratioMax)
	}
	f.report(r)
	return nil
}

// watchQuiet measures gaps when nothing is done, of all keys and of each shard's.
func (s *scene) watchQuiet(ctx context.Context, g *gapFigures) error {
	began := time.Now()
	shards, err := s.shards(ctx)
	if err != nil {
		return err
	}
	all := s.store.watch(span{})
	var each []*gap
	for _, one := range shards {
		each = append(each, s.store.watch(spanOf(one)))
	}
	sleep(ctx, s.Scale.Quiet-time.Since(began))
	g.All = millis(s.store.end(all))
	for _, w := range each {
		g.Shard = max(g.Shard, millis(s.store.end(w)))
	}
	return nil
}

func (f *churnFigures) report(r *report) {
	r.put(f)
	rows := [][]string{{"", "p50", "p99", "p99.9", "max"}}
	for _, l := range []struct {
		name string
		bench.Latency
	}{{"quiet", f.Quiet}, {"splits and moves", f.Busy}} {
		rows = append(rows, []string{l.name, ms(l.P50), ms(l.P99), ms(l.P999), ms(l.Max)})
	}
	gaps := [][]string{{"longest without an answer", "events", "longest took", "all keys", "one shard's keys"}}
	for _, kind := range []string{"quiet", splitEvent, moveEvent} {
		g := f.Gaps[kind]
		row := []string{kind, fmt.Sprint(g.Events), ms(g.Took), ms(g.All), ms(g.Shard)}
		if kind == "quiet" {
			row[1], row[2] = "–", "–"
		}
		gaps = append(gaps, row)
	}
	r.Table = tableOf(rows) + tableOf(gaps)
	split, move := f.Gaps[splitEvent], f.Gaps[moveEvent]
	r.Summary = fmt.Sprintf("peak=%.0f rate=%.0f splits=%d moves=%d ops=%d failed=%d p99_quiet=%.1fms p99=%.1fms ratio=%.2f gap_quiet=%.0fms gap_split=%.0fms gap_move=%.0fms",
		f.Peak, f.Rate, split.Events, move.Events, f.Ops, f.Failed, f.Quiet.P99, f.Busy.P99, f.Ratio, f.Gaps["quiet"].All, split.All, move.All)
}

func count(v float64) string { return bench.Count(uint64(v + 0.5)) }
