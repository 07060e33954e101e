package raftgroup

import (
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// A node that has as many reads waiting as it may takes no more of them, but it
// takes confirmations, of which there are few, and on which all writes wait.
func TestConfirmationsAreTakenWhenReadsAreNot(t *testing.T) {
	c := newCluster(t, 21, 3)
	c.bootstrap(5, 1, 2, 3)
	c.start()
	l := c.waitLeader(5)
	c.put(5, "k=v")
	g := l.group(5)
	waiting := &g.h.readsWaiting
	waiting.Add(readsWaitingMax)
	if err := g.Read(&readRequest{done: func(*register, error) {}}); !errors.Is(err, shard.ErrBusy) {
		t.Errorf("one read more than may wait: %v", err)
	}
	confirmed, outcome := 0, error(nil)
	if err := g.Confirm(&readRequest{done: func(_ *register, err error) { confirmed, outcome = confirmed+1, err }}); err != nil {
		t.Fatal(err)
	}
	c.until("confirmed", func() bool { return confirmed > 0 })
	if confirmed != 1 || outcome != nil {
		t.Errorf("confirmed %d times: %v", confirmed, outcome)
	}
	if n := waiting.Add(-readsWaitingMax); n != 0 {
		t.Errorf("%d reads wait when all are done", n)
	}
	c.mustRead(5, "k", "v")
}
