package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func (a *app) shardSplitCommand() *cobra.Command {
	var which shardFlags
	var at []string
	var dry *bool
	cmd := &cobra.Command{
		Use:   "split [ID | --key KEY] --at KEY...",
		Short: "Split a shard at one key or at several",
		Long: "Split a shard at one key or at several: each key becomes the first one of a new shard. Without ID and --key each key\n" +
			"splits the shard that holds it. No data is copied, and reads and writes go on.",
		Example: `  kiloraft shard split --at m
  kiloraft shard split 2 --at g --at n --at t --dry-run`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(at) == 0 {
				return usagef("--at is missing: the first key of a new shard; it may be repeated")
			}
			request := &kiloraftpb.SplitShardRequest{DryRun: *dry}
			for _, text := range at {
				key, err := keyArgument(text)
				if err != nil {
					return err
				}
				request.Keys = append(request.Keys, key)
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				id, err := which.idIfChosen(ctx, c, cmd, args)
				if err != nil {
					return err
				}
				request.Shard = id
				answer, err := askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.SplitShardResponse, error) {
					return admin.SplitShard(ctx, request)
				})
				if err != nil {
					return err
				}
				return a.printSplits(answer, *dry)
			})
		},
	}
	cmd.Flags().StringArrayVar(&at, "at", nil, "the first `KEY` of a new shard; may be repeated")
	dry = dryRunFlag(cmd)
	which.add(cmd)
	return cmd
}

// splitRecord is a split as JSON.
type splitRecord struct {
	At     string `json:"at"`
	Shard  uint64 `json:"shard"`     // that was split; 0: somebody else had split it there
	New    uint64 `json:"new_shard"` // 0: it was not made
	Start  string `json:"start"`     // of both together
	End    string `json:"end"`
	DryRun bool   `json:"dry_run"`
}

func (a *app) printSplits(answer *kiloraftpb.SplitShardResponse, dryRun bool) error {
	records := make([]splitRecord, 0, len(answer.GetSplits()))
	for _, s := range answer.GetSplits() {
		left, right := s.GetLeft(), s.GetRight()
		r := splitRecord{At: shard.FormatUserKey(s.GetKey()), Shard: left.GetId(), New: right.GetId(), DryRun: dryRun,
			Start: shard.FormatKey(left.GetStart()), End: shard.FormatKey(right.GetEnd())}
		if left == nil {
			r.Start = r.At
		}
		records = append(records, r)
	}
	return a.print(records, func(w io.Writer) error {
		for _, r := range records {
			what := fmt.Sprintf("split at %q: shard %d keeps [%s, %s), shard %d has [%s, %s)", r.At, r.Shard, boundText(r.Start, "–"), r.At, r.New, r.At, boundText(r.End, "–"))
			switch {
			case dryRun:
				what = fmt.Sprintf("would split shard %d at %q: it keeps [%s, %s), a new shard gets [%s, %s)", r.Shard, r.At, boundText(r.Start, "–"), r.At, r.At, boundText(r.End, "–"))
			case r.Shard == 0:
				what = fmt.Sprintf("shard %d starts at %q already", r.New, r.At)
			}
			if _, err := fmt.Fprintln(w, what); err != nil {
				return err
			}
		}
		return nil
	})
}
