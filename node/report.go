package node

import (
	"slices"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/driver"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

// ReportQuery says what a report is to hold beside the node itself.
type ReportQuery struct {
	Replicas bool
	Shards   []shard.ID // with Replicas: only those of these shards; empty: all
	Leading  bool       // with Replicas: not those that follow a leader
	// Placement: what the driver of placement is about, if it works on this node.
	Placement bool
	// ExplainShard or ExplainNode, with Placement: why that is where it is; see Explain.
	ExplainShard shard.ID
	ExplainNode  shard.NodeID
}

func (q *ReportQuery) wants(id shard.ID) bool {
	return q.Replicas && (len(q.Shards) == 0 || slices.Contains(q.Shards, id))
}

// Report is this node's own view of itself, and of its replicas if asked.
// Safe for concurrent use.
func (n *Node) Report(q ReportQuery) *pb.NodeReportResponse {
	id := n.cfg.Identity
	report := &pb.NodeReportResponse{ClusterId: id.Cluster[:], Node: n.info()}
	for _, r := range n.store.Replicas() {
		status := r.Group().Status()
		report.Node.Shards++
		report.Node.LogBytes += uint64(max(0, status.LogBytes))
		if status.Leading {
			report.Node.Leaders++
		}
		if q.wants(status.Shard) && !(q.Leading && !status.Leading && status.LeaderNode != 0) {
			info := describeReplica(r, &status)
			info.Node = uint64(id.Node)
			report.Replicas = append(report.Replicas, info)
		}
	}
	if q.Placement {
		if summary := n.driver.Summary(); summary != nil {
			report.Placement = describePlacement(summary)
		}
	}
	return report
}

// Explain completes a report of this node with what its driver of placement says of the
// shard or the node that the query names.
func (n *Node) Explain(q ReportQuery, report *pb.NodeReportResponse, done func(*pb.NodeReportResponse)) {
	if report.Placement == nil || q.ExplainShard == 0 && q.ExplainNode == 0 {
		done(report)
		return
	}
	n.driver.Explain(q.ExplainShard, q.ExplainNode, func(lines []string) {
		report.Placement.Explained = lines
		done(report)
	})
}

func describePlacement(s *driver.Summary) *pb.PlacementReport {
	r := &pb.PlacementReport{Term: s.Term, Paused: s.Tuning.Paused, Rebalance: s.Tuning.Rebalance, DeadAfterSeconds: s.Tuning.DeadAfter.Seconds(),
		LowSpace: uint32(s.Tuning.LowSpace), FullSpace: uint32(s.Tuning.FullSpace)}
	for _, n := range s.Nodes {
		r.Nodes = append(r.Nodes, &pb.PlacementNode{
			Id: uint64(n.ID), State: n.State.String(), Live: n.Live, Dead: n.Dead, SilentSeconds: n.Silent.Seconds(),
			Leaders: uint64(n.Leaders), Replicas: uint64(n.Replicas), Homeless: uint64(n.Homeless),
		})
	}
	for _, note := range s.Shards {
		r.Shards = append(r.Shards, &pb.PlacementNote{Id: uint64(note.Shard), Text: note.Text})
	}
	for _, note := range s.Operations {
		r.Operations = append(r.Operations, &pb.PlacementNote{Id: note.ID, Text: note.Text})
	}
	return r
}

func (n *Node) info() *pb.NodeInfo {
	id := n.cfg.Identity
	disk := n.cfg.Engine.Stats()
	host := n.host.Stats()
	peers := n.cfg.Transport.Stats()
	replicas := n.store.Stats()
	draws, drawn := n.draws.Drawn()
	granted, grantRounds := n.grants.Granted()
	info := &pb.NodeInfo{
		Id: uint64(id.Node), Address: n.cfg.Advertise, HttpAddress: n.cfg.HTTPAddress, Live: true,
		Bytes: uint64(max(0, disk.DiskBytes)), Incarnation: id.Incarnation, Version: n.cfg.Version, Locality: string(n.cfg.Locality),
		UptimeSeconds: (n.cfg.Env.Now() - n.started).Seconds(), Gauges: map[string]float64{},
		Counters: map[string]float64{
			"wal_syncs_total":        float64(disk.WALSyncs),
			"wal_sync_seconds_total": disk.WALSyncTime.Seconds(),
			"commits_total":          float64(disk.Commits),
			"ingests_total":          float64(disk.Ingests),
			"rounds_total":           float64(host.Rounds),
			"groups_in_rounds_total": float64(host.GroupsInRounds),
			"entries_total":          float64(host.Entries),
			"operations_total":       float64(host.Operations),
			"read_indexes_total":     float64(host.ReadIndexes),
			"reads_total":            float64(host.Reads),

			"revision_draws_total":        float64(draws),
			"revisions_drawn_total":       float64(drawn),
			"revisions_granted_total":     float64(granted),
			"revision_grant_rounds_total": float64(grantRounds),
			"revision_redraws_total":      float64(replicas.Redraws),

			"shard_raises_total":     float64(replicas.Raises),
			"floors_proposed_total":  float64(replicas.FloorsProposed),
			"sweeps_total":           float64(replicas.Sweeps),
			"versions_dropped_total": float64(replicas.VersionsDropped),

			"digests_total":                 float64(replicas.Digests),
			"checks_same_total":             float64(replicas.ChecksSame),
			"checks_different_total":        float64(replicas.ChecksDiffer),
			"snapshots_sent_total":          float64(host.SnapshotsSent),
			"snapshots_not_sent_total":      float64(host.SnapshotsUnsent),
			"snapshots_put_off_total":       float64(peers.SnapshotsPutOff),
			"snapshots_installed_total":     float64(host.SnapshotsTaken),
			"snapshots_given_up_total":      float64(host.SnapshotsGivenUp),
			"snapshot_sent_bytes_total":     float64(peers.SnapshotBytesSent),
			"snapshot_received_bytes_total": float64(peers.SnapshotBytesRead),

			"replicas_removed_total":  float64(host.ReplicasRemoved),
			"removal_notices_total":   float64(host.Notices),
			"removal_questions_total": float64(host.Questions),
		},
	}
	info.CapacityBytes, info.AvailableBytes = n.cfg.Engine.Space()
	for _, g := range n.gauges(disk, host, peers) {
		info.Gauges[g.Name] = g.Value
	}
	if n.cfg.CPUSeconds != nil {
		info.Counters["process_cpu_seconds_total"] = n.cfg.CPUSeconds()
	}
	return info
}

func describeReplica(r *replica.Replica, s *raftgroup.Status) *pb.ReplicaInfo {
	info := &pb.ReplicaInfo{
		Shard: uint64(s.Shard), Replica: uint64(s.Replica), Term: s.Term, Leading: s.Leading, LeaderNode: uint64(s.LeaderNode),
		First: s.First, Last: s.Last, Commit: s.Commit, Applied: s.Applied, LogBytes: uint64(max(0, s.LogBytes)),
	}
	if state, ok := r.State(); ok {
		info.Descriptor_ = api.FromDescriptor(&state.Descriptor)
		info.Keys, info.Bytes = r.Estimate()
		info.Revision = uint64(state.LastRevision)
	}
	if s.Err != nil {
		info.Stopped = s.Err.Error()
	}
	if c := r.Checked(); c.State != replica.CheckNone {
		info.Check = &pb.ReplicaCheck{Index: c.Index, State: string(c.State), Reason: c.Reason, Digest: c.Digest, LeadersDigest: c.Leaders,
			Versions: c.Versions, Bytes: c.Bytes, Differs: r.Differs()}
	}
	if s.Leading {
		describeLoad(info, r)
	}
	for _, p := range s.Progress {
		info.Progress = append(info.Progress, &pb.MemberProgress{Replica: uint64(p.Replica), Match: p.Match, Active: p.Active, Snapshot: p.Snapshot,
			SnapshotBytes: p.SnapshotBytes})
	}
	return info
}

// describeLoad tells what only a leader knows: what is asked of the shard, and whether it
// has too much.
func describeLoad(info *pb.ReplicaInfo, r *replica.Replica) {
	load, wish := r.Load(), r.SplitWish()
	info.ReadsPerSecond, info.WritesPerSecond, info.BytesWrittenPerSecond = load.Reads, load.Writes, load.BytesWritten
	for _, k := range load.Hot {
		info.HotKeys = append(info.HotKeys, &pb.HotKey{Key: k.Key, PerSecond: k.PerSecond})
	}
	info.SplitKey, info.SplitReason, info.SplitRefusal = wish.At, wish.Reason, wish.Refusal
}
