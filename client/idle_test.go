package client_test

import (
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// A client that was idle for longer than the retention, without a connection, makes
// its next write with a birth that is not below the floor: the greeting tells it
// what it has missed.
func TestAWriteAfterALongIdleTimeCanBeRepeated(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	newest := w.written()
	w.net.Break(w.leaderOf("a")) // meanwhile
	w.env.Pass(time.Hour)
	w.cluster.Change(func() { w.cluster.Floor = newest })
	p, seen := w.loseAnswer()
	clear(w.net.Deaf)
	w.net.Break(w.leaderOf("a"))
	if p.wait(); p.err != nil {
		t.Errorf("newest %d; %v; %d attempts, the first %+v", newest, p.err, len(*seen), (*seen)[0])
	}
}

// So does one whose connection stays open: nodes tell on it what is newest.
func TestAWriteAfterALongIdleTimeOnAnOpenStream(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	newest := w.written()
	w.env.Pass(time.Hour)
	opened := w.net.Opened
	w.net.News(w.leaderOf("a"))
	w.env.Pass(time.Second)
	w.cluster.Change(func() { w.cluster.Floor = newest })
	p, seen := w.loseAnswer()
	if w.net.Opened != opened {
		t.Errorf("the stream was opened anew")
	}
	clear(w.net.Deaf)
	w.net.Break(w.leaderOf("a"))
	if p.wait(); p.err != nil {
		t.Errorf("newest %d; %v; %d attempts, the first %+v", newest, p.err, len(*seen), (*seen)[0])
	}
}

// written is the newest revision after another client has written for a while.
func (w *world) written() (newest shard.Revision) {
	core := client.NewCore(client.CoreConfig{Env: w.env, Dialer: w.net, Endpoints: []string{w.cluster.AddressOf(2)}, Logger: quiet()})
	other := &world{t: w.t, env: w.env, net: w.net, cluster: w.cluster, core: core}
	for range 5 {
		newest = other.do(put("b", "v"), 0).ok().Revision
	}
	core.Close()
	w.env.Pass(time.Second)
	return newest
}

// loseAnswer makes a write whose first answer is lost.
func (w *world) loseAnswer() (p *pending, seen *[]attempt) {
	lost := false
	seen = w.watch(func(shard.NodeID, *shard.Command) (shard.Response, bool) {
		if !lost {
			lost, w.net.Deaf[w.leaderOf("a")] = true, true
		}
		return shard.Response{}, false
	})
	p = w.do(put("a", "v"), 0)
	w.env.Run(time.Second, func() bool { return lost })
	return p, seen
}
