package raftgroup

import "testing"

// pause stops a node's process: none of its steps run until it goes on. They are not
// lost, and neither is what arrives meanwhile.
func (f *life) pause() { f.paused = true }

// goOn lets a paused process go on, with what it was about to do first.
func (f *life) goOn() {
	f.paused = false
	held := f.held
	f.held = nil
	for _, h := range held {
		h.q.Submit(h.step)
	}
}

// PausedLeaderReads: a leader's process stands still until another one has been elected
// and has written. When it goes on it believes to lead, and its clock has not moved; it
// finds reads in its mail, alone or together with what its followers have sent it in
// the meantime. None of them may be answered from before the write.
func TestPausedLeaderReads(t *testing.T) {
	for seed := range uint64(12) {
		c := newCluster(t, 200+seed, 3)
		c.bootstrap(5, 1, 2, 3)
		c.start()
		c.put(5, "k=old")
		c.mustAgree(5)
		old := c.waitLeader(5)
		term := old.machine(5).leadership.Term
		before := old.read(5, "k") // its round may be under way when it is paused
		if seed%3 == 0 {
			c.until("a read before", before.done)
		}
		old.env.pause()
		if seed%2 == 0 { // it hears nothing at all before it has gone on
			c.isolate(old.id)
		}
		c.until("another leads", func() bool { n := c.leader(5); return n != nil && n != old })
		c.put(5, "k=new")
		if m := old.machine(5); !m.leadership.Leading || m.leadership.Term != term {
			t.Fatalf("seed %d: the paused leader has heard of its successor", seed)
		}
		var late []*outcome
		for range 3 {
			late = append(late, old.read(5, "k"))
		}
		old.env.goOn()
		for range 5 { // some more, while it finds out
			late = append(late, old.read(5, "k"))
			c.env.step()
		}
		c.heal()
		for i, o := range late {
			c.until("a late read is over", o.done)
			if o.err == nil && o.value != "new" {
				t.Errorf("seed %d: read %d of the paused leader gave %q", seed, i, o.value)
			}
		}
		c.mustRead(5, "k", "new")
		c.mustAgree(5)
	}
}
