package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

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
	var key string
	cmd := &cobra.Command{
		Use:   "explain [--shard ID | --key KEY | --node ID]",
		Short: "Say why a shard or a node is where it is, and what is done about it",
		Long:  "Say why a shard or a node is where it is, what it needs, and what is done about it; without a flag, of all shards that need something.",
		Example: `  kiloraft placement explain --shard 2
  kiloraft placement explain --node 3`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			byKey := cmd.Flags().Changed("key")
			switch {
			case id != 0 && node != 0:
				return usagef("give --shard or --node, not both")
			case byKey && (id != 0 || node != 0):
				return usagef("give --key, --shard or --node, and only one of them")
			}
			q, none, err := shardOfKey(key)
			if byKey && err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				if byKey {
					s, err := c.shard(ctx, q, none)
					if err != nil {
						return err
					}
					id = s.GetDescriptor_().GetId()
				}
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
	cmd.Flags().StringVar(&key, "key", "", "the shard that holds `KEY`")
	cmd.Flags().Uint64Var(&node, "node", 0, "the node's `ID`")
	return cmd
}
