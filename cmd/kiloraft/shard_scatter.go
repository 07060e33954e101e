package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

func (a *app) shardScatterCommand() *cobra.Command {
	var which shardFlags
	cmd := &cobra.Command{
		Use:   "scatter [ID | --key KEY]",
		Short: "Draw new places for a shard's replicas and leader, or for all shards'",
		Long: "Draw new places for the replicas and the leader of a shard, or without one of all shards of users: as far apart as their nodes'\n" +
			"localities allow, so that nodes hold and bear the same, and at random beyond that. Data is copied for all that moves." + goesOn,
		Example: `  kiloraft shard scatter 2
  kiloraft shard scatter --dry-run
  kiloraft shard scatter --timeout 10m -o json`,
	}
	dryRun := dryRunFlag(cmd)
	which.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
			id, err := which.idIfChosen(ctx, c, cmd, args)
			if err != nil {
				return err
			}
			request := &kiloraftpb.ScatterShardsRequest{Shard: id, DryRun: *dryRun}
			answer, err := askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.ScatterShardsResponse, error) {
				return admin.ScatterShards(ctx, request)
			})
			if err != nil {
				return err
			}
			for _, note := range answer.GetRefused() {
				fmt.Fprintf(a.stderr, "shard %d stays where it is: %s\n", note.GetId(), note.GetText())
			}
			if *dryRun {
				return a.printScatter(answer.GetOperations(), true)
			}
			return a.followScatter(ctx, c, answer.GetOperations())
		})
	}
	return cmd
}

// followScatter waits until all operations have ended, and prints them. It fails if one of
// them has.
func (a *app) followScatter(ctx context.Context, c *cluster, begun []*kiloraftpb.Operation) error {
	open := map[uint64]int{}
	for i, op := range begun {
		open[op.GetId()] = i
	}
	shown := a.newProgress()
	defer shown.clear()
	for len(open) > 0 {
		shown.left("shards go to their places", uint64(len(open)), "shards")
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, and %d operations go on: `kiloraft ops list` tells how far they have come", ctx.Err(), len(open))
		case <-time.After(operationPause):
		}
		if answer, err := c.operations(ctx, 0); err == nil {
			a.scattered(begun, open, answer.GetOperations())
		}
	}
	shown.clear()
	if err := a.printScatter(begun, false); err != nil {
		return err
	}
	for _, op := range begun {
		if op.GetState() != "done" {
			return fmt.Errorf("operation %d on shard %d is %s: %s", op.GetId(), op.GetShard(), op.GetState(), op.GetReason())
		}
	}
	return nil
}

// scattered takes in how operations stand, and closes those that have ended. One that is
// not listed any more has been followed by another one of its shard.
func (a *app) scattered(begun []*kiloraftpb.Operation, open map[uint64]int, now []*kiloraftpb.Operation) {
	listed := map[uint64]bool{}
	for _, op := range now {
		i, waits := open[op.GetId()]
		if !waits {
			continue
		}
		listed[op.GetId()] = true
		begun[i] = op
		if op.GetState() != "running" {
			delete(open, op.GetId())
		}
	}
	for id, i := range open {
		if !listed[id] {
			begun[i].State, begun[i].Reason = "over", "another operation has taken its place"
			delete(open, id)
		}
	}
}

func (a *app) printScatter(ops []*kiloraftpb.Operation, dryRun bool) error {
	record := struct {
		DryRun     bool              `json:"dry_run"`
		Operations []operationRecord `json:"operations"`
	}{dryRun, []operationRecord{}}
	for _, op := range ops {
		r := operationOf(op)
		if dryRun {
			r.State, r.Progress = "planned", ""
		}
		record.Operations = append(record.Operations, r)
	}
	return a.print(record, func(w io.Writer) error {
		if len(record.Operations) == 0 {
			_, err := fmt.Fprintln(w, "every shard is in its place")
			return err
		}
		for _, r := range record.Operations {
			if _, err := fmt.Fprintf(w, "%s: %s\n", r.what(), r.State); err != nil {
				return err
			}
		}
		return nil
	})
}
