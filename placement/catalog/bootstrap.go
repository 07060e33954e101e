package catalog

import (
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// InitialShardsMax bounds the user shards of a new cluster: its first node
// holds a replica of every one of them until other nodes join.
const InitialShardsMax = 1 << 14

// Write is one unversioned record to be written.
type Write struct {
	Key, Value []byte
}

// InitialDescriptors are the descriptors of a new cluster: the meta shard, which
// covers the system keyspace, and users shards that divide the first two bytes
// of user keys evenly. Each has one voter, replica 1, on node.
func InitialDescriptors(node shard.NodeID, users int) ([]shard.Descriptor, error) {
	if users < 1 || users > InitialShardsMax {
		return nil, &shard.InvalidError{Field: "initial shards", Reason: fmt.Sprintf("must be 1 to %d, not %d", InitialShardsMax, users)}
	}
	spans := make([]shard.Span, 0, 1+users)
	spans = append(spans, shard.SystemSpan())
	all := shard.UserSpan()
	start := all.Start
	for i := 1; i <= users; i++ {
		end := all.End
		if i < users {
			end = boundary(uint(i), uint(users))
		}
		spans = append(spans, shard.Span{Start: start, End: end})
		start = end
	}
	ds := make([]shard.Descriptor, 0, len(spans))
	for i, span := range spans {
		ds = append(ds, shard.Descriptor{
			ID:          shard.MetaID + shard.ID(i),
			Span:        span,
			Epoch:       shard.Epoch{Version: shard.FirstVersion, ConfVersion: 1},
			Replicas:    []shard.Replica{{ID: 1, Node: node, Role: shard.Voter}},
			NextReplica: 2,
		})
	}
	return ds, nil
}

// boundary is the full key at which part i of n begins. A zero byte at its end
// is left out: keys that are shorter than two bytes sort as if zeros followed.
func boundary(i, n uint) []byte {
	at := i * (1 << 16) / n
	b := []byte{shard.UserKeyspace, byte(at >> 8)}
	if low := byte(at); low != 0 {
		b = append(b, low)
	}
	return b
}

// BootstrapRecords are the records that a new cluster's meta shard starts with:
// its first node, the counters after all IDs in use, and the directory, in order
// of key.
func BootstrapRecords(first router.Node, descriptors []shard.Descriptor) []Write {
	lastShard := shard.MetaID
	var ws []Write
	for i := range descriptors {
		d := &descriptors[i]
		lastShard = max(lastShard, d.ID)
		e := router.Entry{Descriptor: *d}
		for _, r := range d.Replicas {
			if r.Node == first.ID {
				e.Leader = shard.LeaderHint{Replica: r.ID, Node: r.Node}
			}
		}
		ws = append(ws, Write{Key: router.DirectoryKey(d.Span.Start), Value: router.AppendEntry(nil, &e)})
	}
	return append(ws,
		Write{Key: counterKey(nodeCounter), Value: encodeCounter(uint64(first.ID))},
		Write{Key: counterKey(shardCounter), Value: encodeCounter(uint64(lastShard))},
		Write{Key: router.NodeKey(first.ID), Value: router.AppendNode(nil, &first)},
	)
}
