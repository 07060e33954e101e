package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/bench"
)

func TestBench(t *testing.T) {
	address := serveFake(t, &fakeCluster{status: func() (*kiloraftpb.StatusResponse, error) { return healthyStatus(), nil }})
	line := []string{"bench", "get", "--load", "--clients", "2", "--keys", "100", "--duration", "1s", "--warmup", "0s", "--endpoints", address}
	c := command{store: newFakeStore()}
	var got map[string]any
	r := c.run(t, append(line, "-o", "json")...)
	decode(t, r, &got)
	latency, ok := got["latency_ms"].(map[string]any)
	if !ok || got["ops"].(float64) <= 0 || got["errors"] != 0.0 || got["ops_per_sec"].(float64) <= 0 {
		t.Errorf("report: %v", got)
	}
	for _, p := range []string{"p50", "p95", "p99", "p999", "max"} {
		if v, ok := latency[p].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v", p, latency[p])
		}
	}
	if environment := got["environment"].(map[string]any); environment["kiloraft"] != versionText() || environment["cores"].(float64) < 1 {
		t.Errorf("environment: %v", environment)
	}
	if cluster := got["cluster"].(map[string]any); cluster["shards"] != 9.0 || cluster["nodes"] != 1.0 {
		t.Errorf("cluster: %v", cluster)
	}
	if !strings.Contains(r.stderr, "loading all keys first; 100 keys") {
		t.Errorf("stderr: %q", r.stderr)
	}
	if r := c.run(t, line...); r.code != exitDone || !strings.Contains(r.stdout, "\nlatency   p50 ") || !strings.Contains(r.stdout, "\nmachine   ") {
		t.Errorf("bench: %+v", r)
	}
}

func TestBenchFailsOnAnyError(t *testing.T) {
	c := command{store: newFakeStore()}
	c.store.err = errors.New("no leader")
	r := c.run(t, "bench", "put", "--clients", "2", "--duration", "1s", "--warmup", "0s", "-o", "json", "--endpoints", deadAddress(t))
	if r.code != exitFailed || !strings.Contains(r.stderr, "operations failed; the first error: no leader\n") {
		t.Errorf("bench: %+v", r)
	}
	r.code = exitDone
	var got map[string]any
	decode(t, r, &got) // the report is there all the same
	if got["errors"].(float64) == 0 || got["cluster"] != nil {
		t.Errorf("report: %v", got)
	}
	c.store.err = nil
	if r := c.run(t, "bench", "get", "--keys", "10", "--duration", "1s", "--warmup", "0s", "--endpoints", deadAddress(t)); r.code != exitDone || !strings.Contains(r.stdout, "found no value") {
		t.Errorf("misses without --load: %+v", r)
	}
}

func TestBenchInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c := command{store: newFakeStore()}
	timer := time.AfterFunc(50*time.Millisecond, cancel)
	defer timer.Stop()
	r := c.runWithin(t, ctx, "bench", "put", "--clients", "1", "--keys", "10", "--duration", "1h", "--warmup", "0s", "--endpoints", deadAddress(t))
	if r.code != exitFailed || !strings.Contains(r.stderr, "interrupted") || !strings.Contains(r.stdout, "the run was interrupted") {
		t.Errorf("bench: %+v", r)
	}
}

func TestProgressIsALineNowAndThenWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	l := newProgressLine(&b)
	for i := 1; i <= 12; i++ {
		l.show(bench.Progress{Phase: "run", Elapsed: time.Duration(i) * time.Second, Of: 20 * time.Second})
	}
	l.end()
	if lines := strings.Split(strings.TrimSpace(b.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "5s") || strings.Contains(b.String(), "\r") {
		t.Errorf("progress: %q", b.String())
	}
	b.Reset()
	l = &progressLine{w: &b, inPlace: true}
	l.show(bench.Progress{Phase: "load", Keys: 10})
	l.show(bench.Progress{Phase: "run", Of: time.Second})
	l.show(bench.Progress{Phase: "run", Of: time.Second})
	l.end()
	if strings.Count(b.String(), "\n") != 2 || strings.Count(b.String(), clearLine) != 3 {
		t.Errorf("progress in place: %q", b.String())
	}
}
