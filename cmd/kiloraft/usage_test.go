package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/server"
	"github.com/kiloraft/kiloraft/shard"
)

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct{ line, says string }{
		{"nope", `there is no command "nope"`},
		{"shad", "did you mean shard?"},
		{"kv", "which one? put, get, del, cas, scan, del-range"},
		{"kv frob", `there is no command "frob"`},
		{"kv put a b --frob", "unknown flag: --frob"},
		{"kv put a", "VALUE is missing"},
		{"kv put", "KEY is missing"},
		{"kv put a b c", `"c" is one argument too many`},
		{"kv put a b --value-file x", "not both"},
		{`kv get bad\q`, `a backslash is written \\, a byte \xNN`},
		{"kv get", "KEY is missing"},
		{"kv scan --limit -1", "--limit"},
		{"kv get a --revision 0", `"--revision" flag: it is a number from 1`},
		{"kv get a --revision -3", `"--revision" flag: it is a number from 1`},
		{"kv get a --revision=-3", `"--revision" flag: it is a number from 1`},
		{"kv get a --revision latest", `"--revision" flag: it is a number from 1`},
		{"kv get a --revision 1.5", `"--revision" flag`},
		{"kv get a --revision=", `"--revision" flag`},
		{"kv get a --revision 18446744073709551615", `"--revision" flag: it is a number from 1`},
		{"kv get a --revision 99999999999999999999", `"--revision" flag`},
		{"kv scan --revision 0", `"--revision" flag: it is a number from 1`},
		{"kv scan --revision x", `"--revision" flag`},
		{"kv cas", "KEY and NEW is missing"},
		{"kv cas a", "NEW is missing"},
		{"kv cas a b", "a condition is missing: --if-value, --if-revision or --if-absent"},
		{"kv cas a b --if-absent=false", "a condition is missing"},
		{"kv cas a b --if-absent --if-value c", "give one condition"},
		{"kv cas a b --if-revision 3 --if-value=", "give one condition"},
		{"kv cas a b --if-revision 0", `"--if-revision" flag: it is a number from 1`},
		{"kv cas a b c --if-absent", `"c" is one argument too many`},
		{"kv del-range", "START and END is missing"},
		{"kv del-range a", "END is missing"},
		{"kv del-range a b c", "one argument too many"},
		{`kv del-range a bad\q`, "a backslash is written"},
		{"kv del-range b a", "END is before START"},
		{"settings", "which one? list, set"},
		{"settings list x", "one argument too many"},
		{"settings set kv.retention", "VALUE is missing"},
		{"debug", "which one? key"},
		{"debug key", "KEY is missing"},
		{"status -o yaml", "it is one of table, json"},
		{"status --timeout 0s", "--timeout"},
		{"status --timeout soon", "--timeout"},
		{"status extra", "one argument too many"},
		{"status --endpoints 10.1.2.3:7400", "not a loopback address"},
		{"status --endpoints localhost", "is not host:port"},
		{"status --endpoints :7400", "has no host"},
		{"status --endpoints 10.1.2.3:7400", "name certificates by --certs-dir"},
		{"status --client alice", "--client: it names a certificate in --certs-dir"},
		{"kv get a --client alice", "--client: it names a certificate in --certs-dir"},
		{"cert", "which one? create-ca, create-node, create-client"},
		{"cert create-ca", "--certs-dir is missing"},
		{"cert create-ca x --certs-dir c", "one argument too many"},
		{"cert create-ca --certs-dir c --valid-for soon", "it is a duration, like 90d"},
		{"cert create-ca --certs-dir c --valid-for 0d", "it is a duration, like 90d"},
		{"cert create-ca --certs-dir c --valid-for 1s", "--valid-for is 1s and must be between"},
		{"cert create-node --certs-dir c", "HOST is missing"},
		{"cert create-node n1:7400 --certs-dir c", "name the host without a port"},
		{"cert create-client --certs-dir c", "NAME is missing"},
		{"cert create-client ../x --certs-dir c", "NAME cannot be"},
		{"cert create-client a b --certs-dir c", "one argument too many"},
		{"shard show", "ID or --key is missing"},
		{"shard show 1 --key a", "not both"},
		{"shard show one", "is not a shard ID"},
		{"shard show 0", "is not a shard ID"},
		{"shard show --key=", "at least 1 byte"},
		{"shard transfer-leader 2", "--to is missing"},
		{"shard move 2 --to 3", "--from is missing"},
		{"shard move 2 --from 3", "--to is missing"},
		{"shard move 2 --from 3 --to 3", "both node 3"},
		{"shard move --from 1 --to 3", "ID or --key is missing"},
		{"shard move 2 --key a --from 1 --to 3", "not both"},
		{"shard add-replica 2", "--to is missing"},
		{"shard scatter x", "shard ID"},
		{"shard scatter 2 --key a", "not both"},
		{"start --insecure --store x --locality zone", "--locality"},
		{"start --insecure --store x --locality zone=a,zone=b", "names zone twice"},
		{"shard add-replica 2 --to one", "--to"},
		{"shard remove-replica 2", "--from is missing"},
		{"shard remove-replica 2 --from 1 --to 2", "unknown flag: --to"},
		{"node", "which one? list, drain, decommission"},
		{"node drain", "ID is missing"},
		{"node drain three", "is not a node's ID"},
		{"node drain 0", "is not a node's ID"},
		{"node decommission -- -1", "is not a node's ID"},
		{"node decommission 1 2", "one argument too many"},
		{"ops", "which one? list, show, cancel"},
		{"ops show", "ID is missing"},
		{"ops show x", "is not an operation's ID"},
		{"ops cancel 0", "is not an operation's ID"},
		{"placement", "which one? pause, resume, explain"},
		{"placement pause 1", "one argument too many"},
		{"placement explain --shard 1 --node 2", "not both"},
		{"placement explain --shard 1 --key a", "only one of them"},
		{"placement explain --node 1 --key a", "only one of them"},
		{"placement explain --key=", "at least 1 byte"},
		{"shard move 2 --from 3 --to 4 --dry-run=perhaps", "--dry-run"},
		{"shard list --dry-run", "unknown flag: --dry-run"},
		{"ops cancel 1 --dry-run", "unknown flag: --dry-run"},
		{"top 1", "one argument too many"},
		{"top --sort heat", "it is one of load, reads, writes, bytes, id"},
		{"top --interval 0s", "--interval: it is 0s and must be between"},
		{"top --interval soon", "--interval"},
		{"doctor 1", "one argument too many"},
		{"bench", "WORKLOAD is missing"},
		{"bench ycsb-z", `there is no workload "ycsb-z"; there are put, get, mixed, scan`},
		{"bench put --clients 0", "--clients"},
		{"bench put --distribution normal", "uniform, zipfian, sequential"},
		{"bench put --keys -4", "--keys"},
		{"start --insecure", "--store is missing"},
		{"start --store d", "give --certs-dir, the folder of the node's certificates"},
		{"start --store d --certs-dir c --insecure", "give --certs-dir or --insecure, not both"},
		{"start --store d --certs-dir c --listen 7400", "is not host:port"},
		{"start --store d --insecure --listen 0.0.0.0:7400", "is not a loopback address"},
		{"start --store d --insecure --listen 7400", "is not host:port"},
		{"start --store d --insecure --http 192.168.0.1:80", "--http: 192.168.0.1:80 is not a loopback address"},
		{"start --store d --insecure --advertise example.org:1", "--advertise"},
		{"start --store d --insecure --join 127.0.0.1:7400", "is this node itself"},
		{"start --store d --insecure --join 10.0.0.1:7400", "--join"},
		{"start --store d --insecure --initial-shards 0", "--initial-shards"},
		{"start --store d --insecure --initial-shards 65537", "--initial-shards"},
		{"start --store d --insecure --memory lots", "is not a number of bytes"},
		{"start --store d --insecure --memory 1MiB", "--memory"},
		{"start --store d --insecure --locality zone", "--locality"},
		{"demo --nodes 0", "--nodes"},
		{"demo --shards 0", "--shards"},
		{"demo --exec=", "--exec: it is empty"},
	} {
		t.Run(c.line, func(t *testing.T) {
			r := command{}.run(t, strings.Fields(c.line)...)
			if r.code != exitUsage || !strings.Contains(r.stderr, c.says) || r.stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit 2 and %q", r.code, r.stdout, r.stderr, c.says)
			}
			if !strings.HasPrefix(r.stderr, "kiloraft: ") || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("stderr is not one line by kiloraft: %q", r.stderr)
			}
		})
	}
}

