package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func (a *app) shardCommand() *cobra.Command {
	return group("shard", "Look at shards, split them, and move their replicas and leaders", a.shardListCommand(), a.shardShowCommand(),
		a.shardSplitCommand(), a.shardMoveCommand(), a.shardAddCommand(), a.shardRemoveCommand(), a.shardTransferCommand(), a.shardScatterCommand())
}

type epochRecord struct {
	Version     uint64 `json:"version"`
	ConfVersion uint64 `json:"conf_version"`
}

// replicaRecord is a member of a shard as JSON.
type replicaRecord struct {
	Node    uint64 `json:"node"`
	Replica uint64 `json:"replica"`
	Role    string `json:"role"`
}

// shardRecord is a shard as JSON.
type shardRecord struct {
	ID       uint64          `json:"id"`
	Start    string          `json:"start"`
	End      string          `json:"end"`
	Epoch    epochRecord     `json:"epoch"`
	Leader   uint64          `json:"leader"` // a node; 0: none
	Term     uint64          `json:"term"`
	Replicas []replicaRecord `json:"replicas"`
	Keys     uint64          `json:"keys"`
	Bytes    uint64          `json:"bytes"`
	Revision uint64          `json:"revision"`
	Keyspace string          `json:"keyspace"`
}

func shardOf(s *kiloraftpb.ShardInfo) shardRecord {
	d := s.GetDescriptor_()
	r := shardRecord{ID: d.GetId(), Start: shard.FormatKey(d.GetStart()), End: shard.FormatKey(d.GetEnd()),
		Epoch:  epochRecord{d.GetEpoch().GetVersion(), d.GetEpoch().GetConfVersion()},
		Leader: s.GetLeaderNode(), Term: s.GetTerm(), Replicas: []replicaRecord{},
		Keys: s.GetKeys(), Bytes: s.GetBytes(), Revision: s.GetRevision(), Keyspace: "user"}
	if start := d.GetStart(); len(start) > 0 && start[0] == shard.SystemKeyspace {
		r.Keyspace = "system"
	}
	for _, m := range d.GetReplicas() {
		r.Replicas = append(r.Replicas, replicaRecord{m.GetNode(), m.GetId(), shard.Role(m.GetRole()).String()})
	}
	return r
}

// boundText is a bound for a table.
func boundText(bound, unbounded string) string {
	if bound == "" {
		return unbounded
	}
	if strings.TrimSpace(bound) != bound { // it would not be seen
		bound = `"` + bound + `"`
	}
	return cut(bound, 22)
}

// replicasText lists nodes; roles other than voter are named.
func replicasText(replicas []replicaRecord) string {
	var texts []string
	byNode := func(a, b replicaRecord) int { return cmp.Compare(a.Node, b.Node) }
	for _, r := range slices.SortedFunc(slices.Values(replicas), byNode) {
		text := strconv.FormatUint(r.Node, 10)
		if r.Role != shard.Voter.String() {
			text += " " + r.Role
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

func leaderText(node uint64) string {
	if node == 0 {
		return "none"
	}
	return strconv.FormatUint(node, 10)
}

func (a *app) shardListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all shards with their spans, leaders and replicas",
		Example: `  kiloraft shard list
  kiloraft shard list -o json`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
				if err != nil {
					return err
				}
				records := make([]shardRecord, 0, len(answer.GetShards()))
				for _, s := range answer.GetShards() {
					records = append(records, shardOf(s))
				}
				return a.print(records, func(w io.Writer) error { return shardTable(w, records) })
			})
		},
	}
}

func shardTable(w io.Writer, records []shardRecord) error {
	var rows [][]string
	for _, r := range records {
		start, end := boundText(r.Start, "–"), boundText(r.End, "–")
		if r.Keyspace == "system" {
			start, end = "(system)", "(system)"
		}
		rows = append(rows, []string{strconv.FormatUint(r.ID, 10), start, end, fmt.Sprintf("%d.%d", r.Epoch.Version, r.Epoch.ConfVersion),
			leaderText(r.Leader), replicasText(r.Replicas), count(r.Keys), bytesText(r.Bytes)})
	}
	return table(w, []string{"SHARD", "START", "END", "EPOCH", "LEADER", "NODES", "KEYS", "DATA"}, rows)
}

// shardFlags choose a shard: an argument, or a key in it.
type shardFlags struct{ key string }

func (f *shardFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "the shard that holds `KEY`, instead of an ID")
	cmd.Args = takes(0, "ID")
}

// find asks for the chosen shard.
func (f *shardFlags) find(ctx context.Context, c *cluster, cmd *cobra.Command, args []string) (*kiloraftpb.ShardInfo, error) {
	q, what, err := f.request(cmd, args)
	if err != nil {
		return nil, err
	}
	return c.shard(ctx, q, what)
}

