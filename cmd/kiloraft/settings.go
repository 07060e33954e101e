package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func (a *app) settingsCommand() *cobra.Command {
	return group("settings", "Look at the cluster's settings and change them", a.settingsListCommand(), a.settingsSetCommand())
}

// settingRecord is a setting as JSON. Values are numbers for settings that are
// integers, truths for those that are booleans, else texts that `settings set` takes.
type settingRecord struct {
	Name        string `json:"name"`
	Value       any    `json:"value"`
	Kind        string `json:"kind"` // "duration", "integer", "bytes" or "boolean"
	Default     any    `json:"default"`
	Min         any    `json:"min"`
	Max         any    `json:"max"`
	Set         bool   `json:"set"` // false: nobody has, and the value is the default
	Description string `json:"description"`
	Problem     string `json:"problem,omitempty"`
}

func settingOf(s *kiloraftpb.Setting) settingRecord {
	value := func(text string) any {
		if _, err := strconv.ParseInt(text, 10, 64); err == nil && s.GetKind() == "integer" {
			return json.Number(text)
		}
		if on, err := strconv.ParseBool(text); err == nil && s.GetKind() == "boolean" {
			return on
		}
		return text
	}
	return settingRecord{Name: s.GetName(), Value: value(s.GetValue()), Kind: s.GetKind(), Default: value(s.GetDefault()),
		Min: value(s.GetMin()), Max: value(s.GetMax()), Set: s.GetSet(), Description: s.GetDoc(), Problem: s.GetProblem()}
}

// settingText is a value for people.
func settingText(value any) string {
	if number, ok := value.(json.Number); ok {
		if n, err := strconv.ParseUint(number.String(), 10, 64); err == nil {
			return count(n)
		}
	}
	return fmt.Sprint(value)
}

func (a *app) settingsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all settings with their values and what is allowed",
		Long: "List all settings of the cluster: the value that holds on every node, the default, what is allowed, and what\n" +
			"it is about.",
		Example: `  kiloraft settings list
  kiloraft settings list -o json`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.settings(ctx)
				if err != nil {
					return err
				}
				records := make([]settingRecord, 0, len(answer.GetSettings()))
				for _, s := range answer.GetSettings() {
					records = append(records, settingOf(s))
				}
				return a.print(records, func(w io.Writer) error { return settingTable(w, records) })
			})
		},
	}
}

func settingTable(w io.Writer, records []settingRecord) error {
	var rows [][]string
	for _, r := range records {
		between := " to "
		if r.Kind == "boolean" {
			between = " or "
		}
		rows = append(rows, []string{r.Name, settingText(r.Value), settingText(r.Default),
			settingText(r.Min) + between + settingText(r.Max), r.Description})
	}
	err := table(w, []string{"SETTING", "VALUE", "DEFAULT", "ALLOWED", "WHAT IT IS"}, rows)
	for _, r := range records {
		if r.Problem != "" {
			_, printErr := fmt.Fprintf(w, "%s: its record cannot be used, nodes keep what they had; set it again: %s\n", r.Name, r.Problem)
			err = errors.Join(err, printErr)
		}
	}
	return err
}

func (a *app) settingsSetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME VALUE",
		Short: "Change a setting of the cluster",
		Long: "Change a setting of the cluster. Every node follows within seconds, without a restart.\n" +
			"`kiloraft settings list` shows names and what is allowed; durations are written like 90s, 10m, 12h or 7d.",
		Example: `  kiloraft settings set kv.retention 30m
  kiloraft settings set kv.drop_rate 100000`,
		Args: takes(2, "NAME", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.setSetting(ctx, args[0], args[1])
				var invalid *shard.InvalidError
				if errors.As(err, &invalid) {
					return usagef("%v", invalid)
				}
				if err != nil {
					return err
				}
				record := settingOf(answer.GetSetting())
				return a.print(record, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s is %s; every node follows within seconds\n", record.Name, settingText(record.Value))
					return err
				})
			})
		},
	}
}
