package sim

import (
	"bytes"
	"errors"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// lookBack draws one read at a revision, or a draw, and carries it out.
func (k *worker) lookBack(key []byte, timeout time.Duration, then func()) {
	l := k.load.cluster.loop
	anyReplica := l.rand.IntN(3) > 0
	switch l.rand.IntN(8) {
	case 0:
		k.draw(timeout, func(shard.Revision) { then() })
	case 1, 2:
		k.snapshot(anyReplica, timeout, then)
	case 3:
		k.future(key, anyReplica, timeout, then)
	default:
		rev := k.load.memory.asked()
		switch {
		case rev == 0:
			then()
		case l.rand.IntN(3) == 0:
			cmd := shard.Command{Kind: shard.KindScan, Start: key, End: shard.UserSpan().End, Revision: rev, AnyReplica: anyReplica, Limit: uint64(l.rand.IntN(5))}
			k.scanAt(cmd, timeout, func(shard.Result, error) { then() })
		default:
			k.getAt(key, rev, anyReplica, timeout, then)
		}
	}
}

// asked draws a revision to read at, among those that are remembered; 0: there is
// none yet.
func (m *memory) asked() shard.Revision {
	if m.loop.rand.IntN(2) == 0 {
		return m.old[m.loop.rand.IntN(len(m.old))]
	}
	return m.revs[m.loop.rand.IntN(len(m.revs))]
}

// draw draws a revision as a client does that will read at it.
func (k *worker) draw(timeout time.Duration, then func(shard.Revision)) {
	cluster := k.load.cluster
	o := k.load.history.Begin(&Op{Client: k.id, Kind: shard.KindDraw, Shard: shard.MetaID, Count: 1, At: cluster.loop.now})
	k.do(shard.Command{Kind: shard.KindDraw, Limit: 1}, client.DoOptions{Timeout: timeout}, 0, func(res shard.Result, err error) {
		how := refused
		if err == nil {
			how = done
			o.Rev = res.Revision
			k.load.memory.revision(res.Revision)
			if res.Revision == 0 || res.Count != 1 {
				cluster.witness.Fail("a draw of a revision gave %d from %d on", res.Count, res.Revision)
			}
		}
		k.load.history.End(o, how)
		cluster.trace.Detail(cluster.loop.now, k.env.name, "%v: %v", o, err)
		then(o.Rev)
	})
}

// snapshot reads all keys at one revision, which it draws first.
func (k *worker) snapshot(anyReplica bool, timeout time.Duration, then func()) {
	k.draw(timeout, func(rev shard.Revision) {
		if rev == 0 {
			then()
			return
		}
		cmd := shard.Command{Kind: shard.KindScan, Start: shard.UserSpan().Start, End: shard.UserSpan().End, Revision: rev, AnyReplica: anyReplica}
		var next func(shard.Result, error)
		next = func(res shard.Result, err error) {
			if err != nil || res.Resume == nil {
				then()
				return
			}
			cmd.Start = res.Resume
			k.scanAt(cmd, timeout, next)
		}
		k.scanAt(cmd, timeout, next)
	})
}

func (k *worker) getAt(key []byte, rev shard.Revision, anyReplica bool, timeout time.Duration, then func()) {
	cluster, call := k.load.cluster, k.load.history.now()
	began := cluster.loop.now
	k.do(shard.Command{Kind: shard.KindGet, Key: key, Revision: rev, AnyReplica: anyReplica}, client.DoOptions{Timeout: timeout}, 0, func(res shard.Result, err error) {
		s := &Snapshot{At: rev, Shard: cluster.shardOf(key), Key: string(key), Found: res.Found, Value: string(res.Value), Rev: res.Revision, Asked: true, Client: k.id, Call: call, Time: began}
		if !s.Found {
			s.Value, s.Rev = "", 0
		}
		if err == nil {
			k.load.Reads++
			k.load.ReadsAt++
			k.load.history.Saw(s)
		}
		k.load.refusedAt(rev, err)
		cluster.trace.Detail(cluster.loop.now, k.env.name, "%v: %v", s, err)
		then()
	})
}

// scanAt reads a page at a revision.
func (k *worker) scanAt(cmd shard.Command, timeout time.Duration, then func(shard.Result, error)) {
	cluster, call := k.load.cluster, k.load.history.now()
	began := cluster.loop.now
	k.do(cmd, client.DoOptions{Timeout: timeout}, 0, func(res shard.Result, err error) {
		if err == nil {
			k.load.Reads++
			k.load.ReadsAt++
			k.sawPage(&cmd, &res, call, began)
		}
		k.load.refusedAt(cmd.Revision, err)
		k.scanned(&cmd, &res, err)
		then(res, err)
	})
}

// sawPage notes what a page at a revision says of each key that it covers.
func (k *worker) sawPage(cmd *shard.Command, res *shard.Result, call int64, began time.Duration) {
	cluster := k.load.cluster
	if res.Revision != cmd.Revision {
		cluster.witness.Fail("a scan at revision %d was answered at %d", cmd.Revision, res.Revision)
	}
	page := k.checkPage(cmd, res)
	rows := rowsByKey(res)
	for _, key := range k.load.keys {
		if !page.Contains(key) {
			continue
		}
		s := &Snapshot{At: cmd.Revision, Shard: cluster.shardOf(key), Key: string(key), Asked: true, Client: k.id, Call: call, Time: began}
		if row := rows[s.Key]; row != nil {
			s.Found, s.Value, s.Rev = true, string(row.Value), row.Revision
			delete(rows, s.Key)
		}
		k.load.history.Saw(s)
	}
	for i := range res.Rows {
		if rows[string(res.Rows[i].Key)] != nil {
			cluster.witness.Fail("a scan found key %q, which nobody writes", res.Rows[i].Key)
		}
	}
}

// refusedAt judges the refusal of a read at a revision that a client was given.
func (w *Workload) refusedAt(rev shard.Revision, err error) {
	witness := w.cluster.witness
	switch {
	case errors.Is(err, shard.ErrFutureRevision):
		witness.Fail("revision %d was given out and is called one of the future", rev)
	case errors.Is(err, shard.ErrCompacted):
		w.Compacted++
		if rev >= witness.floorMax {
			witness.Fail("a read at revision %d was refused as compacted, and no floor is above %d", rev, witness.floorMax)
		}
	}
}

// future asks for a revision that nobody was given.
func (k *worker) future(key []byte, anyReplica bool, timeout time.Duration, then func()) {
	cluster := k.load.cluster
	rev := shard.MaxRevision - shard.Revision(cluster.loop.rand.IntN(2))
	k.do(shard.Command{Kind: shard.KindGet, Key: bytes.Clone(key), Revision: rev, AnyReplica: anyReplica}, client.DoOptions{Timeout: timeout}, 0, func(_ shard.Result, err error) {
		if err == nil {
			cluster.witness.Fail("a read at revision %d, which nobody was given, was answered", rev)
		}
		then()
	})
}

// lookBackEverywhere asks every node, one question after the other, for every key
// at revisions that were asked for before, and calls then. A question that is not
// answered within a second is given up.
func (w *Workload) lookBackEverywhere(then func()) {
	type question struct {
		node *Node
		key  []byte
		rev  shard.Revision
	}
	var questions []question
	for _, rev := range append(w.memory.old[:], w.memory.revs[:2]...) {
		for _, key := range w.keys {
			for _, n := range w.cluster.nodes {
				if rev != 0 && !n.gone {
					questions = append(questions, question{n, key, rev})
				}
			}
		}
	}
	s := NewScout(w, 0)
	var ask func(i int)
	ask = func(i int) {
		if i == len(questions) {
			then()
			return
		}
		over := false
		next := func() {
			if !over {
				over = true
				ask(i + 1)
			}
		}
		s.readAt(questions[i].node, questions[i].key, questions[i].rev, next)
		w.cluster.net.in(s.env, time.Second, "given up", next)
	}
	ask(0)
}
