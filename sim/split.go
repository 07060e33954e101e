package sim

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// splitter splits the shard that covers a key there, as an operator's command does that
// is given to some node: that one has a new ID handed out, and asks the shard's leader.
// Whatever becomes of an attempt, it looks anew at where the key is, and goes on from that
// under another ID, until a shard begins at the key.
type splitter struct {
	nemesis  *Nemesis
	key      []byte
	attempts int
}

const (
	// splitPause is between two attempts of a splitter, on average, and splitPatience how
	// long it waits for the end of one.
	splitPause    = 50 * time.Millisecond
	splitPatience = time.Second

	// shardsMax is how many shards a run has at most.
	shardsMax = 30
)

// splitOne begins to split a drawn shard, unless there are enough.
func (n *Nemesis) splitOne() bool {
	if len(n.cluster.shards())+n.splitting >= shardsMax {
		return false
	}
	key := n.splitKey()
	n.event("split at %q", key)
	n.splitting++
	(&splitter{nemesis: n, key: key}).start()
	if n.cluster.loop.rand.IntN(8) == 0 { // somebody else has the same idea
		n.splitting++
		(&splitter{nemesis: n, key: key}).start()
	}
	return true
}

// splitKey draws a key at which no shard begins: one that is in use, one right behind it,
// one between two, or any.
func (n *Nemesis) splitKey() (key []byte) {
	l := n.cluster.loop
	for {
		key = bytes.Clone(n.load.keys[l.rand.IntN(len(n.load.keys))])
		switch l.rand.IntN(8) {
		case 0:
		case 1:
			key = append(key, 0)
		case 2, 3:
			key = append(key, 'm')
		default:
			key = shard.UserKey(fmt.Appendf([]byte{byte(l.rand.IntN(256))}, "%d", l.rand.IntN(100)))
		}
		if !bytes.Equal(n.cluster.covering(key).Span.Start, key) {
			return key
		}
	}
}

func (s *splitter) start() {
	l := s.nemesis.cluster.loop
	l.After(l.between(splitPause/10, 2*splitPause), "split", func() {
		if s.nemesis.stopped {
			s.nemesis.splitting--
			return
		}
		s.look()
	})
}

func (s *splitter) look() {
	n, c := s.nemesis, s.nemesis.cluster
	at := n.anyNode()
	leader, state := c.leads(c.shardOf(s.key))
	d := state.Descriptor
	switch {
	case bytes.Equal(c.covering(s.key).Span.Start, s.key):
		n.splitting--
		return
	case !at.Serving() || leader == nil || !d.Span.Contains(s.key):
		s.start()
		return
	}
	if c.loop.chance(50) { // it has not heard the news
		d.Epoch.ConfVersion--
	}
	s.attempts++
	attempt, env := s.attempts, at.env
	over := func() { // whichever comes first: the answer, or the end of patience
		if s.attempts == attempt {
			s.attempts++
			s.start()
		}
	}
	c.loop.After(splitPatience, "split again", over)
	at.node.Catalog().AllocateShard(func(id shard.ID, err error) {
		if err != nil || at.env != env {
			over()
			return
		}
		ask := shard.Split{Shard: d.ID, Epoch: d.Epoch, Key: s.key, Right: id}
		n.event("%s asks %s to split shard %d at %q", at.Name, leader.Name, d.ID, s.key)
		done := func(left, right shard.Descriptor, err error) {
			s.answered(&ask, &left, &right, err)
			over()
		}
		if at == leader {
			at.node.SplitShard(ask, done)
		} else {
			(*peerCalls)(at).SplitShard(leader.Address, ask, splitPatience, done)
		}
	})
}

// answered judges what a splitter is told.
func (s *splitter) answered(ask *shard.Split, left, right *shard.Descriptor, err error) {
	n := s.nemesis
	n.event("split of shard %d at %q, with shard %d for the rest: %v", ask.Shard, ask.Key, ask.Right, err)
	var invalid *shard.InvalidError
	switch {
	case errors.As(err, &invalid):
		n.cluster.witness.Fail("a split is called invalid: %+v: %v", *ask, err)
	case err != nil:
	case left.ID != ask.Shard || right.ID != ask.Right || !bytes.Equal(left.Span.End, ask.Key) || !bytes.Equal(right.Span.Start, ask.Key):
		n.cluster.witness.Fail("a split is answered with other shards: %+v: %v and %v", *ask, *left, *right)
	default:
		if _, born := n.cluster.witness.births[right.ID]; !born {
			n.cluster.witness.Fail("a split is answered, and no replica has applied it: %+v", *ask)
		}
	}
}
