package sim

import (
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/raftgroup/transport"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// promises is what replicas have told each other. It catches a node that says
// something before it is durable at its first crash, long before the votes and
// entries that it forgot come together to a lost write.
type promises struct {
	votes map[ballot]shard.ReplicaID
	last  map[member]promised
}

type ballot struct {
	member
	term uint64
}

type member struct {
	shard   shard.ID
	replica shard.ReplicaID
}

// promised is the newest term in which a replica has promised anything, and up
// to where it has acknowledged the log in that term.
type promised struct{ term, index uint64 }

// tap is a node's transport with a witness.
type tap struct {
	*transport.Memory
	node *Node
}

// Send implements raftgroup.Transport.
func (t *tap) Send(to shard.NodeID, size int, encode func(frame []byte) []byte) bool {
	w := t.node.cluster.witness
	return t.Memory.Send(to, size, func(frame []byte) []byte {
		before := len(frame)
		frame = encode(frame)
		if err := raftgroup.Promises(frame[before:], w.promise); err != nil {
			t.node.fail("a message that does not decode", err)
		}
		return frame
	})
}

func (w *Witness) promise(p raftgroup.Promise) {
	m := member{p.Shard, p.Replica}
	if on, gone := w.removed[m]; gone {
		w.Fail("replica %d of shard %d was removed from %s and promises something in term %d", p.Replica, p.Shard, on, p.Term)
	}
	if p.Vote != 0 {
		b := ballot{m, p.Term}
		if first, voted := w.promises.votes[b]; voted && first != p.Vote {
			w.Fail("replica %d of shard %d votes twice in term %d: for %d and %d", p.Replica, p.Shard, p.Term, first, p.Vote)
		}
		w.promises.votes[b] = p.Vote
	}
	last := w.promises.last[m]
	if p.Term > last.term {
		last = promised{term: p.Term}
	}
	if p.Term == last.term {
		last.index = max(last.index, p.Index)
	}
	w.promises.last[m] = last
}

// kept compares a store after a crash with what its replicas have promised.
func (w *Witness) kept(node string, e *storage.Engine) {
	replicas, err := e.Replicas()
	if err != nil {
		w.Fail("%s: list of replicas: %v", node, err)
	}
	for _, r := range replicas {
		log, err := e.OpenLog(r.Shard, r.Replica)
		if err != nil {
			w.Fail("%s: log of shard %d: %v", node, r.Shard, err)
			continue
		}
		w.keptBy(node, r, log)
		log.Release()
	}
}

func (w *Witness) keptBy(node string, r storage.ReplicaRecord, log *storage.Log) {
	hs, err := log.InitialState()
	if err != nil {
		w.Fail("%s: hard state of shard %d: %v", node, r.Shard, err)
		return
	}
	m := member{r.Shard, r.Replica}
	last, _ := log.LastIndex()
	p := w.promises.last[m]
	switch vote, voted := w.promises.votes[ballot{m, hs.Term}]; {
	case hs.Term < p.term:
		w.Fail("%s came back with shard %d in term %d; it has promised something in term %d", node, r.Shard, hs.Term, p.term)
	case voted && shard.ReplicaID(hs.Vote) != vote:
		w.Fail("%s came back with shard %d and a vote for %d in term %d; it has voted for %d", node, r.Shard, hs.Vote, hs.Term, vote)
	case hs.Term == p.term && last < p.index:
		// In a later term a conflicting append may have cut the log.
		w.Fail("%s came back with shard %d up to entry %d; it has acknowledged %d in term %d", node, r.Shard, last, p.index, p.term)
	}
	w.wellFormed(node, r.Shard, log, hs.Term, last)
}

// wellFormed refuses a log in which terms go back, or above the replica's own:
// something of an older leader's was left behind a newer one's entries.
func (w *Witness) wellFormed(node string, id shard.ID, log *storage.Log, own, last uint64) {
	first, _ := log.FirstIndex()
	term, err := log.Term(first - 1)
	for i := first; i <= last && err == nil; i++ {
		var next uint64
		if next, err = log.Term(i); err == nil && (next < term || next > own) {
			w.Fail("%s came back with shard %d and entry %d of term %d after one of term %d, in term %d", node, id, i, next, term, own)
			return
		}
		term = next
	}
	if err != nil {
		w.Fail("%s came back with a gap in the log of shard %d, [%d, %d]: %v", node, id, first, last, err)
	}
}
