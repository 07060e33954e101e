package main

import (
	"context"
	"fmt"
	"io"
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
					return admin.DrainNode(ctx, &kiloraftpb.DrainNodeRequest{Node: id, Undo: undo})
				})
				switch {
				case err != nil:
					return err
				case undo:
					return a.printOperation(answer.GetOperation(), fmt.Sprintf("node %d serves again; leaders come back to it by and by", id))
				}
				return a.follow(ctx, c, answer.GetOperation(), fmt.Sprintf("node %d is drained: it leads nothing, and may be stopped", id))
			})
		},
	}
	cmd.Flags().BoolVar(&undo, "undo", false, "have the node lead again")
	return cmd
}

func (a *app) nodeDecommissionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "decommission ID",
		Short: "Have all replicas leave a node, and the node the cluster",
		Long: "Have all replicas leave a node, leaders first, and then the node the cluster, for ever: its process ends, and its\n" +
			"store is of no use any more. A node that is lost for good is taken off the list the same way." + goesOn,
		Example: `  kiloraft node decommission 4 --timeout 1h
  kiloraft node decommission 4 -o json`,
		Args: takes(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := nodeArgument(args[0])
			if err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := askAdmin(ctx, c, func(ctx context.Context, admin kiloraftpb.AdminClient) (*kiloraftpb.OperationResponse, error) {
					return admin.DecommissionNode(ctx, &kiloraftpb.DecommissionNodeRequest{Node: id})
				})
				if err != nil {
					return err
				}
				return a.follow(ctx, c, answer.GetOperation(), fmt.Sprintf("node %d holds nothing any more and has left the cluster", id))
			})
		},
	}
}

func (a *app) placementCommand() *cobra.Command {
	return group("placement", "Pause placement, resume it, and ask it why",
		a.placementSwitchCommand("pause", "true", "Have placement do only what it is asked for",
			"Have placement do only what it is asked for: dead nodes are not replaced, and nothing is evened out. What is half done\nis finished, and operations that people begin are carried out.",
			"placement is paused; what people ask for is still done"),
		a.placementSwitchCommand("resume", "false", "Have placement work by itself again",
			"Have placement work by itself again: dead nodes are replaced, and replicas evened out.",
			"placement works by itself again"),
		a.placementExplainCommand())
}

func (a *app) placementSwitchCommand(use, value, short, long, said string) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Example: fmt.Sprintf(`  kiloraft placement %[1]s
  kiloraft placement %[1]s -o json`, use),
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.setSetting(ctx, "placement.paused", value)
				if err != nil {
					return err
				}
				return a.print(settingOf(answer.GetSetting()), func(w io.Writer) error {
					_, err := fmt.Fprintln(w, said)
					return err
				})
			})
		},
	}
}

func (a *app) placementExplainCommand() *cobra.Command {
	var id, node uint64
	cmd := &cobra.Command{
		Use:   "explain [--shard ID | --node ID]",
		Short: "Say why a shard or a node is where it is, and what is done about it",
		Long:  "Say why a shard or a node is where it is, what it needs, and what is done about it; without a flag, of all shards that need something.",
		Example: `  kiloraft placement explain --shard 2
  kiloraft placement explain --node 3`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if id != 0 && node != 0 {
				return usagef("give --shard or --node, not both")
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := ask(ctx, c, explaining(id, node))
				if err != nil {
					return err
				}
				record := struct {
					Shard uint64   `json:"shard"`
					Node  uint64   `json:"node"`
					Lines []string `json:"lines"`
				}{id, node, append([]string{}, answer.GetLines()...)}
				return a.print(record, func(w io.Writer) error {
					for _, line := range record.Lines {
						if _, err := fmt.Fprintln(w, line); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().Uint64Var(&id, "shard", 0, "the shard's `ID`")
	cmd.Flags().Uint64Var(&node, "node", 0, "the node's `ID`")
	return cmd
}
