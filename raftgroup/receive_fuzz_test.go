package raftgroup

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// FuzzReceive: whatever a peer sends, of any node's and any replica's name, the host
// drops it, or raft takes it; the store stays as sound as it was. What raft says to
// entries that no leader ever sent is not asked: those are left out.
func FuzzReceive(f *testing.F) {
	for _, m := range sampleMessages() {
		for _, id := range []shard.ID{5, 6} {
			f.Add(uint8(2), appendMessage(nil, id, nil, &m, messageBytes(id, nil, &m)))
		}
	}
	f.Add(uint8(3), appendRemoved(nil, 5, 1, 9))
	f.Add(uint8(2), appendAsk(nil, 5, 3))
	f.Add(uint8(0), appendNote(appendAsk(nil, 77, 1), []byte("note")))
	f.Fuzz(func(t *testing.T, from uint8, frame []byte) {
		for rest := frame; len(rest) > 0; {
			e, left, err := nextMessage(rest)
			if err != nil {
				break
			}
			if rest = left; e.raft() && !harmless(&e) {
				return
			}
		}
		c := newCluster(t, 1, 3)
		c.bootstrap(5, 1, 2, 3)
		n := c.node(1)
		n.start()
		if err := n.host.Receive(shard.NodeID(from), frame); err != nil && !errors.Is(err, shard.ErrMalformed) {
			t.Fatal(err)
		}
		c.runFor(500 * time.Millisecond)
		n.crash()
		n.start() // what it wrote can be read
		if ts, found, err := n.engine.Tombstone(5); err != nil || found && ts.NextReplica <= 1 {
			t.Fatalf("tombstone %+v, %v", ts, err)
		}
	})
}

// harmless tells whether a message is one that a leader of an empty log could send. Peers
// are nodes of the cluster, by their certificates: raft ends the process rather than
// take a commit beyond its log, or another entry in the place of a committed one.
func harmless(e *envelope) bool {
	m := &e.msg
	return m.Commit <= 10 && (m.Type != raftpb.MsgApp || m.Index == 10 && m.LogTerm == 1 || m.Index > 10)
}
