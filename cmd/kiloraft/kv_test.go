package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// decode reads the one JSON document that a command may print.
func decode(t *testing.T, r result, v any) {
	t.Helper()
	if r.code != exitDone {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	d := json.NewDecoder(strings.NewReader(r.stdout))
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %q", err, r.stdout)
	}
	if d.More() {
		t.Fatalf("more than one document in %q", r.stdout)
	}
}

func TestKV(t *testing.T) {
	c := command{store: newFakeStore()}
	if r := c.run(t, "kv", "put", "hello", "world"); r.code != exitDone || r.stdout != "revision 1\n" || r.stderr != "" {
		t.Errorf("put: %+v", r)
	}
	var written map[string]any
	decode(t, c.run(t, "kv", "put", `odd\x00key\\`, "v", "-o", "json"), &written)
	if written["key"] != `odd\x00key\\` || written["revision"] != 2.0 {
		t.Errorf("put -o json: %v", written)
	}
	if _, ok := c.store.values["odd\x00key\\"]; !ok {
		t.Errorf("keys: %v", c.store.values)
	}
	if r := c.run(t, "kv", "get", "hello"); r.code != exitDone || r.stdout != "world\n" {
		t.Errorf("get: %+v", r)
	}
	var got map[string]any
	decode(t, c.run(t, "-o", "json", "kv", "get", "hello"), &got)
	if got["key"] != "hello" || got["value"] != "world" || got["revision"] != 1.0 || len(got) != 3 {
		t.Errorf("get -o json: %v", got)
	}
	decode(t, c.run(t, "kv", "del", "hello", "-o", "json"), &written)
	if written["revision"] != 3.0 {
		t.Errorf("del -o json: %v", written)
	}
	r := c.run(t, "kv", "get", "hello", "-o", "json")
	if r.code != exitNotFound || r.stdout != "" || !strings.HasPrefix(r.stderr, `kiloraft: get "hello": `) || strings.Count(r.stderr, "hello") != 1 {
		t.Errorf("get of a deleted key: %+v", r)
	}
	if !c.store.closed {
		t.Error("the client was not closed")
	}
}

func TestKVBinaryValue(t *testing.T) {
	c := command{store: newFakeStore(), stdin: "a\xff\x00"}
	if r := c.run(t, "kv", "put", "k", "--value-file", "-"); r.code != exitDone {
		t.Fatal(r)
	}
	if r := c.run(t, "kv", "get", "k"); r.stdout != "a\xff\x00\n" {
		t.Errorf("get: %+v", r)
	}
	var got map[string]any
	decode(t, c.run(t, "kv", "get", "k", "-o", "json"), &got)
	if got["value"] != `a\xff\x00` || got["value_base64"] != "Yf8A" {
		t.Errorf("get -o json: %v", got)
	}
	if r := c.run(t, "kv", "scan"); r.stdout != "k\ta\\xff\\x00\n" {
		t.Errorf("scan: %+v", r)
	}
}

func TestKVValueFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "value")
	if err := os.WriteFile(name, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := command{store: newFakeStore(), stdin: strings.Repeat("x", 2*shard.ValueBytesMax+1)}
	if r := c.run(t, "kv", "put", "k", "--value-file", name); r.code != exitDone || string(c.store.values["k"].Value) != "from a file" {
		t.Errorf("put: %+v", r)
	}
	if r := c.run(t, "kv", "put", "k", "--value-file", filepath.Join(dir, "none")); r.code != exitFailed || !strings.Contains(r.stderr, "no such file") {
		t.Errorf("put of no file: %+v", r)
	}
	if r := c.run(t, "kv", "put", "k", "--value-file", "-"); r.code != exitFailed || !strings.Contains(r.stderr, "4,194,304") {
		t.Errorf("put of a value that is too long: %+v", r)
	}
}

func TestKVErrorsNameTheOperation(t *testing.T) {
	c := command{store: newFakeStore()}
	c.store.err = &shard.InvalidError{Field: "value", Reason: "has 5,242,881 bytes, the limit is 4,194,304"}
	if r := c.run(t, "kv", "put", "user/17", "v"); r.code != exitFailed || r.stderr != `kiloraft: put "user/17": value has 5,242,881 bytes, the limit is 4,194,304`+"\n" {
		t.Errorf("put: %+v", r)
	}
	c.store.err = errors.New("broken")
	if r := c.run(t, "kv", "scan", "-o", "json"); r.code != exitFailed || r.stderr != "kiloraft: scan: broken\n" {
		t.Errorf("scan: %+v", r)
	}
}

func TestKVScan(t *testing.T) {
	c := command{store: newFakeStore()}
	var none []any
	r := c.run(t, "kv", "scan", "-o", "json")
	decode(t, r, &none)
	if none == nil || len(none) != 0 {
		t.Errorf("an empty scan printed %q", r.stdout)
	}
	for _, k := range []string{"a", "b", `c\x01`, "d"} {
		c.run(t, "kv", "put", k, "of "+k)
	}
	if r := c.run(t, "kv", "scan"); r.stdout != "a\tof a\nb\tof b\nc\\x01\tof c\\x01\nd\tof d\n" {
		t.Errorf("scan: %q", r.stdout)
	}
	var rows []map[string]any
	decode(t, c.run(t, "kv", "scan", "a", "d", "--reverse", "--limit", "2", "-o", "json"), &rows)
	if len(rows) != 2 || rows[0]["key"] != `c\x01` || rows[1]["value"] != "of b" || rows[1]["revision"] != 2.0 {
		t.Errorf("scan -o json: %v", rows)
	}
	rows = nil
	decode(t, c.run(t, "kv", "scan", "d", "--keys-only", "-o", "json"), &rows)
	if _, hasValue := rows[0]["value"]; hasValue || rows[0]["key"] != "d" {
		t.Errorf("scan --keys-only: %v", rows)
	}
	if r := c.run(t, "kv", "scan", "c", "--keys-only"); r.stdout != "c\\x01\nd\n" {
		t.Errorf("scan --keys-only: %q", r.stdout)
	}
}
