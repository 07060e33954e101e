package e2e

import (
	"testing"
	"time"
)

// midSnapshot waits until a node that was just started is in the middle of receiving a
// large snapshot: bytes of it were received and are in files of the store, and none was
// ingested. The rate at which the test has it sent leaves it there for long.
func (c *cluster) midSnapshot(i int) {
	c.t.Helper()
	p := c.nodes[i-1]
	c.await(60*time.Second, "a snapshot being received", func() bool {
		if _, err := p.metrics(); err != nil {
			return false // it has not come up yet
		}
		return len(c.incoming(i)) > 0 && p.metric("kiloraft_snapshot_received_bytes_total") >= 1<<20
	})
	if p.metric("kiloraft_ingests_total") != 0 {
		c.t.Fatal("the snapshot was ingested before anything could be done to it")
	}
}

// TestKilledInTheMiddleOfASnapshot kills the receiver of a snapshot, and then the sender
// of the next one, each with kill -9 while the stream is half way. What is half received
// is of no use and goes; the next snapshot comes by itself; no write is lost, the replicas
// are the same, and nothing is left behind.
func TestKilledInTheMiddleOfASnapshot(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, 1)
	c.must(nil, "settings", "set", "snapshot.rate", "1MiB")
	receiver := c.nodes[2]
	receiver.kill()
	content := big{keys: 400, valueBytes: 60 << 10}
	cl := c.client()
	content.write(t, cl)

	receiver.start()
	c.midSnapshot(3)
	receiver.kill()
	if len(c.incoming(3)) == 0 {
		t.Fatal("the receiver was not in the middle: it has left nothing behind")
	}
	c.must(nil, "kv", "put", "between", "kills") // two of three serve

	receiver.start()
	c.midSnapshot(3)
	sender := c.leaderOf(c.userShard())
	if sender == nil {
		t.Fatal("nobody leads, and so nobody sends")
	}
	sender.kill()
	c.await(30*time.Second, "the receiver giving up what came half", func() bool {
		return receiver.metric("kiloraft_snapshots_given_up_total") > 0
	})
	if receiver.metric("kiloraft_ingests_total") != 0 {
		t.Error("half a snapshot was ingested")
	}

	// The one that is left sends one of its own. Only then is there a majority of this
	// shard again; the meta shard has one at once.
	c.await(60*time.Second, "a faster rate", func() bool { return c.run("settings", "set", "snapshot.rate", "1GiB").code == 0 })
	c.await(60*time.Second, "a snapshot of the new leader's", func() bool { return receiver.metric("kiloraft_ingests_total") == 1 })
	c.must(nil, "kv", "put", "without", "the sender", "--timeout", "30s")

	sender.start()
	c.waitWhole()
	c.mustAgree()
	content.mustBeThere(t, cl)
	c.mustGet("between", "kills")
	c.mustGet("without", "the sender")
	for i := range c.nodes {
		if left := c.incoming(i + 1); len(left) > 0 {
			t.Errorf("node %d keeps %v", i+1, left)
		}
	}
}
