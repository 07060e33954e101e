package raftgroup

import "github.com/kiloraft/kiloraft/shard"

// shutDown stops the group when its host closes. The worker does not run.
func (g *Group) shutDown() {
	if g.dead == nil {
		g.stop(shard.ErrUnavailable, shard.ErrUnavailable)
	}
}

// abandonAll ends everything that was taken from the mailbox before. What is in
// the log, or may be, is undetermined; what waits was not proposed.
func (g *Group) abandonAll(refusal error) {
	pending := g.pending
	g.pending = nil
	for i := range pending {
		g.abandonPending(&pending[i], shard.ErrUndetermined)
	}
	waiting := g.waiting
	g.waiting = nil
	for _, p := range waiting {
		g.finish(p, Result{}, refusal)
	}
	g.abandonReads(shard.ErrUnavailable)
	if t := g.transfer; t != nil {
		g.transfer = nil
		t.done(refusal)
	}
	if s := g.install; s != nil {
		g.install = nil
		g.machine.InstallEnd(nil)
		g.giveUpSnapshot(s)
	}
}

// discardMail ends everything that is still in the mailbox of a stopped group.
func (g *Group) discardMail() {
	for g.discard(&g.in); ; g.discard(&g.in) {
		g.box.take(&g.in)
		if g.in.empty() {
			return
		}
	}
}

func (g *Group) discard(in *mail) {
	for i := range in.messages {
		g.h.incomingBytes.Add(-in.messages[i].bytes)
	}
	refusal := shard.ErrUnavailable
	g.box.mu.Lock()
	if g.box.closed != nil {
		refusal = g.box.closed
	}
	g.box.mu.Unlock()
	for _, p := range in.proposals {
		g.finish(p, Result{}, refusal)
	}
	for _, c := range in.controls {
		c.abandon(refusal)
	}
	if len(in.reads) > 0 {
		g.handBack(append([]Read(nil), in.reads...), shard.ErrUnavailable)
	}
	if in.snapshot != nil {
		g.giveUpSnapshot(in.snapshot)
	}
	in.recycle()
}
