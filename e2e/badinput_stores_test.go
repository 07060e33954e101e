package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
)

// storedKeys are what the stores hold that are spoiled.
const storedKeys = 300

func storedValue(i int) string { return fmt.Sprintf("value %d %s", i, strings.Repeat("v", 1000)) }

// badStores is stores whose files are damaged. A node either refuses to start, in words
// that name the folder, or it starts and gives out nothing that is wrong: it has all
// keys where the damage concerns nothing that was acknowledged, else errors.
func badStores(t *testing.T) (cases []badCase) {
	logged, flushed := makeStores(t)
	spoil := func(name, store string, want outcome, damage func(dir string) error) {
		cases = append(cases, badCase{"a store with " + name, func(s *site) error { return startSpoiled(s.t, store, want, damage) }})
	}
	spoil("an appendix to its WAL", logged, starts, onLast("*.log", func(b []byte) []byte { return append(b, bytes.Repeat([]byte("junk"), 100)...) }))
	spoil("zeros after its WAL", logged, starts, onLast("*.log", func(b []byte) []byte { return append(b, make([]byte, 64<<10)...) }))
	spoil("a WAL whose last bytes are missing", logged, starts, onLast("*.log", func(b []byte) []byte { return b[:len(b)-20] }))
	spoil("a flipped byte in the middle of its WAL", logged, refuses, onLast("*.log", func(b []byte) []byte { b[len(b)/2] ^= 0x40; return b }))
	spoil("a hole in the middle of its WAL", logged, refuses, onLast("*.log", func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+8<<10]); return b }))
	spoil("a flipped byte in its manifest", flushed, refuses, onLast("MANIFEST-*", func(b []byte) []byte { b[20] ^= 0x40; return b }))
	spoil("an empty manifest", flushed, refuses, onLast("MANIFEST-*", func([]byte) []byte { return nil }))
	spoil("a manifest of junk", flushed, refuses, onLast("MANIFEST-*", func(b []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(b)) }))
	spoil("no manifest", flushed, refuses, remove("MANIFEST-*"))
	spoil("no marker", flushed, refuses, remove("KILORAFT"))
	spoil("a marker of junk", flushed, refuses, onLast("KILORAFT", func([]byte) []byte { return []byte("junk") }))
	spoil("half a marker", flushed, refuses, onLast("KILORAFT", func(b []byte) []byte { return b[:len(b)/2] }))
	spoil("a marker of a later version", flushed, refuses, onLast("KILORAFT", func([]byte) []byte { return []byte("kiloraft store, format 99, ready\n") }))
	spoil("no SST", flushed, refuses, remove("*.sst"))
	spoil("SSTs that are cut short", flushed, refusesOrErrs, onAll("*.sst", func(b []byte) []byte { return b[:len(b)/2] }))
	spoil("SSTs with flipped bytes", flushed, refusesOrErrs, onAll("*.sst", func(b []byte) []byte {
		for i := 100; i < len(b)-100; i += 5000 {
			b[i] ^= 1
		}
		return b
	}))
	spoil("a flipped byte in one SST", flushed, refusesOrErrs, onLast("*.sst", func(b []byte) []byte { b[len(b)/3] ^= 1; return b }))
	spoil("half a snapshot that was being received", flushed, starts, func(dir string) error {
		incoming := filepath.Join(dir, "incoming")
		return errors.Join(os.MkdirAll(incoming, 0o700), os.WriteFile(filepath.Join(incoming, "2-1-0.sst"), []byte("half"), 0o600))
	})
	return cases
}

