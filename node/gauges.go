package node

import (
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/storage"
)

// Gauge is one figure of the node at this moment.
type Gauge struct {
	Name, Help string
	Value      float64
}

// Gauges are figures of the engine and the host that go up and down.
func (n *Node) Gauges() []Gauge {
	return n.gauges(n.cfg.Engine.Stats(), n.host.Stats(), n.cfg.Transport.Stats())
}

func (n *Node) gauges(disk storage.Stats, host raftgroup.HostStats, peers transport.Stats) []Gauge {
	capacity, available := n.cfg.Engine.Space()
	all := []Gauge{
		{"capacity_bytes", "Size of the disk that holds the store; 0: not known.", float64(capacity)},
		{"available_bytes", "Bytes of that disk that are free.", float64(available)},
		{"memtable_bytes", "Bytes in memtables.", float64(disk.MemtableBytes)},
		{"block_cache_bytes", "Bytes in the block cache.", float64(disk.CacheBytes)},
		{"l0_sublevels", "Sublevels of level 0: how far compaction is behind.", float64(disk.L0Sublevels)},
		{"proposal_bytes", "Bytes of proposals that wait for their outcome.", float64(host.ProposalBytes)},
		{"snapshots_queued", "Snapshots in line to be sent.", float64(peers.QueuedSnapshots)},
		{"snapshots_sending", "Snapshots that are being sent.", float64(peers.SendingSnapshots)},
		{"snapshots_receiving", "Snapshots that are being received or installed.", float64(host.SnapshotsIn)},
		{"replicas_different", "Replicas on this node whose content differs from their leader's.", float64(n.differing())},
		{"incoming_bytes", "Bytes of raft messages that wait for a turn.", float64(host.IncomingBytes)},
	}
	if n.cfg.Gauges != nil {
		all = append(all, n.cfg.Gauges()...)
	}
	return all
}

// differing counts the replicas whose last comparison with their leader found a
// difference.
func (n *Node) differing() (count int) {
	for _, r := range n.store.Replicas() {
		if r.Differs() {
			count++
		}
	}
	return count
}
