package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// configure sets what a run of a minute needs to be short: a node counts as dead, and
// replicas are compared, within seconds.
func (c *cluster) configure(ctx context.Context) error {
	for _, s := range [][2]string{{"placement.dead_after", "5s"}, {"shard.check_interval", "5s"}} {
		if err := c.kiloraft(ctx, 10*time.Second, nil, "settings", "set", s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}

// awaitWhole starts whatever does not run, takes members off the list that are no more, ends
// drains, and returns when the cluster says that it is healthy.
func (c *cluster) awaitWhole(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	last := errors.New("it does not answer")
	for ctx.Err() == nil {
		for _, n := range c.nodes {
			if err := c.start(n); err != nil {
				return err
			}
		}
		s, err := c.status(ctx, 5*time.Second)
		switch {
		case err != nil && ctx.Err() == nil:
			last = err
		case err != nil:
		case c.whole(&s):
			for _, n := range c.nodes {
				n.allow(false)
			}
			return nil
		default:
			last = fmt.Errorf("%d of %d nodes are live, %d of %d shards have no leader, %d have too few caught-up voters; %s",
				s.NodesLive, s.Nodes, s.Leaderless, s.Shards, s.UnderReplicated, strings.Join(s.Problems, "; "))
			c.tidy(ctx, s.Members)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("%w within %v: %w", ctx.Err(), within, last)
}

// whole tells whether every node is a member, and nothing is wrong.
func (c *cluster) whole(s *status) bool {
	return s.Healthy && s.Nodes == len(c.nodes) && s.NodesLive == len(c.nodes) && len(s.Problems) == 0
}

// tidy ends what operators have begun.
func (c *cluster) tidy(ctx context.Context, members []member) {
	for _, id := range c.ghosts(members) {
		_ = c.kiloraft(ctx, 5*time.Second, nil, "node", "decommission", fmt.Sprint(id))
	}
	for _, m := range members {
		if m.State == "draining" {
			_ = c.kiloraft(ctx, 5*time.Second, nil, "node", "drain", fmt.Sprint(m.ID), "--undo")
		}
	}
}

// judge finds out whether everything held, once everything is healed and the clients
// have stopped.
func judge(ctx context.Context, c *cluster, l *load, r *report) error {
	if err := c.compareReplicas(ctx, r); err != nil {
		return err
	}
	all, err := c.shards(ctx, 20*time.Second)
	if err != nil {
		return fmt.Errorf("the shards cannot be listed: %w", err)
	}
	if why := gapOrOverlap(all); why != "" {
		c.verdict.fail("%s", why)
	}
	if err := l.readAll(ctx); err != nil {
		return fmt.Errorf("what was written cannot be read: %w", err)
	}
	if err := l.lookAgain(ctx); err != nil {
		return fmt.Errorf("what was read at a revision cannot be read again: %w", err)
	}
	if err := l.audit(ctx); err != nil {
		return fmt.Errorf("the ledger cannot be read: %w", err)
	}
	r.histories = l.recorder.Keys()
	if err := l.recorder.Check(keyPatience); err != nil {
		if strings.Contains(err.Error(), "(Unknown)") {
			r.unknown++
		}
		l.verdict.fail("%v", err)
	}
	return nil
}

// gapOrOverlap says where users' keys have no shard, or two, or nothing.
func gapOrOverlap(all []shardRecord) string {
	next := make(map[string]shardRecord)
	users := 0
	for _, s := range all {
		if s.Keyspace != "user" {
			continue
		}
		if other, taken := next[s.Start]; taken {
			return fmt.Sprintf("shards %d and %d both begin at %q", other.ID, s.ID, s.Start)
		}
		next[s.Start] = s
		users++
	}
	at, passed := "", 0
	for {
		s, there := next[at]
		if !there {
			return fmt.Sprintf("no shard begins at %q, where another one ends", at)
		}
		delete(next, at) // a second time would be a circle
		passed++
		if at = s.End; at == "" {
			break
		}
	}
	if passed < users {
		return fmt.Sprintf("%d of %d shards overlap others", users-passed, users)
	}
	return ""
}

// compareReplicas has all shards' replicas compared. A check that did not come to an end, because
// a replica moved, is repeated.
func (c *cluster) compareReplicas(ctx context.Context, r *report) error {
	ctx, cancel := context.WithTimeout(ctx, healPatience)
	defer cancel()
	for {
		var checks []checkRecord
		err := c.kiloraft(ctx, 20*time.Second, &checks, "debug", "check", "--all")
		for _, k := range checks {
			if k.Verdict == "differs" {
				c.verdict.fail("the replicas of shard %d differ", k.Shard)
			}
		}
		switch {
		case err == nil:
			r.shards = len(checks)
			return nil
		case ctx.Err() != nil || c.verdict.failed():
			return fmt.Errorf("replicas cannot be compared: %w", err)
		}
	}
}
