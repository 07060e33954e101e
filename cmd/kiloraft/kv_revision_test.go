package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

func TestKVAtARevision(t *testing.T) {
	c := command{store: newFakeStore()}
	c.run(t, "kv", "put", "a", "first")  // 1
	c.run(t, "kv", "put", "a", "second") // 2
	c.run(t, "kv", "put", "b", "other")  // 3
	c.run(t, "kv", "del", "a")           // 4
	if r := c.run(t, "kv", "get", "a", "--revision", "1"); r.stdout != "first\n" {
		t.Errorf("at 1: %+v", r)
	}
	var got map[string]any
	decode(t, c.run(t, "kv", "get", "a", "--revision", "3", "-o", "json"), &got)
	if got["value"] != "second" || got["revision"] != 2.0 {
		t.Errorf("at 3: %v", got)
	}
	if r := c.run(t, "kv", "get", "a", "--revision", "4"); r.code != exitNotFound || r.stderr != "kiloraft: get \"a\": not found\n" {
		t.Errorf("at 4: %+v", r)
	}
	if r := c.run(t, "kv", "scan", "--revision", "2"); r.stdout != "a\tsecond\n" {
		t.Errorf("scan at 2: %+v", r)
	}
	if r := c.run(t, "kv", "scan"); r.stdout != "b\tother\n" {
		t.Errorf("scan: %+v", r)
	}
	c.env = map[string]string{"KILORAFT_REVISION": "1"}
	if r := c.run(t, "kv", "get", "a"); r.stdout != "first\n" {
		t.Errorf("by the environment: %+v", r)
	}
	c.env["KILORAFT_REVISION"] = "-1"
	if r := c.run(t, "kv", "get", "a"); r.code != exitUsage || !strings.Contains(r.stderr, "KILORAFT_REVISION") {
		t.Errorf("a bad one by the environment: %+v", r)
	}
}

func TestKVAtAnyReplica(t *testing.T) {
	c := command{store: newFakeStore()}
	c.run(t, "kv", "put", "a", "first")
	for i, line := range []string{"kv get a --revision 1 --any-replica", "kv scan --revision 1 --any-replica"} {
		if r := c.run(t, strings.Fields(line)...); r.code != exitDone || c.store.anywhere != i+1 {
			t.Errorf("%s: %+v, %d reads at any replica", line, r, c.store.anywhere)
		}
	}
	for _, line := range []string{"kv get a --any-replica", "kv scan --any-replica"} {
		if r := c.run(t, strings.Fields(line)...); r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "give --revision, too") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if r := c.run(t, "kv", "get", "a", "--revision", "1"); r.stdout != "first\n" || c.store.anywhere != 2 {
		t.Errorf("without the flag: %+v, %d reads at any replica", r, c.store.anywhere)
	}
}

// Errors about a revision name the flag and say what to do.
func TestKVRevisionErrors(t *testing.T) {
	c := command{store: newFakeStore()}
	for _, line := range []string{"kv get a --revision 99", "kv scan --revision 99"} {
		r := c.run(t, strings.Fields(line)...)
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, ": --revision 99: the revision is in the future") || !strings.Contains(r.stderr, "kiloraft status") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	c.store.err = shard.ErrCompacted
	for _, line := range []string{"kv get a --revision 7", "kv scan --revision 7"} {
		r := c.run(t, strings.Fields(line)...)
		if r.code != exitFailed || !strings.Contains(r.stderr, "--revision 7: the revision is below the floor") || !strings.Contains(r.stderr, "kv.retention") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	// A scan without the flag is not to blame for it.
	if r := c.run(t, "kv", "scan"); r.code != exitFailed || strings.Contains(r.stderr, "--revision") {
		t.Errorf("scan: %+v", r)
	}
}

func TestKVCas(t *testing.T) {
	c := command{store: newFakeStore()}
	if r := c.run(t, "kv", "cas", "k", "one", "--if-absent"); r.code != exitDone || r.stdout != "revision 1\n" {
		t.Errorf("if absent: %+v", r)
	}
	var got map[string]any
	decode(t, c.run(t, "kv", "cas", "k", "two", "--if-value", "one", "-o", "json"), &got)
	if got["key"] != "k" || got["revision"] != 2.0 || got["succeeded"] != true || len(got) != 3 {
		t.Errorf("if value: %v", got)
	}
	decode(t, c.run(t, "kv", "cas", "k", "", "--if-revision", "2", "-o", "json"), &got)
	if got["revision"] != 3.0 || len(c.store.values["k"].Value) != 0 {
		t.Errorf("if revision: %v, %v", got, c.store.values)
	}
	if r := c.run(t, "kv", "cas", "k", "four", "--if-value="); r.code != exitDone || r.stdout != "revision 4\n" {
		t.Errorf("if the value is empty: %+v", r)
	}
	for _, bad := range []struct{ line, says string }{
		{"kv cas k new --if-absent", `cas "k": --if-absent does not hold: the key has a value of revision 4; nothing was written`},
		{"kv cas k new --if-value two", `cas "k": --if-value "two" does not hold: the key has a value of revision 4`},
		{"kv cas k new --if-revision 2", `cas "k": --if-revision 2 does not hold: the key has a value of revision 4`},
		{"kv cas none new --if-revision 2", `cas "none": --if-revision 2 does not hold: the key has no value`},
		{"kv cas none new --if-value x", `cas "none": --if-value "x" does not hold: the key has no value`},
	} {
		r := c.run(t, strings.Fields(bad.line)...)
		if r.code != exitFailed || r.stdout != "" || !strings.HasPrefix(r.stderr, "kiloraft: "+bad.says) {
			t.Errorf("%s: %+v, want %q", bad.line, r, bad.says)
		}
	}
	// With JSON there is one document however it comes out.
	for line, want := range map[string]string{
		"kv cas k new --if-revision 2 -o json":   `{"key":"k","succeeded":false,"current":{"key":"k","value":"four","revision":4}}`,
		"kv cas none new --if-value x -o json":   `{"key":"none","succeeded":false,"current":null}`,
		"kv cas none new --if-revision 2 -ojson": `{"key":"none","succeeded":false,"current":null}`,
	} {
		r := c.run(t, strings.Fields(line)...)
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(r.stdout)); err != nil || compact.String() != want {
			t.Errorf("%s: %q, %v; want %s", line, r.stdout, err, want)
		}
		if r.code != exitFailed || !strings.Contains(r.stderr, "does not hold") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	if c.store.revision != 4 {
		t.Errorf("%d writes", c.store.revision)
	}
	c.store.err = shard.ErrUndetermined
	if r := c.run(t, "kv", "cas", "k", "new", "--if-absent", "-o", "json"); r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "may or may not") {
		t.Errorf("undetermined: %+v", r)
	}
}

func TestKVDelRange(t *testing.T) {
	c := command{store: newFakeStore()}
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		c.run(t, "kv", "put", k, "v")
	}
	var got map[string]any
	decode(t, c.run(t, "kv", "del-range", "b", "e", "-o", "json"), &got)
	if got["start"] != "b" || got["end"] != "e" || got["deleted"] != 3.0 || got["revision"] != 7.0 || len(c.store.values) != 2 {
		t.Errorf("del-range: %v, %v", got, c.store.values)
	}
	if r := c.run(t, "kv", "del-range", "b", "e"); r.code != exitDone || r.stdout != "deleted no key: the range has none\n" {
		t.Errorf("of an empty range: %+v", r)
	}
	if r := c.run(t, "kv", "del-range", "e", ""); r.stdout != "deleted 1 key, at revision 8\n" {
		t.Errorf("of one key: %+v", r)
	}
	c.run(t, "kv", "put", "x", "v")
	if r := c.run(t, "kv", "del-range", "", ""); r.stdout != "deleted 2 keys, the last at revision 10\n" || r.stderr != "" {
		t.Errorf("of everything: %+v", r)
	}
}

// A delete-range that ends half-way says what is done and what is left.
func TestKVDelRangeHalfWay(t *testing.T) {
	c := command{store: newFakeStore()}
	for _, k := range []string{"a", "b", `c\x00`, "d", "e"} {
		c.run(t, "kv", "put", k, "v")
	}
	c.store.err, c.store.stopAfter = shard.ErrUnavailable, 2
	r := c.run(t, "kv", "del-range", "a", "z", "-o", "json")
	if r.code != exitFailed || r.stdout != "" || strings.Count(r.stderr, "del-range") != 1 ||
		!strings.Contains(r.stderr, `del-range "a": unavailable`) || !strings.Contains(r.stderr, `; 2 keys are deleted, those from "c\x00" on are left: run the command again`) {
		t.Errorf("half-way: %+v", r)
	}
	c.store.err, c.store.stopAfter = &shard.InvalidError{Field: "range", Reason: "is inverted"}, 0
	if r := c.run(t, "kv", "del-range", "d", "e"); r.code != exitFailed || strings.Contains(r.stderr, "are deleted") {
		t.Errorf("a bad range: %+v", r)
	}
	if err := unfinished(errors.New("broken"), client.DeleteRangeResult{Deleted: 1}); err.Error() != "broken; 1 key is deleted, what is left of the range is not deleted: run the command again" {
		t.Errorf("without a next key: %v", err)
	}
}

// Where there is no terminal, progress is a line now and then.
func TestKVDelRangeProgress(t *testing.T) {
	var b strings.Builder
	now := time.Unix(0, 0)
	l := &rangeLine{w: &b, now: func() time.Time { return now }, started: now, shown: now}
	for _, p := range []struct {
		at   time.Duration
		done client.DeleteRangeResult
	}{
		{time.Second, client.DeleteRangeResult{Deleted: 1000, Next: []byte("k1")}},
		{5 * time.Second, client.DeleteRangeResult{Deleted: 5000, Next: []byte("k5\x00")}},
		{6 * time.Second, client.DeleteRangeResult{Deleted: 6000, Next: []byte("k6")}},
		{10 * time.Second, client.DeleteRangeResult{Deleted: 20000}},
	} {
		now = time.Unix(0, 0).Add(p.at)
		l.show(p.done)
	}
	l.end()
	if want := "   5s  deleted 5,000 keys  1,000/s  at \"k5\\x00\"\n  10s  deleted 20,000 keys  2,000/s\n"; b.String() != want {
		t.Errorf("progress:\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	l = &rangeLine{w: &b, inPlace: true, now: func() time.Time { return now }, started: now, shown: now}
	now = now.Add(time.Second)
	l.show(client.DeleteRangeResult{Deleted: 7})
	l.end()
	if want := clearLine + "   1s  deleted 7 keys  7/s\n"; b.String() != want {
		t.Errorf("on a terminal: %q, want %q", b.String(), want)
	}
}
