package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// FuzzFlags: whatever text stands behind a flag, it is refused with one line, or
// read as a value that is written, and read again, as the same.
func FuzzFlags(f *testing.F) {
	for _, text := range []string{"", "1", "512MiB", "1.5GiB", "-1", "1e30", "nan", "90d", "12h", "0d", "65536d", "9223372036854775807", "127.0.0.1:7400", "[::1]:1", ":1", "a b", "zone=a,rack=b", `\x00`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var size, sizeAgain bytesFlag
		if err := size.Set(text); err == nil {
			// Beyond 2^53 a float64, through which fractions go, has no place for each byte.
			if err := sizeAgain.Set(size.String()); err != nil || size < 0 || size < 1<<53 && sizeAgain != size {
				t.Fatalf("--memory %q is %d, and %q is %d, %v", text, size, size.String(), sizeAgain, err)
			}
		}
		var days, daysAgain daysFlag
		if err := days.Set(text); err == nil {
			if err := daysAgain.Set(days.String()); err != nil || days <= 0 || daysAgain != days {
				t.Fatalf("--valid-for %q is %v, and %q is %v, %v", text, time.Duration(days), days.String(), time.Duration(daysAgain), err)
			}
		}
		var at, atAgain revisionFlag
		if err := at.Set(text); err == nil {
			if err := atAgain.Set(at.String()); err != nil || at.revision == 0 || at.revision > shard.MaxRevision || atAgain != at {
				t.Fatalf("--revision %q is %d, and %q is %d, %v", text, at.revision, at.String(), atAgain.revision, err)
			}
		}
		if err := checkAddress("--listen", text); err == nil && loopback(text) && strings.HasPrefix(text, ":") {
			t.Fatalf("%q is a loopback address without a host", text)
		}
	})
}

// FuzzCommandLine: no words make the program do anything but what it was told, or
// say in one line what is wrong, and never what a programmer reads.
func FuzzCommandLine(f *testing.F) {
	for _, line := range []string{"kv put a b", "kv get", "kv scan b a", "shard show --key a", "settings set x", "node drain 0", "debug key", "ops cancel -1", "placement explain --shard x", "kv cas a b --if-revision 0", "-o yaml status", "help kv", "completion bash"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := strings.Fields(line)
		for _, w := range words {
			// These would do it: files, processes, a whole demo, another cluster.
			for _, not := range []string{"demo", "cert", "start", "bench", "recover", "check", "timeout", "endpoints"} {
				if strings.Contains(w, not) {
					return
				}
			}
		}
		c := command{env: map[string]string{"KILORAFT_ENDPOINTS": "127.0.0.1:1", "KILORAFT_TIMEOUT": "1ms"}, store: newFakeStore()}
		r := c.run(t, words...)
		switch {
		case strings.Contains(r.stderr, "goroutine ") || strings.Contains(r.stderr, "rpc error"):
			t.Fatalf("%q: %s", line, r.stderr)
		case r.code < exitDone || r.code > exitNotFound:
			t.Fatalf("%q: exit %d", line, r.code)
		case r.code != exitDone && (!strings.HasPrefix(r.stderr, "kiloraft: ") || strings.Count(r.stderr, "\n") != 1):
			t.Fatalf("%q: exit %d, and this is not one line by kiloraft: %q", line, r.code, r.stderr)
		}
	})
}