// makeStores makes a store whose data are in its WAL, and one whose data are in SSTs.
func makeStores(t *testing.T) (logged, flushed string) {
	t.Helper()
	c := startCluster(t, 1, 2)
	cl := c.client()
	for i := range storedKeys {
		if _, err := cl.Put(t.Context(), fmt.Appendf(nil, "k%04d", i), []byte(storedValue(i))); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 { // what may be lost with the last bytes
		if _, err := cl.Put(t.Context(), fmt.Appendf(nil, "tail%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	copyTo := func(name string) string {
		to := filepath.Join(c.dir, name)
		if err := os.CopyFS(to, os.DirFS(filepath.Join(c.dir, "store1"))); err != nil {
			t.Fatal(err)
		}
		return to
	}
	c.nodes[0].kill()
	logged = copyTo("logged")
	c.nodes[0].start() // which flushes what it has replayed
	c.waitWhole()
	c.nodes[0].signal(syscall.SIGTERM)
	return logged, copyTo("flushed")
}

type outcome int

const (
	starts outcome = iota
	refuses
	refusesOrErrs
)

// startSpoiled starts a node on a damaged copy of a store.
func startSpoiled(t *testing.T, store string, want outcome, damage func(dir string) error) error {
	dir := t.TempDir()
	store, from := filepath.Join(dir, "spoiled"), store
	if err := os.CopyFS(store, os.DirFS(from)); err != nil {
		return err
	}
	if err := os.Chmod(store, 0o700); err != nil {
		return err
	}
	if err := damage(store); err != nil {
		return err
	}
	p := &process{t: t, name: "a node with a damaged store", address: freePorts(t, 1)[0], log: filepath.Join(dir, "log")}
	p.args = []string{"start", "--insecure", "--store", store, "--listen", p.address, "--http", ""}
	p.start()
	defer p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	ended := p.ended()
	go func() { // a node that has ended answers nobody
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	lost, err := readStored(ctx, p.address)
	select {
	case <-ended:
		log := tail(p.log, 100)
		switch {
		case want == starts:
			return fmt.Errorf("it did not start: %s", log)
		case p.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(log, store) && !strings.Contains(log, "spoiled"):
			return fmt.Errorf("exit %d: %s", p.cmd.ProcessState.ExitCode(), log)
		case strings.Contains(log, "goroutine "):
			return fmt.Errorf("it shows its insides: %s", log)
		}
		return nil
	default:
	}
	switch {
	case want == refuses:
		return fmt.Errorf("it has started; %d keys cannot be read: %v", lost, err)
	case want == starts && (err != nil || lost > 0):
		return fmt.Errorf("%d keys cannot be read: %v", lost, err)
	case lost == 0 && err == nil || lost > 0:
		return nil // whole, or typed errors
	}
	return err
}

// readStored reads what makeStores has written: lost keys give errors. A wrong value,
// and a key that is absent, is an error.
func readStored(ctx context.Context, address string) (lost int, err error) {
	cl, err := client.Open(ctx, client.Options{Endpoints: []string{address}})
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for i := range storedKeys {
		one, cancel := context.WithTimeout(ctx, 8*time.Second)
		kv, err := cl.Get(one, fmt.Appendf(nil, "k%04d", i))
		cancel()
		switch {
		case errors.Is(err, client.ErrNotFound):
			return lost, fmt.Errorf("key %d is absent", i)
		case ctx.Err() != nil:
			return lost, ctx.Err()
		case err != nil:
			if lost++; lost == 3 {
				return lost, nil // its shard does not serve
			}
		case string(kv.Value) != storedValue(i):
			return lost, fmt.Errorf("key %d has a value of %d bytes that nobody wrote", i, len(kv.Value))
		}
	}
	return lost, nil
}

func eachFileOf(dir, pattern string, do func(path string) error) error {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	if err == nil && len(paths) == 0 {
		err = fmt.Errorf("there is no %s in %s", pattern, dir)
	}
	for _, path := range paths {
		err = errors.Join(err, do(path))
	}
	return err
}

func rewrite(path string, change func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(b), 0o600)
}

// onAll changes all files of a store whose names fit, onLast the last one that is not
// empty.
func onAll(pattern string, change func([]byte) []byte) func(dir string) error {
	return func(dir string) error {
		return eachFileOf(dir, pattern, func(path string) error { return rewrite(path, change) })
	}
}

func onLast(pattern string, change func([]byte) []byte) func(dir string) error {
	return func(dir string) error {
		last := ""
		err := eachFileOf(dir, pattern, func(path string) error {
			info, err := os.Stat(path)
			if err == nil && info.Size() > 1000 || !strings.HasSuffix(path, ".log") {
				last = path
			}
			return err
		})
		return errors.Join(err, rewrite(last, change))
	}
}

func remove(pattern string) func(dir string) error {
	return func(dir string) error { return eachFileOf(dir, pattern, os.Remove) }
}
