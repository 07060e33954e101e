package driver

import (
	"bytes"
	"fmt"
	"time"

	"github.com/kiloraft/kiloraft/placement"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// silenceStepMax bounds what one poll adds to a node's silence: time in which this
// node did not ask, because it was suspended or busy, is nobody else's silence.
const silenceStepMax = 5 * time.Second

// member is a node as the driver knows it.
type member struct {
	record router.Node // Serving, and without an ID, until it was read
	seen   time.Duration
	heard  bool // ever, by this driver
	silent time.Duration
	empty  bool // it answered the last poll for all, and said that it holds no replica
	ending bool // its removal is on its way

	capacity, available, diskBytes uint64 // as it last reported
}

func (m *member) live(now time.Duration) bool { return m.heard && now <= m.seen+liveFor }

// member finds or makes a node's member.
func (d *Driver) member(id shard.NodeID) *member {
	m := d.members[id]
	if m == nil {
		m = &member{}
		d.members[id] = m
	}
	return m
}

// hear takes in that a node answered.
func (d *Driver) hear(r *Report, now time.Duration) {
	m := d.member(r.Node)
	if !m.live(now) {
		d.joined = now
	}
	m.seen, m.heard, m.silent, m.empty = now, true, 0, r.Held == 0
	m.capacity, m.available, m.diskBytes = r.Capacity, r.Available, r.DiskBytes
}

// pass adds the time since the last poll to the silence of those that did not
// answer this one. A driver that starts knows of no silence before.
func (d *Driver) pass(now time.Duration, answered map[shard.NodeID]bool) {
	step := min(now-d.passed, silenceStepMax)
	d.passed = now
	for id, m := range d.members { //order-free: each is judged alone
		if !answered[id] {
			m.silent += step
			m.empty = false
		}
		if m.record.ID == 0 && !m.live(now) && now > m.seen+forgetAfter && !d.listed(id) {
			delete(d.members, id) // it never registered
		}
	}
}

// meet makes members of all nodes on which shards have replicas. One may have no
// record: it was lost before it registered, or its record was lost with the meta
// shard. Its replicas are to be rebuilt like any others, which begins with noticing
// that it is silent.
func (d *Driver) meet() {
	for _, e := range d.sorted {
		for _, r := range e.Descriptor.Replicas {
			d.member(r.Node)
		}
	}
}

// dead tells whether a node's replicas are to be rebuilt elsewhere. Nobody is dead
// before it is known how long that takes.
func (d *Driver) dead(m *member, now time.Duration) bool {
	return !m.live(now) && d.tuning.DeadAfter > 0 && m.silent > d.tuning.DeadAfter
}

// viewNodes are the nodes as placement sees them.
func (d *Driver) viewNodes(now time.Duration) (nodes []placement.Node) {
	for id, m := range d.members { //order-free: the plan sorts nodes
		n := placement.Node{ID: id, Live: m.live(now), Dead: d.dead(m, now), State: m.record.State, Locality: m.record.Locality,
			Capacity: m.capacity, Available: m.available, Held: m.diskBytes}
		if n.State == shard.Removed {
			n.Live, n.Dead = false, true
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// retire ends the membership of nodes that leave and of which nothing is left: no
// shard lists them, by its leader or by the directory, which knows of all shards, and
// they have said themselves, if they live, that they hold nothing.
func (d *Driver) retire(now time.Duration) {
	for _, id := range d.memberIDs() {
		m := d.members[id]
		if m.record.State != shard.Leaving || m.ending || d.listed(id) || m.live(now) && !m.empty {
			continue
		}
		m.ending = true
		run := d.run
		end := func(err error) {
			d.submit(run, func() {
				m.ending = false
				if err != nil {
					d.log.warn("a node that leaves was not removed and will be", "node", id, "err", err)
				}
				d.readRecords()
			})
		}
		d.records.ListDirectory(func(rows []DirectoryRow, err error) {
			if at := gap(rows); at != nil && err == nil {
				err = fmt.Errorf("the directory does not say yet which shard has the keys from %s on", shard.FormatKey(at))
			}
			for i := range rows {
				if _, there := rows[i].Descriptor.ReplicaOn(id); there && err == nil {
					err = &shard.NotReadyError{Shard: rows[i].Descriptor.ID, Reason: "the directory still lists a replica on node " + id.String()}
				}
			}
			if err != nil {
				end(err)
				return
			}
			d.records.SetNodeState(id, shard.Removed, d.unixNow(), func(_ router.Node, err error) { end(err) })
		})
	}
}

// gap is where the directory, in order of start keys, first leaves open who covers keys of
// users; nil: nowhere. After a split it has a gap until the leader of the new shard, whose
// members may have changed since, has written its record.
func gap(rows []DirectoryRow) []byte {
	at, end := shard.UserSpan().Start, shard.UserSpan().End
	for i := range rows {
		s := rows[i].Descriptor.Span
		if bytes.Compare(s.Start, at) > 0 {
			break
		}
		if bytes.Compare(s.End, at) > 0 {
			at = s.End
		}
	}
	if bytes.Compare(at, end) < 0 {
		return at
	}
	return nil
}

// listed tells whether some shard has a replica on a node, as far as is known.
func (d *Driver) listed(id shard.NodeID) bool {
	for _, e := range d.sorted {
		if _, there := e.Descriptor.ReplicaOn(id); there {
			return true
		}
	}
	return false
}
