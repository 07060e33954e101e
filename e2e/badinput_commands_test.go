package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// command is a command line that is refused: its exit code, and words of what it says.
func command(code int, line string, words ...string) badCase {
	return badCase{"kiloraft " + line, func(s *site) error { return failure(s.run(strings.Fields(line)...), code, words...) }}
}

// badCommands is commands with wrong arguments, and about what does not exist.
func badCommands() (cases []badCase) {
	const failed, usage, notFound = 1, 2, 3
	cases = []badCase{
		command(usage, "frob", "frob"),
		command(usage, "kv", "which one"),
		command(usage, "kv get", "KEY is missing"),
		command(usage, "kv get a b", "one argument too many"),
		command(usage, "kv put a", "VALUE is missing"),
		command(usage, "kv put a b --frob", "--frob"),
		command(usage, `kv get bad\q`, "backslash"),
		command(usage, "kv scan --limit x", "--limit"),
		command(usage, "kv get a --revision 0", "--revision"),
		command(failed, "kv get kept --revision 99999999999", "--revision", "future"),
		command(failed, "kv scan --revision 99999999999", "--revision", "future"),
		command(notFound, "kv get absent", "absent"),
		command(failed, "kv scan b a", "range"),
		command(usage, "kv del-range b a", "END is before START"),
		command(usage, "kv cas kept x", "condition"),
		command(usage, "kv cas kept x --if-absent --if-value y", "one condition"),
		command(failed, "kv cas kept x --if-absent"),
		command(failed, "kv cas kept x --if-value other"),
		command(usage, "status -o yaml", "-o", "json"),
		command(usage, "status --timeout 0s", "--timeout"),
		command(usage, "status --endpoints nonsense", "--endpoints"),
		command(usage, "status --endpoints 10.1.2.3:7400", "--endpoints", "loopback"),
		command(failed, "status --endpoints 127.0.0.1:1 --timeout 1s", "127.0.0.1:1"),
		command(failed, "shard show 999", "999"),
		command(usage, "shard show x", "shard ID"),
		command(usage, "shard show 2 --key a", "not both"),
		command(usage, "shard transfer-leader 2", "--to"),
		command(usage, "shard transfer-leader 2 --to 77", "77"),
		command(failed, "shard scatter 999", "999"),
		command(usage, "shard scatter all", "shard ID"),
		command(usage, "settings set placement.low_space 101", "1 to 100"),
		command(failed, "shard move 999 --from 1 --to 2", "999"),
		command(usage, "shard move 2 --from 1 --to 1", "both node 1"),
		command(0, "shard list"),
		command(usage, "node drain", "ID is missing"),
		command(usage, "node drain x", "node's ID"),
		command(usage, "ops show x", "operation's ID"),
		command(failed, "ops show 999", "999"),
		command(usage, "settings set kv.retention", "VALUE is missing"),
		command(usage, "placement explain --shard 1 --node 2", "not both"),
		command(usage, "top --sort heat", "--sort", "load"),
		command(usage, "top --interval 1ms", "--interval"),
		command(failed, "top --endpoints 127.0.0.1:1 --timeout 1s", "127.0.0.1:1"),
		command(failed, "doctor --endpoints 127.0.0.1:1 --timeout 1s", "127.0.0.1:1"),
		command(usage, "shard list --dry-run", "--dry-run"),
		command(usage, "shard move 2 --from 1 --to 77 --dry-run", "node 77 does not exist"),
		command(usage, "shard move --key a --from 1 --to 77 --dry-run -o json", "node 77 does not exist"),
		command(failed, "shard move 999 --from 1 --to 2 --dry-run", "999"),
		command(usage, "shard add-replica 2 --to 1 --dry-run", "node 1 has a replica"),
		command(failed, "shard remove-replica 2 --from 1 --dry-run", "without a voter"),
		command(usage, "shard transfer-leader 2 --to 77 --dry-run", "77"),
		command(failed, "node drain 1 --dry-run", "no other node serves"),
		command(failed, "node decommission 1 --dry-run", "start another node first"),
		command(usage, "bench nonsense", "nonsense"),
		command(usage, "bench put --clients 0", "--clients"),
		command(usage, "cert create-node --certs-dir x", "HOST is missing"),
		command(usage, "demo --nodes 0", "--nodes"),
	}
	for _, line := range []string{"shard move 2 --from 1 --to 77", "shard add-replica 2 --to 77", "shard add-replica 2 --to 1", "shard remove-replica 2 --from 77",
		"shard remove-replica 2 --from 1", "node drain 77", "node decommission 77", "node decommission 1", "ops cancel 999", "settings set frob 1", "settings set kv.retention often", "settings set kv.retention 0s",
		"placement explain --shard 999", "placement explain --node 77"} {
		fields := strings.Fields(line)
		what := fields[len(fields)-1]
		if fields[0] == "settings" {
			what = fields[2]
		}
		cases = append(cases, badCase{"kiloraft " + line, func(s *site) error {
			o := s.run(append(fields, "--timeout", "5s")...)
			if o.code != failed && o.code != usage {
				return fmt.Errorf("exit %d: %s%s", o.code, o.stdout, o.stderr)
			}
			return failure(o, o.code, what)
		}})
	}
	return append(cases,
		badCase{"kv put of an empty key", func(s *site) error { return failure(s.run("kv", "put", "", "v"), failed, "key", "empty") }},
		badCase{"kv put of a key that is too long", func(s *site) error {
			return failure(s.run("kv", "put", strings.Repeat("k", 8<<10+1), "v"), failed, "key", "8,193", "8,192")
		}},
		badCase{"kv put of a file that does not exist", func(s *site) error {
			name := filepath.Join(s.dir, "nothing")
			return failure(s.run("kv", "put", "x", "--value-file", name), failed, name)
		}},
		badCase{"kv put of a file that is too long", func(s *site) error {
			name := filepath.Join(s.dir, "long")
			if err := os.WriteFile(name, make([]byte, 4<<20+1), 0o600); err != nil {
				return err
			}
			return failure(s.run("kv", "put", "x", "--value-file", name), failed, "value", "4,194,304")
		}},
	)
}

