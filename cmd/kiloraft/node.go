package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// nodeRecord is a node as JSON.
type nodeRecord struct {
	ID            uint64  `json:"id"`
	Address       string  `json:"address"`
	HTTPAddress   string  `json:"http_address"`
	Live          bool    `json:"live"`
	Shards        uint64  `json:"shards"`
	Leaders       uint64  `json:"leaders"`
	Bytes         uint64  `json:"bytes"`
	LogBytes      uint64  `json:"log_bytes"`
	Incarnation   uint64  `json:"incarnation"`
	UptimeSeconds float64 `json:"uptime_seconds"`
	Version       string  `json:"version"`
	State         string  `json:"state"`          // serving, draining or leaving; empty: not known
	SilentSeconds uint64  `json:"silent_seconds"` // for how long placement has not heard of it
	Dead          bool    `json:"dead"`           // its replicas are rebuilt elsewhere
}

func nodeRecords(infos []*kiloraftpb.NodeInfo) []nodeRecord {
	records := make([]nodeRecord, 0, len(infos)) // an empty list is [], not null
	for _, n := range infos {
		records = append(records, nodeRecord{ID: n.GetId(), Address: n.GetAddress(), HTTPAddress: n.GetHttpAddress(), Live: n.GetLive(),
			Shards: n.GetShards(), Leaders: n.GetLeaders(), Bytes: n.GetBytes(), LogBytes: n.GetLogBytes(),
			Incarnation: n.GetIncarnation(), UptimeSeconds: n.GetUptimeSeconds(), Version: n.GetVersion(), State: n.GetState(), SilentSeconds: n.GetSilentSeconds(), Dead: n.GetDead()})
	}
	return records
}

// stateText is what the cluster wants of a node and, if it does not answer, since
// when.
func (n *nodeRecord) stateText() string {
	text := n.State
	switch {
	case n.Live:
	case n.Dead:
		text = "dead for " + ago(float64(n.SilentSeconds))
	case n.SilentSeconds > 0:
		text = "silent for " + ago(float64(n.SilentSeconds))
	}
	if !n.Live && (n.State == "draining" || n.State == "leaving") {
		text = n.State + ", " + text
	}
	if text == "" {
		return "–"
	}
	return text
}

// nodeTable writes nodes in columns. What a node that does not answer would know
// itself is left open.
func nodeTable(w io.Writer, nodes []nodeRecord) error {
	var rows [][]string
	for _, n := range nodes {
		row := []string{count(n.ID), n.Address, yes(n.Live), n.stateText(), "–", "–", "–", "–", "–", "–"}
		if n.Live {
			row = []string{count(n.ID), n.Address, yes(n.Live), n.stateText(), count(n.Shards), count(n.Leaders), bytesText(n.Bytes), bytesText(n.LogBytes),
				ago(n.UptimeSeconds), cut(n.Version, 20)}
		}
		rows = append(rows, row)
	}
	return table(w, []string{"NODE", "ADDRESS", "LIVE", "STATE", "SHARDS", "LEADERS", "DATA", "LOG", "SINCE", "VERSION"}, rows)
}

func (a *app) nodeCommand() *cobra.Command {
	return group("node", "Look at nodes, drain and decommission them", a.nodeListCommand(), a.nodeDrainCommand(), a.nodeDecommissionCommand())
}

func (a *app) nodeListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the nodes of the cluster",
		Example: `  kiloraft node list
  kiloraft node list -o json`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.nodes(ctx)
				if err != nil {
					return err
				}
				records := nodeRecords(answer.GetNodes())
				return a.print(records, func(w io.Writer) error { return nodeTable(w, records) })
			})
		},
	}
}
