package driver

import (
	"cmp"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// poll is the state of asking the nodes for reports: either a poll is on its way
// or a timer runs that starts the next one.
type poll struct {
	serial   uint64 // of the last poll
	busy     bool
	merged   bool // there was one
	full     bool // the next one asks for all shards
	soon     bool // the next one follows this one after busyPoll
	fullAt   time.Duration
	readAt   time.Duration // when the records were last asked for
	hadFull  bool
	due      time.Duration // of timer
	timer    env.Timer
	deadline env.Timer
}

// pollWithin makes sure that a poll starts within pause.
func (d *Driver) pollWithin(pause time.Duration) {
	p := &d.poll
	if p.busy {
		p.soon = p.soon || pause < fullPoll
		return
	}
	due := d.env.Now() + pause
	if p.timer != nil {
		if p.due <= due {
			return
		}
		p.timer.Stop()
	}
	p.due = due
	run := d.run
	p.timer = d.env.AfterFunc(pause, d.queue, func() {
		// A timer that was stopped too late finds that another one is due.
		if d.run == run && !p.busy && p.timer != nil && d.env.Now() >= p.due {
			p.timer = nil
			d.startPoll()
		}
	})
}

// fullEvery is the pause between polls for all shards. Where there are very many it grows
// with them, and so does the pause between whole decisions: what both cost stays a small part
// of one core. In between, nodes are asked whether they live.
func (d *Driver) fullEvery() time.Duration {
	return fullPoll * time.Duration(1+len(d.sorted)/fullShards)
}

// startPoll asks for reports: of all shards once per fullEvery, of the shards
// whose learners catch up in between.
func (d *Driver) startPoll() {
	p := &d.poll
	now := d.env.Now()
	var only []shard.ID
	full := p.full || !p.hadFull || now >= p.fullAt+d.fullEvery()
	if !full {
		for _, e := range d.sorted {
			if d.plan != nil && d.plan.Waits(&e.Shard) {
				only = append(only, e.Descriptor.ID)
			}
		}
		if len(only) == 0 && d.fullEvery() > fullPoll {
			only = []shard.ID{shard.MetaID}
		}
		full = len(only) == 0
	}
	if full {
		only, p.full, p.hadFull, p.fullAt = nil, false, true, now
	}
	if full || now >= p.readAt+fullPoll {
		p.readAt = now
		d.readRecords()
	}
	p.busy, p.soon = true, false
	p.serial++
	d.clock++
	serial, asked, run := p.serial, d.clock, d.run
	finish := func(reports []Report) {
		if !p.busy || p.serial != serial {
			return // given up on
		}
		p.deadline.Stop()
		p.busy = false
		d.merge(reports, only, asked)
		p.merged = true
		if only != nil && len(d.sorted) >= partlyShards && d.plan != nil {
			d.decideFor(only)
		} else {
			d.decide()
		}
		d.pollNext()
	}
	p.deadline = d.env.AfterFunc(pollTimeout, d.queue, func() {
		if d.run == run {
			finish(nil)
		}
	})
	d.cluster.Reports(only, func(reports []Report) {
		d.submit(run, func() { finish(reports) })
	})
}

// pollNext arranges for the next poll after one has been handled.
func (d *Driver) pollNext() {
	pause := fullPoll
	if d.poll.soon || d.poll.full {
		pause = busyPoll
	}
	for _, e := range d.sorted {
		if pause > busyPoll && d.plan != nil && d.plan.Waits(&e.Shard) {
			pause = busyPoll
		}
	}
	// A poll for some shards does not put off the one for all.
	if rest := d.poll.fullAt + d.fullEvery() - d.env.Now(); rest < pause {
		pause = max(rest, busyPoll/4)
	}
	d.pollWithin(pause)
}

// merge takes in the reports of a poll for the shards in only, or for all. A
// shard whose step is in flight, or ended since the poll began, is left as it is:
// the report may be from before.
func (d *Driver) merge(reports []Report, only []shard.ID, asked uint64) {
	now := d.env.Now()
	slices.SortFunc(reports, func(a, b Report) int { return cmp.Compare(a.Node, b.Node) })
	answered := make(map[shard.NodeID]bool, len(reports))
	added := false
	for _, report := range reports {
		answered[report.Node] = true
		d.hear(&report, now)
		for i := range report.Replicas {
			r := &report.Replicas[i]
			if r.Descriptor.ID == 0 {
				continue // not initialized: it knows nothing of its shard
			}
			e, isNew := d.entry(&r.Descriptor)
			added = added || isNew
			e.seen = now
			if e.InFlight == nil && e.changed < asked {
				e.take(report.Node, r, asked, now)
			}
		}
	}
	if added {
		d.sort()
	}
	for _, e := range d.concerned(only) {
		// A node that answered and did not say that it leads does not. One that
		// did not answer counts as before while it counts as live: if its leaders
		// were taken for gone, others would be moved to it.
		if e.polled != asked && e.InFlight == nil && e.changed < asked && answered[e.Leader] {
			e.Leader, e.Progress = 0, nil
		}
	}
	if only == nil && len(reports) > 0 {
		d.meet()
	}
	if len(reports) > 0 {
		d.pass(now, answered)
	}
	d.forget(now)
}

// entry finds or makes a shard's entry. Whoever has made any sorts them.
func (d *Driver) entry(of *shard.Descriptor) (e *entry, added bool) {
	if e = d.entries[of.ID]; e != nil {
		return e, false
	}
	e = &entry{}
	e.Descriptor = *of
	d.entries[of.ID] = e
	d.sorted = append(d.sorted, e)
	return e, true
}

func (d *Driver) sort() {
	slices.SortFunc(d.sorted, func(a, b *entry) int { return cmp.Compare(a.Descriptor.ID, b.Descriptor.ID) })
}

// concerned are the shards in only, or all.
func (d *Driver) concerned(only []shard.ID) []*entry {
	if only == nil {
		return d.sorted
	}
	var es []*entry
	for _, id := range only {
		if e := d.entries[id]; e != nil {
			es = append(es, e)
		}
	}
	return es
}

// take fills e from one replica's report. The leader's word counts, the newest
// one's if several believe to lead: it has applied all that its term began with.
// Without one, the newest descriptor that anybody has is the best there is.
func (e *entry) take(node shard.NodeID, r *ReplicaReport, asked uint64, now time.Duration) {
	switch {
	case r.Leading && r.Term >= e.term:
		e.measure(node, r, now)
		e.Descriptor = r.Descriptor
		e.Leader, e.term, e.Commit, e.Progress, e.polled = node, r.Term, r.Commit, r.Progress, asked
	case e.polled != asked && r.Descriptor.Epoch.Newer(e.Descriptor.Epoch):
		e.Descriptor = r.Descriptor
	}
}

// forget drops shards that nobody has heard of for a while.
func (d *Driver) forget(now time.Duration) {
	d.sorted = slices.DeleteFunc(d.sorted, func(e *entry) bool {
		if e.InFlight != nil || now <= e.seen+forgetAfter {
			return false
		}
		delete(d.entries, e.Descriptor.ID)
		return true
	})
}