// badStarts is servers that cannot start. Each has a folder of its own.
func badStarts() (cases []badCase) {
	const failed, usage = 1, 2
	free := func(s *site) string { return freePorts(s.t, 1)[0] }
	start := func(name string, code int, args func(s *site, store string) []string, words ...string) {
		cases = append(cases, badCase{"start: " + name, func(s *site) error {
			store := filepath.Join(s.t.TempDir(), "store")
			line := append([]string{"start"}, args(s, store)...)
			if err := failure(run(s.t, "", line...), code, words...); err != nil {
				return err
			}
			if names, err := os.ReadDir(store); err == nil && len(names) > 0 && code == usage {
				return fmt.Errorf("it has left %v", names)
			}
			return nil
		}})
	}
	insecure := func(name string, code int, words []string, more ...string) {
		start(name, code, func(s *site, store string) []string {
			return append([]string{"--insecure", "--http", "", "--listen", free(s), "--store", store}, more...)
		}, words...)
	}
	insecure("an unknown flag", usage, []string{"--no-such-flag"}, "--no-such-flag")
	insecure("an argument", usage, []string{"argument"}, "here")
	insecure("too many shards", usage, []string{"initial-shards"}, "--initial-shards", "1000000")
	insecure("no shards", usage, []string{"--initial-shards"}, "--initial-shards", "0")
	insecure("memory that is no number", usage, []string{"--memory"}, "--memory", "lots")
	insecure("memory that is too little", usage, []string{"--memory"}, "--memory", "1MiB")
	insecure("a locality without a value", usage, []string{"--locality"}, "--locality", "zone")
	insecure("an unknown log level", usage, []string{"--log-level"}, "--log-level", "loud")
	insecure("an address to advertise without a port", usage, []string{"--advertise"}, "--advertise", "127.0.0.1")
	insecure("not loopback", usage, []string{"loopback"}, "--listen", "0.0.0.0:0")
	insecure("a port that is none", usage, []string{"--listen"}, "--listen", "127.0.0.1:99999")
	insecure("a store in /proc", failed, []string{"/proc/kiloraft"}, "--store", "/proc/kiloraft")
	insecure("a store below a device", failed, []string{"/dev/null/store"}, "--store", "/dev/null/store")
	insecure("a store with a long name", failed, []string{"name too long"}, "--store", "/tmp/"+strings.Repeat("x", 300))
	start("no store", usage, func(s *site, _ string) []string { return []string{"--insecure", "--listen", free(s)} }, "--store")
	start("neither certificates nor --insecure", usage, func(s *site, store string) []string { return []string{"--store", store, "--listen", free(s)} }, "--insecure")
	start("the port is taken", failed, func(s *site, store string) []string {
		return []string{"--insecure", "--http", "", "--store", store, "--listen", s.nodes[0].address}
	}, "taken")
	start("the HTTP port is taken", failed, func(s *site, store string) []string {
		return []string{"--insecure", "--store", store, "--listen", free(s), "--http", s.nodes[0].http}
	}, "taken")
	start("the store is in use", failed, func(s *site, _ string) []string {
		return []string{"--insecure", "--http", "", "--store", filepath.Join(s.dir, "store1"), "--listen", free(s)}
	}, "another process")
	cases = append(cases, badCase{"start: the store is a file", func(s *site) error {
		file := filepath.Join(s.t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			return err
		}
		return failure(run(s.t, "", "start", "--insecure", "--http", "", "--listen", free(s), "--store", file), failed, file)
	}}, badCase{"start: the store is somebody else's", func(s *site) error {
		dir := s.t.TempDir()
		note := filepath.Join(dir, "family-photos.tar")
		if err := os.WriteFile(note, []byte("precious"), 0o600); err != nil {
			return err
		}
		err := failure(run(s.t, "", "start", "--insecure", "--http", "", "--listen", free(s), "--store", dir), failed, dir)
		names, listErr := os.ReadDir(dir)
		if b, readErr := os.ReadFile(note); readErr != nil || string(b) != "precious" || len(names) != 1 {
			err = errors.Join(err, listErr, fmt.Errorf("the folder was touched: %v", names))
		}
		return err
	}}, badCase{"start: another program listens", func(s *site) error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		return failure(run(s.t, "", "start", "--insecure", "--http", "", "--store", filepath.Join(s.t.TempDir(), "s"), "--listen", l.Addr().String()), failed, l.Addr().String(), "taken")
	}})
	return cases
}
