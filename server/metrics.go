package server

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kiloraft/kiloraft/node"
)

// newMetrics registers everything that /metrics shows. Names are
// kiloraft_<what>_<unit>; what also appears in a node's report has the same name there.
func newMetrics(n *node.Node) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &nodeCollector{node: n})
	return reg
}

// nodeCollector reads the node's own counters when it is scraped.
type nodeCollector struct{ node *node.Node }

// Describe sends nothing: which metrics there are is known when they are read.
func (c *nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the node's report and the engine's and host's figures.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, v float64) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("kiloraft_"+name, help, nil, nil), kind, v)
	}
	report := c.node.Report(node.ReportQuery{}).Node
	send(prometheus.GaugeValue, "shards", "Replicas on this node.", float64(report.Shards))
	send(prometheus.GaugeValue, "leaders", "Shards that this node leads.", float64(report.Leaders))
	send(prometheus.GaugeValue, "log_bytes", "Bytes of all raft logs.", float64(report.LogBytes))
	send(prometheus.GaugeValue, "disk_bytes", "Bytes of the store on disk.", float64(report.Bytes))
	for name, v := range report.Counters {
		if strings.HasPrefix(name, "process_") {
			continue // the process collector has them
		}
		send(prometheus.CounterValue, name, counterHelp[name], v)
	}
	for _, g := range c.node.Gauges() {
		send(prometheus.GaugeValue, g.Name, g.Help, g.Value)
	}
}

var counterHelp = map[string]string{
	"wal_syncs_total":               "Syncs of the write-ahead log.",
	"wal_sync_seconds_total":        "Time that they took together.",
	"commits_total":                 "Batches committed to the engine.",
	"ingests_total":                 "Snapshots that were ingested as tables; small ones are written as batches.",
	"rounds_total":                  "Rounds of the scheduler.",
	"groups_in_rounds_total":        "Groups that had a turn, over all rounds.",
	"entries_total":                 "Log entries proposed on this node.",
	"operations_total":              "Operations proposed on this node.",
	"read_indexes_total":            "ReadIndex rounds started on this node.",
	"reads_total":                   "Reads confirmed on this node.",
	"revision_draws_total":          "Draws of revisions by this node.",
	"revisions_drawn_total":         "Revisions that this node has drawn.",
	"revisions_granted_total":       "Revisions granted by this node as the leader of the meta shard.",
	"revision_grant_rounds_total":   "Rounds of heartbeats that confirmed grants of this node.",
	"revision_redraws_total":        "Writes that drew again because their revision came too late.",
	"shard_raises_total":            "Raises of a shard's last revision, for reads at one.",
	"floors_proposed_total":         "Floors proposed by this node as a leader.",
	"sweeps_total":                  "Sweeps of a replica's versions below its floor.",
	"versions_dropped_total":        "Versions below the floor that this node has dropped.",
	"digests_total":                 "Digests of replicas' content, computed to compare them.",
	"checks_same_total":             "Replicas of this node that were compared with their leader's and are the same.",
	"checks_different_total":        "Times that a replica of this node was found to differ from its leader's.",
	"snapshots_sent_total":          "Snapshots that this node has sent whole.",
	"snapshots_not_sent_total":      "Snapshots that were to be sent and ended otherwise; most are tried again.",
	"snapshots_put_off_total":       "Times that a receiver had no room for a large snapshot of this node.",
	"snapshots_installed_total":     "Snapshots that this node has installed.",
	"snapshots_given_up_total":      "Snapshots that were received in part or whole and not installed.",
	"snapshot_sent_bytes_total":     "Bytes of snapshots that this node has sent.",
	"snapshot_received_bytes_total": "Bytes of snapshots that this node has received.",
	"replicas_removed_total":        "Replicas that were removed from this node, with their data.",
	"removal_notices_total":         "Replicas of other nodes that this one has told of their removal.",
	"removal_questions_total":       "Times that a replica without a leader has asked a node whether it was removed.",
}
