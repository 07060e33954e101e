package client_test

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestMixedEndpointsAreRefused(t *testing.T) {
	mine, other := clienttest.NewCluster(1, 3, 1), clienttest.NewCluster(2, 3, 1)
	w := newWorld(t, mine, func(c *client.CoreConfig) { c.Endpoints = []string{"node-1", "other-1"} })
	w.net.Place(other, 1, "other-1")
	var opened error
	w.core.WhenOpened(func(err error) { opened = err })
	p := w.do(put("a", "v"), 0)
	w.env.Pass(time.Second)
	var mixed *client.MixedClustersError
	if !errors.As(opened, &mixed) || mixed.Cluster == mixed.OtherID {
		t.Fatalf("opened with %v", opened)
	}
	w.do(put("a", "v"), 0).wait()
	if later := w.do(put("a", "v"), 0).wait(); !errors.As(later.err, &mixed) {
		t.Errorf("a put to mixed clusters: %v", later.err)
	}
	_ = p
	if len(other.Executed())+len(mine.Executed()) > 1 {
		t.Error("both clusters were written to")
	}
}

func TestAPinnedClusterIsKept(t *testing.T) {
	mine, other := clienttest.NewCluster(1, 3, 1), clienttest.NewCluster(2, 3, 1)
	w := newWorld(t, mine, func(c *client.CoreConfig) {
		c.Cluster, c.Endpoints = mine.ID, []string{"other-1", "node-2"}
	})
	w.net.Place(other, 1, "other-1")
	w.do(put("a", "v"), 0).ok()
	if len(other.Executed()) != 0 {
		t.Error("the other cluster was written to")
	}
}

// TestAnAddressOfAnotherNodeIsNotUsed: an address may be taken over by another
// node, or another cluster, between two connections.
func TestAnAddressOfAnotherNodeIsNotUsed(t *testing.T) {
	mine, other := clienttest.NewCluster(1, 3, 1), clienttest.NewCluster(2, 3, 1)
	w := newWorld(t, mine)
	w.warm()
	address := w.leaderOf("a")
	s := w.shardOf("a")
	m, _ := s.Descriptor.Replica(s.Leader)
	mine.Change(func() {
		mine.Address = func(n shard.NodeID) string {
			if n == m.Node {
				return "moved"
			}
			return "node-" + n.String()
		}
	})
	w.net.Place(other, m.Node, address)
	w.net.Place(mine, m.Node, "moved")
	w.net.Break(address)
	p := w.do(put("a", "v"), 0)
	p.ok()
	if p.took > 5*time.Second {
		t.Errorf("the new address was found after %v", p.took)
	}
	if len(other.Executed()) != 0 {
		t.Error("the other cluster was written to")
	}
	if w.core.Nodes()[m.Node] != "moved" {
		t.Errorf("addresses %v", w.core.Nodes())
	}
}

func TestOpenedWaitsForEveryEndpointAWhile(t *testing.T) {
	for _, c := range []struct {
		silent     bool
		from, upTo time.Duration
	}{{false, 0, 10 * time.Millisecond}, {true, 200 * time.Millisecond, 400 * time.Millisecond}} {
		w := newWorld(t, clienttest.NewCluster(1, 3, 1), func(cfg *client.CoreConfig) { cfg.Endpoints = []string{"node-1", "node-2", "node-3"} })
		w.net.Silent["node-2"], w.net.Down["node-3"] = c.silent, true
		begun, opened := w.env.Now(), time.Duration(-1)
		w.core.WhenOpened(func(err error) {
			if err != nil {
				t.Error(err)
			}
			opened = w.env.Now() - begun
		})
		w.env.Pass(5 * time.Second)
		if opened < c.from || opened > c.upTo {
			t.Errorf("silent %v: opened after %v", c.silent, opened)
		}
	}
}

func TestTheMetaShardIsFoundAgain(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 5, 4))
	w.do(get("a"), 0).ok()
	meta := w.cluster.Shards()[0]
	// It moves to other nodes altogether while nothing is asked of it.
	w.cluster.Change(func() {
		d := meta.Descriptor.Clone()
		var others []shard.Replica
		for n := range shard.NodeID(5) {
			if _, has := d.ReplicaOn(n + 1); !has {
				others = append(others, shard.Replica{ID: d.NextReplica, Node: n + 1, Role: shard.Voter})
				d.NextReplica++
			}
		}
		d.Replicas = others
		d.Epoch.ConfVersion++
		meta.Descriptor = d
		meta.Lead(others[0].ID)
	})
	meta.Descriptor.Epoch.Version++ // so that old targets are refused
	w.cluster.Change(func() { w.cluster.Mute = true })
	span := shard.SystemSpan()
	res := w.do(shard.Command{Kind: shard.KindScan, Start: span.Start, End: span.End}, 0).ok()
	if len(res.Rows) != 5 {
		t.Errorf("%d rows of the directory", len(res.Rows))
	}
}

func TestAFrameThatDoesNotDecodeEndsTheStream(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1), withoutRetries)
	w.warm()
	for _, frame := range [][]byte{{1}, {4, 0xff}, {4, 1, 0, 0xff}, slices.Repeat([]byte{0xff}, 100)} {
		w.net.Malformed = frame
		p := w.do(put("a", "v"), 0)
		w.env.Pass(10 * time.Millisecond)
		w.net.Malformed = nil
		p.fails([]error{shard.ErrUndetermined})
		w.do(get("a"), 0).ok()
	}
}

func TestAnAnswerToNobodyIsIgnored(t *testing.T) {
	w := newWorld(t, clienttest.NewCluster(1, 3, 1))
	w.warm()
	w.net.Malformed = shard.AppendResponse(shard.BeginResponses(nil, 0), &shard.Response{ID: 1 << 40, Result: shard.Result{Revision: 1}})
	p := w.do(put("a", "v"), 50*time.Millisecond)
	p.fails([]error{shard.ErrUndetermined})
	w.net.Malformed = nil
	w.do(get("a"), 0).ok()
}
