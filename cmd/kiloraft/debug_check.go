package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// checkRecord is the check of a shard, as JSON.
type checkRecord struct {
	Shard    uint64               `json:"shard"`
	Index    uint64               `json:"index"`
	Verdict  string               `json:"verdict"` // "same", "differs" or "incomplete"
	Error    string               `json:"error,omitempty"`
	Replicas []checkReplicaRecord `json:"replicas"`
}

type checkReplicaRecord struct {
	Node     uint64 `json:"node"`
	Replica  uint64 `json:"replica"`
	Leading  bool   `json:"leading"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	Digest   string `json:"digest"`
	Versions uint64 `json:"versions"`
	Bytes    uint64 `json:"bytes"`
}

const (
	verdictSame       = "same"
	verdictDiffers    = "differs"
	verdictIncomplete = "incomplete"
)

func (a *app) debugCheckCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "check [ID]…",
		Short: "Compare the content of a shard's replicas",
		Long: "Have the replicas of shards compute digests of their content as of one place in their logs, and compare them.\n" +
			"Nodes do so by themselves from time to time (setting shard.check_interval), and status shows what they found.\n" +
			"Nothing is repaired: the digests show which replica is the odd one. --timeout is for each shard.",
		Example: `  kiloraft debug check 5
  kiloraft debug check --all --timeout 1m`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := checkedIDs(args, all)
			if err != nil {
				return err
			}
			return a.check(cmd.Context(), ids)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "check all shards, one after the other")
	return cmd
}

// checkedIDs are the shards that were named; none for all.
func checkedIDs(args []string, all bool) ([]uint64, error) {
	if all != (len(args) == 0) {
		return nil, usagef("give IDs of shards, or --all")
	}
	var ids []uint64
	for _, text := range args {
		id, err := strconv.ParseUint(text, 10, 64)
		if err != nil || id == 0 {
			return nil, usagef("ID: %q is not the ID of a shard", text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (a *app) check(ctx context.Context, ids []uint64) error {
	records := []checkRecord{}
	if len(ids) == 0 {
		err := a.onCluster(ctx, func(ctx context.Context, c *cluster) error {
			list, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
			for _, s := range list.GetShards() {
				ids = append(ids, s.GetDescriptor_().GetId())
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	counts := map[string]int{}
	for _, id := range ids {
		err := a.onCluster(ctx, func(ctx context.Context, c *cluster) error {
			r, err := checkOne(ctx, c, id)
			if err != nil {
				return err
			}
			counts[r.Verdict]++
			records = append(records, r)
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	if err := a.print(records, func(w io.Writer) error { return writeChecks(w, records) }); err != nil {
		return err
	}
	switch {
	case counts[verdictDiffers] > 0:
		return fmt.Errorf("%s of %s have replicas that differ", count(uint64(counts[verdictDiffers])), shardsText(len(records)))
	case counts[verdictIncomplete] > 0:
		return fmt.Errorf("%s of %s were not compared on all replicas", count(uint64(counts[verdictIncomplete])), shardsText(len(records)))
	}
	return nil
}

// checkOne begins a check at the shard's leader and waits for every replica's part in it.
func checkOne(ctx context.Context, c *cluster, id uint64) (checkRecord, error) {
	r := checkRecord{Shard: id, Verdict: verdictIncomplete, Replicas: []checkReplicaRecord{}}
	last := errors.New("it has no leader")
	for {
		s, address, err := shardAndLeader(ctx, c, id)
		switch {
		case err != nil && ctx.Err() == nil:
			r.Error = err.Error()
			return r, nil
		case err != nil:
		case r.Index == 0 && address != "":
			if r.Index, last = beginCheckAt(ctx, c.at(address), id); last == nil {
				continue
			}
			if denied := new(shard.DeniedError); errors.As(last, &denied) {
				return r, last // for all shards alike
			}
		case r.Index != 0:
			if r.take(s) {
				return r, nil
			}
			last = errors.New("not every replica has come to an end; give it a longer --timeout")
		}
		select {
		case <-ctx.Done():
			r.Error = last.Error()
			return r, nil
		case <-time.After(pollPause):
		}
	}
}

func beginCheckAt(ctx context.Context, t target, id uint64) (uint64, error) {
	at, err := dialTarget(t)
	if err != nil {
		return 0, err
	}
	defer at.close()
	answer, err := at.checkShard(ctx, id)
	return answer.GetIndex(), err
}

// shardAndLeader finds a shard, and the address of the node that leads it, "" if none.
func shardAndLeader(ctx context.Context, c *cluster, id uint64) (*kiloraftpb.ShardInfo, string, error) {
	list, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
	if err != nil {
		return nil, "", err
	}
	at := slices.IndexFunc(list.GetShards(), func(s *kiloraftpb.ShardInfo) bool { return s.GetDescriptor_().GetId() == id })
	if at < 0 {
		return nil, "", fmt.Errorf("shard %d does not exist; shard list shows those that do", id)
	}
	s := list.GetShards()[at]
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, n := range nodes.GetNodes() {
		if n.GetId() == s.GetLeaderNode() {
			if c.certsDir == "" && !loopback(n.GetAddress()) {
				return nil, "", fmt.Errorf("the address %s of node %d is not a loopback address, and plaintext is for those only", n.GetAddress(), n.GetId())
			}
			return s, n.GetAddress(), nil
		}
	}
	return s, "", nil
}

// take notes how far the replicas are, and tells whether all have come to an end.
func (r *checkRecord) take(s *kiloraftpb.ShardInfo) bool {
	r.Replicas = []checkReplicaRecord{}
	ended := true
	r.Verdict = verdictSame
	for _, m := range s.GetDescriptor_().GetReplicas() {
		p := checkReplicaRecord{Node: m.GetNode(), Replica: m.GetId(), State: string(replica.CheckNotCompared), Reason: "its node does not answer"}
		for _, info := range s.GetReplicas() {
			if info.GetReplica() != m.GetId() {
				continue
			}
			k := info.GetCheck()
			p.Leading = info.GetLeading()
			if k.GetIndex() < r.Index {
				p.State, p.Reason = "behind", ""
				break
			}
			p.State, p.Reason, p.Digest, p.Versions, p.Bytes = k.GetState(), k.GetReason(), hex.EncodeToString(k.GetDigest()), k.GetVersions(), k.GetBytes()
		}
		r.Replicas = append(r.Replicas, p)
		switch replica.CheckState(p.State) {
		case replica.CheckSame:
		case replica.CheckDiffers:
			r.Verdict = verdictDiffers
		case replica.CheckNotCompared:
			if r.Verdict == verdictSame {
				r.Verdict = verdictIncomplete
			}
		default:
			ended = false
		}
	}
	if !ended && r.Verdict == verdictSame {
		r.Verdict = verdictIncomplete
	}
	return ended
}

func writeChecks(w io.Writer, records []checkRecord) error {
	var rows [][]string
	for _, r := range records {
		if len(r.Replicas) == 0 {
			rows = append(rows, []string{number(r.Shard), r.Verdict, "", "", "", "", "", r.Error})
		}
		for _, p := range r.Replicas {
			node := number(p.Node)
			if p.Leading {
				node += " (leads)"
			}
			rows = append(rows, []string{number(r.Shard), r.Verdict, node, p.State, cut(p.Digest, 16), count(p.Versions), bytesText(p.Bytes), p.Reason})
		}
	}
	return table(w, []string{"SHARD", "VERDICT", "NODE", "STATE", "DIGEST", "VERSIONS", "SIZE", "WHY"}, rows)
}
