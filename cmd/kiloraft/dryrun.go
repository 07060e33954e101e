package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// dryRunFlag adds --dry-run to a command.
func dryRunFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("dry-run", false, "say what would be done, or why it is refused, and change nothing")
}

// forecastRecord is what a command would do, as JSON.
type forecastRecord struct {
	DryRun  bool           `json:"dry_run"` // always true
	Changes []changeRecord `json:"changes"`
	Bytes   uint64         `json:"bytes"` // to be copied, an estimate
	Waits   []string       `json:"waits"` // what it would wait for
}

type changeRecord struct {
	Kind  string `json:"kind"` // add-replica, remove-replica, move or transfer-leader
	Shard uint64 `json:"shard"`
	From  uint64 `json:"from_node"` // 0: none
	To    uint64 `json:"to_node"`
	Bytes uint64 `json:"bytes"`
}

func forecastOf(f *kiloraftpb.Forecast) forecastRecord {
	r := forecastRecord{DryRun: true, Changes: []changeRecord{}, Waits: append([]string{}, f.GetWaits()...)}
	for _, c := range f.GetChanges() {
		r.Changes = append(r.Changes, changeRecord{Kind: c.GetKind(), Shard: c.GetShard(), From: c.GetFromNode(), To: c.GetToNode(), Bytes: c.GetBytes()})
		r.Bytes += c.GetBytes()
	}
	return r
}

// what is the change in words.
func (c *changeRecord) what() string {
	if c.Kind == "transfer-leader" {
		return fmt.Sprintf("hand the lead of shard %d from node %d to node %d", c.Shard, c.From, c.To)
	}
	return replicaChange(c.Kind, c.Shard, c.From, c.To)
}

// printForecast prints what a command would do.
func (a *app) printForecast(f *kiloraftpb.Forecast) error {
	r := forecastOf(f)
	return a.print(r, func(w io.Writer) error {
		if len(r.Changes) == 0 {
			fmt.Fprintln(w, "dry run: nothing was changed, and nothing would be")
		} else {
			fmt.Fprintln(w, "dry run: nothing was changed; this would be done:")
		}
		for _, c := range r.Changes {
			fmt.Fprint(w, "  ", c.what())
			if c.To != 0 && c.Kind != "transfer-leader" {
				fmt.Fprintf(w, ", about %s", bytesText(c.Bytes))
			}
			fmt.Fprintln(w)
		}
		for _, text := range r.Waits {
			fmt.Fprintln(w, "it would wait:", text)
		}
		var err error
		if len(r.Changes) > 1 && r.Bytes > 0 {
			_, err = fmt.Fprintf(w, "about %s would be copied in all\n", bytesText(r.Bytes))
		}
		return err
	})
}
