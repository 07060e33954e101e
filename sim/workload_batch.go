package sim

import (
	"bytes"
	"fmt"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// memory is what clients tell one another, so that compares hold now and then, and
// reads ask for revisions that there were.
type memory struct {
	loop *Loop
	seen map[string]version // the last answer of a get, by key
	revs [8]shard.Revision  // the last ones that anybody was given
	next int
	old  [4]shard.Revision // some that are kept for up to oldMax, each until its time
	til  [4]time.Duration
}

// oldMax is longer than the longest retention that is drawn: what is asked for then
// is refused.
const oldMax = 8 * time.Second

func (m *memory) saw(key string, v version) {
	m.seen[key] = v
}

// revision remembers a revision.
func (m *memory) revision(r shard.Revision) {
	m.revs[m.next%len(m.revs)] = r
	m.next++
	for i := range m.old {
		if m.til[i] <= m.loop.now {
			m.old[i], m.til[i] = r, m.loop.now+m.loop.between(oldMax/16, oldMax)
			return
		}
	}
}

// newest is the largest revision of those remembered.
func (m *memory) newest() shard.Revision {
	newest := shard.Revision(0)
	for _, r := range m.revs {
		newest = max(newest, r)
	}
	return newest
}

// condition draws a compare with what was last seen of a key.
func (k *worker) condition(key []byte) shard.Compare {
	v := k.load.memory.seen[string(key)]
	switch l := k.load.cluster.loop; {
	case l.rand.IntN(6) == 0:
		return shard.Compare{Kind: shard.ComparePresent, Key: key}
	case !v.found:
		return shard.Compare{Kind: shard.CompareAbsent, Key: key}
	case l.rand.IntN(2) == 0:
		return shard.Compare{Kind: shard.CompareRevision, Key: key, Revision: v.rev}
	default:
		return shard.Compare{Kind: shard.CompareValue, Key: key, Value: []byte(v.value)}
	}
}

// swap is a compare-and-set of one key, which says what it found if it does not hold.
func (k *worker) swap(key []byte) shard.Command {
	return shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{k.condition(key)},
		Then: []shard.BatchOp{{Kind: shard.KindPut, Key: key, Value: []byte(k.load.value(k.id))}},
		Else: []shard.BatchOp{{Kind: shard.KindGet, Key: key}}}
}

// batch compares and changes some keys of a key's shard; now and then, of any.
func (k *worker) batch(key []byte) shard.Command {
	l := k.load.cluster.loop
	cmd := shard.Command{Kind: shard.KindBatch}
	anywhere := l.rand.IntN(20) == 0
	for _, other := range k.load.keys {
		chosen := bytes.Equal(other, key)
		if !chosen && (anywhere || k.load.cluster.shardOf(other) == k.load.cluster.shardOf(key)) {
			chosen = l.rand.IntN(2) == 0
		}
		if !chosen {
			continue
		}
		if l.rand.IntN(3) == 0 {
			cmd.Compares = append(cmd.Compares, k.condition(other))
		}
		cmd.Then = append(cmd.Then, k.batchOp(other))
		otherwise := shard.BatchOp{Kind: shard.KindGet, Key: other}
		if l.rand.IntN(8) == 0 {
			otherwise = k.batchOp(other)
		}
		cmd.Else = append(cmd.Else, otherwise)
	}
	// The last compare holds always, and names the batch.
	cmd.Compares = append(cmd.Compares, shard.Compare{Kind: shard.CompareAbsent, Key: k.load.behind(key)})
	return cmd
}

func (k *worker) batchOp(key []byte) shard.BatchOp {
	switch k.load.cluster.loop.rand.IntN(4) {
	case 0:
		return shard.BatchOp{Kind: shard.KindDelete, Key: key}
	case 1:
		return shard.BatchOp{Kind: shard.KindGet, Key: key}
	}
	return shard.BatchOp{Kind: shard.KindPut, Key: key, Value: []byte(k.load.value(k.id))}
}

// deleteRange removes a few keys from a key on.
func (k *worker) deleteRange(key []byte) shard.Command {
	l := k.load.cluster.loop
	last := key
	for _, other := range k.load.keys {
		if bytes.Compare(key, other) < 0 && l.rand.IntN(2) == 0 {
			last = other
			break
		}
	}
	return shard.Command{Kind: shard.KindDeleteRange, Start: k.load.before(key), End: append(bytes.Clone(last), 0), Limit: 1 + uint64(l.rand.IntN(4))}
}

// before is a key that nobody writes, new each time, just before a key.
func (w *Workload) before(key []byte) []byte {
	w.written++
	return fmt.Appendf(bytes.Clone(key[:2]), "kex%d", w.written)
}

// behind is a key that nobody writes, new each time, right behind a key.
func (w *Workload) behind(key []byte) []byte {
	w.written++
	return fmt.Appendf(bytes.Clone(key), ".%d", w.written)
}

// call carries out a batch or a delete-range.
func (k *worker) call(cmd shard.Command, timeout, cancelAt time.Duration, then func()) {
	cluster := k.load.cluster
	c := k.load.history.BeginCall(&Call{Client: k.id, Shard: cluster.shardOf(cmd.Anchor()), Command: cmd, At: cluster.loop.now})
	if birth, ok := k.mayChoose(); ok {
		k.choose(cmd, birth, timeout, then, func(k *worker, then func()) func(shard.Result, error) { return k.called(c, then) })
		return
	}
	k.do(cmd, client.DoOptions{Timeout: timeout}, cancelAt, k.called(c, then))
}

// called is what becomes of the answer of a batch or a delete-range.
func (k *worker) called(c *Call, then func()) func(shard.Result, error) {
	cluster := k.load.cluster
	return func(res shard.Result, err error) {
		how := classify(err)
		switch how {
		case done:
			k.load.Acked++
			k.load.Calls++
			c.Result = res
			if res.Revision != 0 {
				k.load.memory.revision(res.Revision)
			}
		case undetermined:
			k.load.Undetermined++
		default:
			k.load.Refused++
		}
		k.load.history.EndCall(c, how)
		cluster.trace.Detail(cluster.loop.now, k.env.name, "%v: %v", c, err)
		then()
	}
}
