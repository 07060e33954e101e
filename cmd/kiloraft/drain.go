package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// nodeArgument reads a node's ID.
func nodeArgument(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, usagef("%q is not a node's ID: a number from `kiloraft node list`", text)
	}
	return id, nil
}

func (a *app) nodeDrainCommand() *cobra.Command {
	var undo bool
	var dry *bool
	cmd := &cobra.Command{
		Use:   "drain ID",
		Short: "Have leaders leave a node, before it is stopped for a while",
		Long: "Have leaders leave a node, before it is stopped for a while: no operation fails when it stops then. The node keeps\n" +
			"its replicas, and gets no leaders and no replicas until its next start or --undo." + goesOn,
		Example: `  kiloraft node drain 3
  kiloraft node drain 3 --undo`,
		Args: takes(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := nodeArgument(args[0])
			if err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.OperationResponse, error) {
					return admin.DrainNode(ctx, &kiloraftpb.DrainNodeRequest{Node: id, Undo: undo, DryRun: *dry})
				})
				switch {
				case err != nil:
					return err
				case *dry:
					return a.printForecast(answer.GetForecast())
				case undo:
					return a.printOperation(answer.GetOperation(), fmt.Sprintf("node %d serves again; leaders come back to it by and by", id))
				}
				return a.follow(ctx, c, answer.GetOperation(), fmt.Sprintf("node %d is drained: it leads nothing, and may be stopped", id))
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "have the node lead again")
	dry = dryRunFlag(cmd)
	return cmd
}

func (a *app) nodeDecommissionCommand() *cobra.Command {
	var dry *bool
	cmd := &cobra.Command{
		Use:   "decommission ID",
		Short: "Have all replicas leave a node, and the node the cluster",
		Long: "Have all replicas leave a node, leaders first, and then the node the cluster, for ever: its process ends, and its\n" +
			"store is of no use any more. A node that is lost for good is taken off the list the same way." + goesOn,
		Example: `  kiloraft node decommission 4 --timeout 1h
  kiloraft node decommission 4 --dry-run`,
		Args: takes(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := nodeArgument(args[0])
			if err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.OperationResponse, error) {
					return admin.DecommissionNode(ctx, &kiloraftpb.DecommissionNodeRequest{Node: id, DryRun: *dry})
				})
				switch {
				case err != nil:
					return err
				case *dry:
					return a.printForecast(answer.GetForecast())
				}
				return a.follow(ctx, c, answer.GetOperation(), fmt.Sprintf("node %d holds nothing any more and has left the cluster", id))
			})
		},
	}
	dry = dryRunFlag(cmd)
	return cmd
}
