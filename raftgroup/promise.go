package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/shard"
)

// Promise is what a replica tells another that it will remember whatever
// happens to its node.
type Promise struct {
	Shard   shard.ID
	Replica shard.ReplicaID // who promises
	Term    uint64
	Vote    shard.ReplicaID // whom it has voted for in Term; 0: says nothing of votes
	Index   uint64          // up to which it holds the log of Term's leader; 0: says nothing of the log
}

// Promises calls each for every promise in a frame that Sends encoded, in
// order. A simulation watches nodes with it, and compares what they have told
// with what they find on their disks after a crash.
func Promises(frame []byte, each func(Promise)) error {
	for len(frame) > 0 {
		e, rest, err := nextMessage(frame)
		if err != nil {
			return err
		}
		if !e.raft() {
			frame = rest
			continue
		}
		p := Promise{Shard: e.shard, Replica: e.from, Term: e.msg.Term}
		switch {
		case e.msg.Reject:
		case e.msg.Type == raftpb.MsgVoteResp:
			p.Vote = e.to
			each(p)
		case e.msg.Type == raftpb.MsgAppResp:
			p.Index = e.msg.Index
			each(p)
		}
		frame = rest
	}
	return nil
}