// Help is a sentence, two examples, and flags by purpose; every command has it.
func TestHelp(t *testing.T) {
	for _, line := range []string{"", "kv", "kv put", "kv get", "kv del", "kv cas", "kv scan", "kv del-range", "status", "node", "node list", "shard", "shard list", "shard show",
		"shard transfer-leader", "shard move", "shard add-replica", "shard remove-replica", "node drain", "node decommission", "ops", "ops list", "ops show", "ops cancel",
		"placement", "placement pause", "placement resume", "placement explain", "top", "doctor", "settings", "settings list", "settings set", "debug", "debug key", "bench", "cert", "cert create-ca", "cert create-node", "cert create-client", "start", "demo", "version"} {
		t.Run(line, func(t *testing.T) {
			r := command{}.run(t, append(strings.Fields(line), "--help")...)
			if r.code != exitDone || r.stderr != "" {
				t.Fatalf("exit %d, stderr %q", r.code, r.stderr)
			}
			sentence, rest, _ := strings.Cut(r.stdout, "\n")
			if len(sentence) < 10 || strings.HasPrefix(sentence, " ") {
				t.Errorf("help begins with %q", sentence)
			}
			_, rest, ok := strings.Cut(rest, "\nExamples:\n")
			examples, rest, ok2 := strings.Cut(rest, "\n\nUsage:\n")
			if !ok || !ok2 || strings.Count(examples, "kiloraft ") < 1 {
				t.Errorf("no examples before the usage in\n%s", r.stdout)
			}
			if line != "node" && line != "debug" && strings.Count(examples, "\n") != 1 {
				t.Errorf("not two examples: %q", examples)
			}
			if !strings.Contains(rest, "Flags of all commands:") {
				t.Errorf("no flags in\n%s", r.stdout)
			}
		})
	}
	r := command{}.run(t, "start", "--help")
	for _, heading := range []string{"\nStore:\n", "\nAddresses:\n", "\nCluster:\n", "\nSecurity and logs:\n"} {
		if !strings.Contains(r.stdout, heading) {
			t.Errorf("no heading %q in the help of start", heading)
		}
	}
}

