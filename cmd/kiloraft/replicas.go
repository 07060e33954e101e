package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// goesOn ends the help of commands that begin an operation.
const goesOn = "\nThe command waits until that is done. If it stops waiting (--timeout, Ctrl-C) the operation goes on: see `kiloraft ops`."

func (a *app) shardMoveCommand() *cobra.Command {
	return a.replicasCommand(&cobra.Command{
		Use:   "move [ID | --key KEY] --from NODE --to NODE",
		Short: "Move a replica of a shard from one node to another",
		Long: "Move a replica of a shard from one node to another. The new one is added and caught up before the old one goes,\n" +
			"leadership leaves first if the old one leads, and the shard serves all the time." + goesOn,
		Example: `  kiloraft shard move 2 --from 3 --to 4
  kiloraft shard move --key hello --from 1 --to 4 --dry-run`,
	}, true, true)
}

func (a *app) shardAddCommand() *cobra.Command {
	return a.replicasCommand(&cobra.Command{
		Use:   "add-replica [ID | --key KEY] --to NODE",
		Short: "Add a replica of a shard on a node",
		Long: "Add a voting replica of a shard on a node that has none, beyond the replication factor if need be. Placement does\n" +
			"not take it away again; `kiloraft shard remove-replica` does." + goesOn,
		Example: `  kiloraft shard add-replica 2 --to 4
  kiloraft shard add-replica --key hello --to 4`,
	}, false, true)
}

func (a *app) shardRemoveCommand() *cobra.Command {
	return a.replicasCommand(&cobra.Command{
		Use:   "remove-replica [ID | --key KEY] --from NODE",
		Short: "Remove the replica of a shard on a node",
		Long: "Remove the replica of a shard on a node, with its data. It is refused if the rest would have no majority, and if\n" +
			"the shard would have so few voters that placement added one at once." + goesOn,
		Example: `  kiloraft shard remove-replica 2 --from 4
  kiloraft shard remove-replica --key hello --from 4`,
	}, true, false)
}

// replicasCommand completes a command that changes a shard's replicas.
func (a *app) replicasCommand(cmd *cobra.Command, takesFrom, takesTo bool) *cobra.Command {
	var which shardFlags
	var from, to uint64
	dry := dryRunFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case takesFrom && from == 0:
			return usagef("--from is missing: the node whose replica is to go, an ID from `kiloraft shard show`")
		case takesTo && to == 0:
			return usagef("--to is missing: the node that is to get a replica, an ID from `kiloraft node list`")
		case takesFrom && from == to:
			return usagef("--from and --to are both node %d", from)
		}
		return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
			s, err := which.find(ctx, c, cmd, args)
			if err != nil {
				return err
			}
			id := s.GetDescriptor_().GetId()
			answer, err := c.changeReplicas(ctx, &kiloraftpb.ChangeReplicasRequest{Shard: id, FromNode: from, ToNode: to, DryRun: *dry})
			switch {
			case err != nil:
				return fmt.Errorf("shard %d: %w", id, err)
			case *dry:
				return a.printForecast(answer.GetForecast())
			}
			return a.follow(ctx, c, answer.GetOperation(), changedText(id, from, to))
		})
	}
	if takesFrom {
		cmd.Flags().Uint64Var(&from, "from", 0, "the ID of the `NODE` whose replica goes")
	}
	if takesTo {
		cmd.Flags().Uint64Var(&to, "to", 0, "the ID of the `NODE` that gets a replica")
	}
	which.add(cmd)
	return cmd
}

func changedText(id, from, to uint64) string {
	switch {
	case from == 0:
		return fmt.Sprintf("shard %d has a replica on node %d", id, to)
	case to == 0:
		return fmt.Sprintf("shard %d has no replica on node %d any more", id, from)
	}
	return fmt.Sprintf("shard %d has moved from node %d to node %d", id, from, to)
}

func (c *cluster) changeReplicas(ctx context.Context, q *kiloraftpb.ChangeReplicasRequest) (*kiloraftpb.OperationResponse, error) {
	return askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.OperationResponse, error) {
		return admin.ChangeReplicas(ctx, q)
	})
}