// shard asks for one shard; none is the error if there is no such one.
func (c *cluster) shard(ctx context.Context, q *kiloraftpb.ListShardsRequest, none string) (*kiloraftpb.ShardInfo, error) {
	answer, err := c.shards(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(answer.GetShards()) == 0 {
		return nil, errors.New(none)
	}
	return answer.GetShards()[0], nil
}

// idIfChosen is the chosen shard's ID; 0: none is chosen.
func (f *shardFlags) idIfChosen(ctx context.Context, c *cluster, cmd *cobra.Command, args []string) (uint64, error) {
	if len(args) == 0 && !cmd.Flags().Changed("key") {
		return 0, nil
	}
	s, err := f.find(ctx, c, cmd, args)
	return s.GetDescriptor_().GetId(), err
}

// request makes the question, and the error if its answer is empty.
func (f *shardFlags) request(cmd *cobra.Command, args []string) (q *kiloraftpb.ListShardsRequest, none string, err error) {
	byKey := cmd.Flags().Changed("key")
	switch {
	case byKey && len(args) > 0:
		return nil, "", usagef("give ID or --key, not both")
	case byKey:
		return shardOfKey(f.key)
	case len(args) == 0:
		return nil, "", usagef("ID or --key is missing")
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || id == 0 {
		return nil, "", usagef("%q is not a shard ID: a number from `kiloraft shard list`", args[0])
	}
	return &kiloraftpb.ListShardsRequest{Id: id}, fmt.Sprintf("there is no shard %d", id), nil
}

// shardOfKey is the question which shard holds a key, and the error if none does.
func shardOfKey(text string) (q *kiloraftpb.ListShardsRequest, none string, err error) {
	key, err := keyArgument(text)
	if err == nil && len(key) == 0 {
		err = usagef("--key: a key has at least 1 byte")
	}
	return &kiloraftpb.ListShardsRequest{Key: key}, fmt.Sprintf("no shard is known to hold key %q; try again", text), err
}

// replicaDetail is what a replica says of itself.
type replicaDetail struct {
	Node     uint64 `json:"node"`
	Replica  uint64 `json:"replica"`
	Term     uint64 `json:"term"`
	Leading  bool   `json:"leading"`
	First    uint64 `json:"first_index"`
	Last     uint64 `json:"last_index"`
	Commit   uint64 `json:"commit_index"`
	Applied  uint64 `json:"applied_index"`
	LogBytes uint64 `json:"log_bytes"`
	Keys     uint64 `json:"keys"`
	Bytes    uint64 `json:"bytes"`
	Revision uint64 `json:"revision"`
	Stopped  string `json:"stopped"` // why it takes no further part
}

func (a *app) shardShowCommand() *cobra.Command {
	var which shardFlags
	cmd := &cobra.Command{
		Use:   "show [ID | --key KEY]",
		Short: "Show one shard and what its replicas say",
		Example: `  kiloraft shard show 1
  kiloraft shard show --key hello -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				s, err := which.find(ctx, c, cmd, args)
				if err != nil {
					return err
				}
				return a.printShard(s)
			})
		},
	}
	which.add(cmd)
	return cmd
}

func (a *app) printShard(s *kiloraftpb.ShardInfo) error {
	record := struct {
		shardRecord
		Details []replicaDetail `json:"replica_details"` // of replicas whose nodes answered
	}{shardOf(s), []replicaDetail{}}
	for _, r := range s.GetReplicas() {
		record.Details = append(record.Details, replicaDetail{Node: r.GetNode(), Replica: r.GetReplica(), Term: r.GetTerm(), Leading: r.GetLeading(),
			First: r.GetFirst(), Last: r.GetLast(), Commit: r.GetCommit(), Applied: r.GetApplied(), LogBytes: r.GetLogBytes(),
			Keys: r.GetKeys(), Bytes: r.GetBytes(), Revision: r.GetRevision(), Stopped: r.GetStopped()})
	}
	return a.print(record, func(w io.Writer) error {
		if err := shardTable(w, []shardRecord{record.shardRecord}); err != nil {
			return err
		}
		fmt.Fprintln(w)
		var rows [][]string
		for _, r := range record.Details {
			state := "follows"
			if r.Leading {
				state = "leads"
			}
			if r.Stopped != "" {
				state = "stopped: " + r.Stopped
			}
			rows = append(rows, []string{strconv.FormatUint(r.Node, 10), strconv.FormatUint(r.Replica, 10), strconv.FormatUint(r.Term, 10),
				strconv.FormatUint(r.Last, 10), strconv.FormatUint(r.Commit, 10), strconv.FormatUint(r.Applied, 10), bytesText(r.LogBytes), state})
		}
		return table(w, []string{"NODE", "REPLICA", "TERM", "LAST", "COMMIT", "APPLIED", "LOG", "STATE"}, rows)
	})
}

func (a *app) shardTransferCommand() *cobra.Command {
	var which shardFlags
	var to uint64
	var dry *bool
	cmd := &cobra.Command{
		Use:   "transfer-leader [ID | --key KEY] --to NODE",
		Short: "Hand a shard's leadership to another node",
		Long:  "Hand a shard's leadership to the replica on another node, and wait until it leads.",
		Example: `  kiloraft shard transfer-leader 2 --to 3
  kiloraft shard transfer-leader --key hello --to 1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == 0 {
				return usagef("--to is missing: a node's ID from `kiloraft node list`")
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				s, err := which.find(ctx, c, cmd, args)
				if err != nil {
					return err
				}
				id := s.GetDescriptor_().GetId()
				answer, err := c.transferLeader(ctx, &kiloraftpb.TransferLeaderRequest{Shard: id, ToNode: to, DryRun: *dry})
				switch {
				case err != nil:
					return fmt.Errorf("shard %d: %w", id, err)
				case *dry:
					return a.printForecast(answer.GetForecast())
				}
				return a.printTransfer(id, answer)
			})
		},
	}
	cmd.Flags().Uint64Var(&to, "to", 0, "the ID of the `NODE` that is to lead")
	dry = dryRunFlag(cmd)
	which.add(cmd)
	return cmd
}

func (a *app) printTransfer(id uint64, answer *kiloraftpb.TransferLeaderResponse) error {
	record := struct {
		ID     uint64 `json:"id"`
		Leader uint64 `json:"leader"`
		Term   uint64 `json:"term"`
	}{id, answer.GetLeaderNode(), answer.GetTerm()}
	return a.print(record, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "shard %d is led by node %d in term %d\n", record.ID, record.Leader, record.Term)
		return err
	})
}