func TestEveryFlagHasAnEnvironmentVariable(t *testing.T) {
	var got server.Config
	c := command{
		env: map[string]string{"KILORAFT_STORE": "here", "KILORAFT_INSECURE": "true", "KILORAFT_INITIAL_SHARDS": "48", "KILORAFT_MEMORY": "256MiB",
			"KILORAFT_LISTEN": "127.0.0.1:9000", "KILORAFT_ADVERTISE": "localhost:9000", "KILORAFT_HTTP": "127.0.0.1:9001",
			"KILORAFT_JOIN": "127.0.0.1:7400,[::1]:7402", "KILORAFT_LOG_LEVEL": "error", "KILORAFT_LOCALITY": "zone=a"},
		start: func(_ context.Context, c server.Config) error { got = c; return nil },
	}
	if r := c.run(t, "start", "--listen", "127.0.0.1:9100"); r.code != exitDone {
		t.Fatal(r)
	}
	want := server.Config{Store: "here", Listen: "127.0.0.1:9100", Advertise: "localhost:9000", HTTP: "127.0.0.1:9001", Insecure: true,
		InitialShards: 48, MemoryBytes: 256 << 20, Join: []string{"127.0.0.1:7400", "[::1]:7402"}, Version: versionText(),
		Locality: "zone=a"}
	got.Logger = nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("the server was configured as\n%+v, want\n%+v", got, want)
	}

	c.env["KILORAFT_INITIAL_SHARDS"] = "many"
	if r := c.run(t, "start"); r.code != exitUsage || !strings.Contains(r.stderr, "KILORAFT_INITIAL_SHARDS") {
		t.Errorf("a bad variable: %+v", r)
	}
}

