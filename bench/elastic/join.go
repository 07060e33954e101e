package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/bench"
)

const (
	// joinValueBytes is the size of a value, joinRate the light load in operations per second.
	joinValueBytes = 64 << 10
	joinRate       = 50
	// joinClients write 2 MiB at once each, and are few.
	joinClients = 16
	// fairShare is the part of the mean from which on a node has its share, and joinGoal how
	// soon it is to have it.
	fairShare = 0.8
	joinGoal  = 2 * time.Minute
	// fillPatience bounds one call that writes values.
	fillPatience = time.Minute
	sayEvery     = 5 * time.Second
)

// joinFigures are those of a join. A time is in seconds since the node was started, and
// negative if it did not come.
type joinFigures struct {
	Bytes     uint64        `json:"bytes"` // of values
	Written   float64       `json:"written_seconds"`
	BytesAt   float64       `json:"bytes_share_seconds"`
	LeadersAt float64       `json:"leaders_share_seconds"`
	BothAt    float64       `json:"fair_share_seconds"` // both at one look
	Nodes     []holding     `json:"nodes"`              // in the end
	Ops       uint64        `json:"ops"`
	Failed    uint64        `json:"failed"`
	Latency   bench.Latency `json:"latency_ms"`
}

// join measures how long a new node takes to get its share.
func join(ctx context.Context, s *scene, r *report) error {
	f := joinFigures{Bytes: s.Scale.Bytes, BytesAt: -1, LeadersAt: -1, BothAt: -1}
	c := s.config()
	c.ValueBytes, c.Keys, c.Clients = joinValueBytes, max(s.Scale.Bytes/joinValueBytes, 1), joinClients
	if err := f.fill(ctx, s, c); err != nil {
		return err
	}
	before, _, err := s.holdings(ctx)
	if err != nil {
		return err
	}
	old := map[uint64]bool{}
	for _, h := range before {
		old[h.Node] = true
	}
	s.say("a node joins %d others; %d operations per second until it has its share, for %v at most", len(before), joinRate, s.Scale.Join)
	n, err := startNode(s.endpoints)
	if err != nil {
		return err
	}
	defer n.stop()
	c.Rate, c.Duration = joinRate, s.Scale.Join
	var looked error
	load, err := s.until(ctx, c, func(ctx context.Context) { looked = f.look(ctx, s, n, old) })
	if err == nil {
		err = looked
	}
	if err != nil {
		return err
	}
	f.Ops, f.Failed, f.Latency = load.Ops, load.Errors, load.Latency
	r.load("while the node joined", load)
	if s.Scale.Judged && (f.BothAt < 0 || f.BothAt > joinGoal.Seconds()) {
		r.fail("the node did not have %g of the mean of bytes and of leaders within %v", fairShare, joinGoal)
	}
	f.report(r, old)
	return nil
}

// fill writes all values.
func (f *joinFigures) fill(ctx context.Context, s *scene, c bench.Config) error {
	s.say("writing %s values of %d KiB", bench.Count(c.Keys), c.ValueBytes>>10)
	c.Load, c.Timeout, c.Duration = true, fillPatience, time.Millisecond
	said := time.Now()
	c.Progress = func(p bench.Progress) {
		if time.Since(said) >= sayEvery {
			said = time.Now()
			s.say("%s", strings.TrimSpace(p.String()))
		}
	}
	began := time.Now()
	r, err := bench.Run(ctx, s.store, c)
	f.Written = time.Since(began).Seconds()
	if err == nil && r.Errors > 0 {
		err = fmt.Errorf("after writing all values: %s", r.FirstErrors[0])
	}
	return err
}

// look looks at the nodes until the new one has its share.
func (f *joinFigures) look(ctx context.Context, s *scene, n *newNode, old map[uint64]bool) error {
	said := time.Now()
	for sleep(ctx, lookEvery) {
		now, _, err := s.holdings(ctx)
		switch {
		case ctx.Err() != nil: // the load's time is over
			return nil
		case err != nil:
			return err
		case n.ended():
			return fmt.Errorf("the new node has ended: %s", n.lastWords())
		}
		f.Nodes = now
		seconds := time.Since(n.began).Seconds()
		bytes, leaders := shares(now, old)
		note := func(at *float64, holds bool, what string) {
			if holds && *at < 0 {
				*at = seconds
				s.say("the new node has its share of %s", what)
			}
		}
		note(&f.BytesAt, bytes >= fairShare, "bytes")
		note(&f.LeadersAt, leaders >= fairShare, "leaders")
		if bytes >= fairShare && leaders >= fairShare {
			f.BothAt = seconds
			return nil
		}
		if time.Since(said) >= sayEvery {
			said = time.Now()
			s.say("the new node has %.2f of the mean of bytes and %.2f of that of leaders", bytes, leaders)
		}
	}
	return nil
}

// shares is what the new node has, in parts of the mean.
func shares(all []holding, old map[uint64]bool) (bytes, leaders float64) {
	var sumBytes, sumLeaders float64
	for _, h := range all {
		sumBytes += float64(h.Bytes)
		sumLeaders += float64(h.Leaders)
		if !old[h.Node] {
			bytes, leaders = float64(h.Bytes), float64(h.Leaders)
		}
	}
	n := float64(len(all))
	return bytes * n / math.Max(sumBytes, 1), leaders * n / math.Max(sumLeaders, 1)
}

func (f *joinFigures) report(r *report, old map[uint64]bool) {
	r.put(f)
	rows := [][]string{{"node", "replicas", "leaders", "bytes of replicas", "on disk", ""}}
	for _, h := range f.Nodes {
		note := ""
		if !old[h.Node] {
			note = "new"
		}
		rows = append(rows, []string{fmt.Sprint(h.Node), fmt.Sprint(h.Replicas), fmt.Sprint(h.Leaders), mebibytes(h.Bytes), mebibytes(h.Disk), note})
	}
	r.Table = tableOf(rows)
	at := func(seconds float64) string {
		if seconds < 0 {
			return "never"
		}
		return fmt.Sprintf("%.0fs", seconds)
	}
	r.Summary = fmt.Sprintf("bytes=%s written_in=%.0fs bytes_after=%s leaders_after=%s fair_share_after=%s ops=%d failed=%d p99=%.1fms",
		strings.ReplaceAll(mebibytes(f.Bytes), " ", ""), f.Written, at(f.BytesAt), at(f.LeadersAt), at(f.BothAt), f.Ops, f.Failed, f.Latency.P99)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }
