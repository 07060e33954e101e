package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// inspection is what `debug key` tells of one replica.
type inspection struct {
	Node     uint64 `json:"node"`
	Floor    uint64 `json:"floor"`
	Versions []struct {
		Revision uint64 `json:"revision"`
	} `json:"versions"`
	Error string `json:"error"`
}

// A setting reaches every node without a restart: once the retention is short,
// floors rise and every replica drops what is below them by itself.
func TestSettingsReachEveryNode(t *testing.T) {
	c := startCluster(t, 3, 4)
	var written struct {
		Revision uint64 `json:"revision"`
	}
	var revisions []uint64
	for i := range 5 {
		c.must(&written, "kv", "put", "k", fmt.Sprint(i))
		revisions = append(revisions, written.Revision)
	}
	c.must(&written, "kv", "del", "gone")
	first, last := revisions[0], revisions[4]
	var at struct {
		Value string `json:"value"`
	}
	if c.must(&at, "kv", "get", "k", "--revision", fmt.Sprint(first)); at.Value != "0" {
		t.Errorf("at revision %d the key has %q", first, at.Value)
	}
	expectFailure(t, c.run("settings", "set", "kv.retention", "0s"), 2, "kv.retention", "from 1s to 30d")
	c.must(nil, "settings", "set", "kv.retention", "1s")

	settled := func(key string, versions int) bool {
		var seen struct {
			Replicas []inspection `json:"replicas"`
		}
		c.must(&seen, "debug", "key", key)
		for _, r := range seen.Replicas {
			if r.Error != "" || r.Floor < last || len(r.Versions) != versions {
				return false
			}
		}
		return len(seen.Replicas) == 3
	}
	for deadline := time.Now().Add(60 * time.Second); !settled("k", 1) || !settled("gone", 0); {
		if time.Now().After(deadline) {
			t.Fatalf("not dropped on every node:\n%s\n%s", c.run("debug", "key", "k").stdout, c.run("debug", "key", "gone").stdout)
		}
	}
	expectFailure(t, c.run("kv", "get", "k", "--revision", fmt.Sprint(first)), 1, fmt.Sprintf("--revision %d", first), "floor", "kv.retention")
	if c.must(&at, "kv", "get", "k"); at.Value != "4" {
		t.Errorf("the key has %q", at.Value)
	}
}

// Conditions, ranges and revisions through the command line, over several shards.
func TestConditionsAndRangesByCommand(t *testing.T) {
	c := startCluster(t, 1, 4)
	var written, again struct {
		Revision uint64 `json:"revision"`
	}
	c.must(&written, "kv", "cas", "k", "one", "--if-absent")
	expectFailure(t, c.run("kv", "cas", "k", "x", "--if-absent"), 1, "--if-absent does not hold", fmt.Sprintf("revision %d", written.Revision))
	c.must(&again, "kv", "cas", "k", "two", "--if-revision", fmt.Sprint(written.Revision))
	expectFailure(t, c.run("kv", "cas", "k", "x", "--if-value", "one"), 1, "--if-value", fmt.Sprintf("revision %d", again.Revision))
	failed := c.run("kv", "cas", "k", "x", "--if-absent", "-o", "json")
	expectFailure(t, failed, 1, "--if-absent")
	var unmet struct {
		Succeeded *bool `json:"succeeded"`
		Current   struct {
			Value    string `json:"value"`
			Revision uint64 `json:"revision"`
		} `json:"current"`
	}
	if err := json.Unmarshal([]byte(failed.stdout), &unmet); err != nil || unmet.Succeeded == nil || *unmet.Succeeded || unmet.Current.Value != "two" || unmet.Current.Revision != again.Revision {
		t.Errorf("a condition that does not hold: %q, %v", failed.stdout, err)
	}
	for _, key := range []string{`\x01`, "a", "b", `\xf0`} {
		c.must(&written, "kv", "put", key, "v")
	}
	var deleted struct {
		Deleted  uint64 `json:"deleted"`
		Revision uint64 `json:"revision"`
	}
	if c.must(&deleted, "kv", "del-range", "b", ""); deleted.Deleted != 3 || deleted.Revision <= written.Revision {
		t.Errorf("del-range: %+v after revision %d", deleted, written.Revision)
	}
	var rows []struct {
		Key string `json:"key"`
	}
	if c.must(&rows, "kv", "scan"); len(rows) != 2 || rows[1].Key != "a" {
		t.Errorf("left: %v", rows)
	}
	if c.must(&rows, "kv", "scan", "--revision", fmt.Sprint(written.Revision)); len(rows) != 5 {
		t.Errorf("before: %v", rows)
	}
	var kv struct {
		Value string `json:"value"`
	}
	if c.must(&kv, "kv", "get", "a", "--revision", fmt.Sprint(written.Revision), "--any-replica"); kv.Value != "v" {
		t.Errorf("from any replica: %+v", kv)
	}
	expectFailure(t, c.run("kv", "get", "a", "--any-replica"), 2, "--revision")
	expectFailure(t, c.run("kv", "get", "k", "--revision", "123456789"), 1, "--revision 123456789", "future")
}
