package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api"
	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// statusRecord is the cluster's health as JSON.
type statusRecord struct {
	Healthy         bool         `json:"healthy"`
	Cluster         string       `json:"cluster"`
	Nodes           uint64       `json:"nodes"`
	NodesLive       uint64       `json:"nodes_live"`
	Shards          uint64       `json:"shards"`
	UnderReplicated uint64       `json:"under_replicated"`
	Leaderless      uint64       `json:"leaderless"`
	Revision        uint64       `json:"revision"`
	Keys            uint64       `json:"keys"`
	Bytes           uint64       `json:"bytes"`
	Problems        []string     `json:"problems"`
	NodeDetails     []nodeRecord `json:"node_details"`
}

func statusOf(s *kiloraftpb.StatusResponse) statusRecord {
	r := statusRecord{Healthy: s.GetHealthy(), Nodes: s.GetNodes(), NodesLive: s.GetNodesLive(), Shards: s.GetShards(),
		UnderReplicated: s.GetUnderReplicated(), Leaderless: s.GetLeaderless(), Revision: s.GetRevision(), Keys: s.GetKeys(), Bytes: s.GetBytes(),
		Problems: append([]string{}, s.GetProblems()...), NodeDetails: nodeRecords(s.GetNodeInfos())}
	if id, err := api.ToClusterID(s.GetClusterId()); err == nil {
		r.Cluster = id.String()
	}
	return r
}

// settled is what --wait waits for: every shard has a leader, and as many
// caught-up voters as live nodes allow.
func settled(s *kiloraftpb.StatusResponse) bool {
	return s.GetShards() > 0 && s.GetLeaderless() == 0 && s.GetUnderReplicated() == 0
}

func (a *app) statusCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster's health on one screen",
		Long: "Show the cluster's health on one screen: what is wrong, since when, and what to do.\n" +
			"With --wait, return once every shard has a leader and min(replication factor, live nodes) caught-up voters.",
		Example: `  kiloraft status
  kiloraft status --wait --timeout 1m`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				if wait {
					return a.waitAndPrintStatus(ctx, c)
				}
				s, err := c.status(ctx)
				if err != nil {
					return err
				}
				return a.printStatus(s)
			})
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until all shards are served and replicated, or fail after --timeout")
	return cmd
}

func (a *app) waitAndPrintStatus(ctx context.Context, c *cluster) error {
	shown := a.newProgress()
	shown.began, shown.saidAt, shown.saidBegun = shown.now(), shown.now(), true // a short wait is nobody's concern
	s, err := c.awaitStatus(ctx, settled, func(s *kiloraftpb.StatusResponse) {
		shown.show(stage{text: missing(s), done: s.GetShards() - min(s.GetUnderReplicated(), s.GetShards()), total: s.GetShards(), unit: "shards"})
	})
	shown.clear()
	if s != nil {
		if printErr := a.printStatus(s); printErr != nil {
			return printErr
		}
	}
	return err
}

// pollPause is between two questions to a cluster that is not ready.
const pollPause = 100 * time.Millisecond

// awaitStatus asks until ready holds. Endpoints that do not answer are asked
// again. At the end of ctx it returns the last status that it got, if any, and
// an error that says what is missing. tell, if any, gets those that are not ready.
func (c *cluster) awaitStatus(ctx context.Context, ready func(*kiloraftpb.StatusResponse) bool, tell func(*kiloraftpb.StatusResponse)) (*kiloraftpb.StatusResponse, error) {
	var last *kiloraftpb.StatusResponse
	var lastErr error
	for {
		s, err := c.status(ctx)
		switch {
		case err == nil && ready(s):
			return s, nil
		case err == nil:
			last, lastErr = s, nil
			if tell != nil {
				tell(s)
			}
		case last == nil && lastErr == nil || !errors.Is(err, context.DeadlineExceeded):
			lastErr = err
		default:
			// The question was cut short by the end of the wait: what was
			// said before is what counts.
		}
		select {
		case <-time.After(pollPause):
			continue
		case <-ctx.Done():
		}
		switch {
		case lastErr != nil:
			return last, fmt.Errorf("%w: %w", ctx.Err(), lastErr)
		case last != nil:
			return last, fmt.Errorf("%w: %s", ctx.Err(), missing(last))
		}
		return nil, fmt.Errorf("%w: no endpoint answers: %s", ctx.Err(), strings.Join(c.endpoints, ", "))
	}
}

// missing says what a cluster that is not settled lacks.
func missing(s *kiloraftpb.StatusResponse) string {
	return fmt.Sprintf("%d of %d nodes are live, %d of %d shards have no leader, %d have too few caught-up voters",
		s.GetNodesLive(), s.GetNodes(), s.GetLeaderless(), s.GetShards(), s.GetUnderReplicated())
}

func (a *app) printStatus(s *kiloraftpb.StatusResponse) error {
	r := statusOf(s)
	return a.print(r, func(w io.Writer) error {
		return errors.Join(a.writeVerdict(w, &r), nodeTable(w, r.NodeDetails))
	})
}

// writeVerdict writes health in words, what is wrong first.
func (a *app) writeVerdict(w io.Writer, r *statusRecord) error {
	var b strings.Builder
	nodes := fmt.Sprintf("%d of %d nodes live, %s shards", r.NodesLive, r.Nodes, count(r.Shards))
	switch {
	case r.Healthy:
		fmt.Fprintf(&b, "%s   %s, all with a leader and enough caught-up voters\n", a.emphasis(w, true, "healthy"), nodes)
	default:
		fmt.Fprintf(&b, "%s  %s, %s without a leader, %s with too few caught-up voters\n", a.emphasis(w, false, "degraded"), nodes,
			count(r.Leaderless), count(r.UnderReplicated))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "          %s\n", strings.ReplaceAll(p, "\n", "\n          "))
	}
	fmt.Fprintf(&b, "cluster   %s   revision %s   %s in %s keys (estimates)\n\n", r.Cluster, count(r.Revision), bytesText(r.Bytes), count(r.Keys))
	_, err := io.WriteString(w, b.String())
	return err
}
