package e2e

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

type checked struct {
	Shard    uint64
	Verdict  string
	Replicas []struct {
		Node    uint64
		State   string
		Digest  string
		Leading bool
	}
}

// Replicas compare themselves on demand and in the background: equal ones are said to be
// the same, and one whose store was tampered with is found, and said by status, metrics
// and the log; nothing is repaired.
func TestConsistencyCheck(t *testing.T) {
	c := startCluster(t, 3, 2)
	for i := range 50 {
		c.must(nil, "kv", "put", recoverKey(i), fmt.Sprintf("value-%d", i))
	}
	c.waitEverywhere(50)
	expectFailure(t, c.run("debug", "check"), 2, "--all")
	expectFailure(t, c.run("debug", "check", "x"), 2, "not the ID of a shard")
	expectFailure(t, c.run("debug", "check", "99"), 1, "not compared")

	var shards []checked
	c.within("all replicas are the same", func() bool { // a follower of the meta shard may be at another index
		o := c.run("debug", "check", "--all", "-o", "json")
		decodeInto(t, o.stdout, &shards)
		return o.code == 0
	})
	if len(shards) != 3 {
		t.Fatalf("%+v", shards)
	}
	for _, s := range shards {
		if s.Verdict != "same" || len(s.Replicas) != 3 || s.Replicas[0].Digest != s.Replicas[1].Digest || len(s.Replicas[2].Digest) != 64 {
			t.Errorf("%+v", s)
		}
	}

	odd := c.nodes[2]
	odd.signal(syscall.SIGTERM)
	tamper(t, filepath.Join(c.dir, "store3"), recoverKey(0))
	odd.start()
	c.within("the tampered replica is found", func() bool {
		o := c.run("debug", "check", "--all", "-o", "json", "--timeout", "5s")
		decodeInto(t, o.stdout, &shards)
		return slices.ContainsFunc(shards, func(s checked) bool { return s.Verdict == "differs" }) && o.code == 1
	})
	for _, s := range shards {
		digests := map[string][]uint64{}
		for _, r := range s.Replicas {
			digests[r.Digest] = append(digests[r.Digest], r.Node)
		}
		if s.Verdict == "differs" && len(digests) != 2 {
			t.Errorf("%+v", s)
		}
	}
	o := c.run("status")
	if !strings.Contains(o.stdout, "lost or changed data") || !strings.Contains(o.stdout, "debug check") {
		t.Errorf("status says:\n%s", o.stdout)
	}
	var s struct{ Healthy bool }
	if c.must(&s, "status"); s.Healthy {
		t.Error("status calls it healthy")
	}
	found := 0.0
	for _, p := range c.nodes {
		found += p.metric("kiloraft_replicas_different")
	}
	if found == 0 {
		t.Error("no metric says so")
	}

	// By themselves, after all have forgotten what they found.
	c.must(nil, "settings", "set", "kv.retention", "1s")
	c.must(nil, "settings", "set", "shard.check_interval", "1s")
	for _, p := range c.nodes {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range c.nodes {
		p.start()
	}
	c.within("it is found in the background", func() bool {
		o := c.run("status", "--timeout", "5s")
		return strings.Contains(o.stdout, "lost or changed data")
	})
}

// tamper changes the newest version of a key in the store of a stopped node.
func tamper(t *testing.T, dir, key string) {
	t.Helper()
	world := prod.New()
	e, err := storage.Open(storage.Config{Dir: dir, Env: world, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	full := shard.UserKey([]byte(key))
	v := e.NewView()
	versions, err := v.Versions(full, 1)
	if err != nil || len(versions) != 1 {
		t.Fatalf("%v, %v", versions, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	b := e.NewBatch()
	b.PutVersion(full, versions[0].Revision, versions[0].Header, []byte("tampered"))
	done := make(chan struct{})
	if err := e.CommitSync(b, 0, func() { close(done) }); err != nil {
		t.Fatal(err)
	}
	<-done
	world.Close()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