func TestStartEnds(t *testing.T) {
	args := []string{"start", "--store", "d", "--insecure"}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := command{start: func(ctx context.Context, _ server.Config) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	if r := stopped.runWithin(t, ctx, args...); r.code != exitDone || r.stderr != "" {
		t.Errorf("told to stop: %+v", r)
	}
	failed := command{start: func(context.Context, server.Config) error { return errors.New("store d belongs to another cluster") }}
	if r := failed.run(t, args...); r.code != exitFailed || r.stderr != "kiloraft: start: store d belongs to another cluster\n" {
		t.Errorf("failed: %+v", r)
	}
	refused := command{start: func(context.Context, server.Config) error {
		return fmt.Errorf("check: %w", &shard.InvalidError{Field: "--listen", Reason: "is odd"})
	}}
	if r := refused.run(t, args...); r.code != exitUsage || !strings.Contains(r.stderr, "--listen is odd") {
		t.Errorf("refused: %+v", r)
	}
}

func TestBytesFlag(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "123": 123, "1KiB": 1024, "1.5GiB": 3 << 29, "2 MiB": 2 << 20, "10MB": 10_000_000, "7B": 7} {
		var b bytesFlag
		if err := b.Set(text); err != nil || int64(b) != want {
			t.Errorf("%q is %d bytes, %v; want %d", text, b, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1XiB", "nan", "1e30", "99999999TiB"} {
		var b bytesFlag
		if err := b.Set(text); err == nil {
			t.Errorf("%q was taken for %d bytes", text, b)
		}
	}
	for n, want := range map[bytesFlag]string{512 << 20: "512MiB", 1 << 30: "1GiB", 1000: "1000"} {
		if got := n.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(n), got, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 61 << 20: "61.0 MiB", 1932735283: "1.8 GiB", 500 << 30: "500 GiB", 1 << 63: "8.0 EiB", 1<<20 - 1: "1.0 MiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	for s, want := range map[float64]string{0.4: "0s", 59: "59s", 130: "2m 10s", 3 * 3600: "3h 0m", 3*86400 + 4*3600 + 59: "3d 4h"} {
		if got := ago(s); got != want {
			t.Errorf("%v seconds are %q, want %q", s, got, want)
		}
	}
	for d, want := range map[time.Duration]string{10 * time.Second: "10s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h"} {
		if got := duration(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}

func TestPlainErrors(t *testing.T) {
	a := &app{global: globalFlags{timeout: 10 * time.Second}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("a: b"), "a: b"},
		{fmt.Errorf("get: %w", context.DeadlineExceeded), "get: gave up after 10s (--timeout)"},
		{fmt.Errorf("scan: %w", context.Canceled), "scan: interrupted"},
		{errors.New(`127.0.0.1:1: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`), "127.0.0.1:1: connection refused"},
		{errors.New(`x: last connection error: connection error: desc = "error reading server preface: EOF"`), "x: error reading server preface: EOF"},
	} {
		if got := a.plain(c.err); got != c.want {
			t.Errorf("%v\n is shown as %q, want %q", c.err, got, c.want)
		}
	}
}
