package node

import (
	"math"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/placement/driver"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	// reportPatience is how long a node may take to report and still count as live.
	reportPatience = 2 * time.Second
	// stepPatience bounds a membership change or a transfer at a shard's leader.
	stepPatience = 10 * time.Second
)

// descriptorChanged feeds the directory, and starts placement when this node
// has come to lead the meta shard.
func (n *Node) descriptorChanged(d shard.Descriptor, leading bool, term uint64) {
	n.feeder.DescriptorChanged(d, leading, term)
	if d.ID == shard.MetaID && leading {
		n.driver.Start(term)
	}
}

// supervisePlacement stops placement when this node no longer leads the meta
// shard. Until it looks, two drivers may be at work: harmless, as every step
// names the epoch that it is meant for.
func (n *Node) supervisePlacement() {
	if meta, here := n.store.Replica(shard.MetaID); here {
		if l := meta.Leadership(); l.Leading {
			n.driver.Start(l.Term)
		} else {
			n.driver.Stop(l.Term)
		}
	} else {
		n.driver.Stop(math.MaxUint64) // the replica may have been removed while it led
	}
	n.later(supervisePause, n.supervisePlacement)
}

// drivenCluster is the cluster as the driver sees it from this node.
type drivenCluster Node

// Reports asks every known node at the same time, this one directly.
func (c *drivenCluster) Reports(only []shard.ID, done func([]driver.Report)) {
	n := (*Node)(c)
	known := n.addresses.All()
	delete(known, n.cfg.Identity.Node)
	query := ReportQuery{Replicas: true, Shards: only, Leading: true}
	g := &gathering{waiting: len(known), done: done}
	g.reports = append(g.reports, toReport(n.Report(query)))
	if len(known) == 0 {
		done(g.reports)
		return
	}
	for _, id := range sortedNodes(known) {
		n.cfg.Peers.Report(known[id], query, reportPatience, func(r *pb.NodeReportResponse, err error) {
			if err == nil && (r.GetNode().GetId() != uint64(id) || string(r.ClusterId) != string(n.cfg.Identity.Cluster[:])) {
				err = shard.ErrUnavailable // another node, or another cluster, at an old address
			}
			g.add(r, err)
		})
	}
}

// gathering collects reports until every node has answered or failed.
type gathering struct {
	mu      sync.Mutex
	waiting int
	reports []driver.Report
	done    func([]driver.Report)
}

func (g *gathering) add(r *pb.NodeReportResponse, err error) {
	g.mu.Lock()
	if err == nil {
		g.reports = append(g.reports, toReport(r))
	}
	g.waiting--
	last := g.waiting == 0
	g.mu.Unlock()
	if last {
		g.done(g.reports)
	}
}

// toReport keeps what the driver needs; replicas whose descriptor does not
// decode are left out, like those that are not initialized.
func toReport(r *pb.NodeReportResponse) driver.Report {
	out := driver.Report{Node: shard.NodeID(r.GetNode().GetId()), Held: int(r.GetNode().GetShards()),
		Capacity: r.GetNode().GetCapacityBytes(), Available: r.GetNode().GetAvailableBytes(), DiskBytes: r.GetNode().GetBytes()}
	for _, info := range r.Replicas {
		d, err := api.ToDescriptor(info.Descriptor_)
		if err != nil {
			continue
		}
		rep := driver.ReplicaReport{Descriptor: d, Term: info.Term, Leading: info.Leading, Commit: info.Commit, Bytes: info.Bytes,
			Load: placement.Load{Reads: info.ReadsPerSecond, Writes: info.WritesPerSecond}, SplitAt: info.SplitKey, SplitReason: info.SplitReason}
		for _, p := range info.Progress {
			rep.Progress = append(rep.Progress, placement.Progress{Replica: shard.ReplicaID(p.Replica), Match: p.Match, Active: p.Active, Snapshot: p.Snapshot})
		}
		out.Replicas = append(out.Replicas, rep)
	}
	return out
}

// ChangeMembership asks the leader on a node, directly if that is this one.
func (c *drivenCluster) ChangeMembership(node shard.NodeID, m shard.MembershipChange, done func(shard.Descriptor, error)) {
	n := (*Node)(c)
	if node == n.cfg.Identity.Node {
		n.ChangeMembership(m, done)
		return
	}
	n.cfg.Peers.ChangeMembership(n.addresses.Lookup(node), m, stepPatience, done)
}

// SplitShard asks the leader on a node, directly if that is this one.
func (c *drivenCluster) SplitShard(node shard.NodeID, s shard.Split, done func(left, right shard.Descriptor, err error)) {
	n := (*Node)(c)
	if node == n.cfg.Identity.Node {
		n.SplitShard(s, done)
		return
	}
	n.cfg.Peers.SplitShard(n.addresses.Lookup(node), s, stepPatience, done)
}

// TransferShard asks the leader on a node, directly if that is this one.
func (c *drivenCluster) TransferShard(node shard.NodeID, id shard.ID, to shard.ReplicaID, done func(error)) {
	n := (*Node)(c)
	if node == n.cfg.Identity.Node {
		n.TransferShard(id, to, done)
		return
	}
	n.cfg.Peers.TransferShard(n.addresses.Lookup(node), id, to, stepPatience, done)
}
