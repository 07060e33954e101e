package sim

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// A disk fails where it is told to, and from then on everywhere, until a crash.
func TestDiskFails(t *testing.T) {
	d := NewDisk()
	file := func(name string) vfs.File {
		f, err := d.FS().Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	write := func(f vfs.File) error { _, err := f.Write([]byte("x")); return err }
	log, table := file("1.log"), file("2.sst")
	fault := &diskFault{err: syscall.ENOSPC}
	d.fs.fault.Store(fault)
	if err := errors.Join(write(log), log.Sync(), write(table), table.Sync()); err != nil {
		t.Fatal("it fails although no step waits for a sync: ", err)
	}
	fault.syncing.Store(true)
	if err := errors.Join(write(table), log.Sync()); err != nil {
		t.Fatal("something else fails: ", err)
	}
	for what, err := range map[string]error{"the log": write(log), "what follows": write(table), "syncs that follow": table.Sync()} {
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
	}
	d.Lose()
	if err := write(file("3.log")); err != nil {
		t.Error("after a crash: ", err)
	}
}

// faultsOnly runs seeds with some faults until each has struck often enough.
func faultsOnly(t *testing.T, enough func(all *Report) bool, kinds ...Fault) {
	t.Helper()
	faults := FaultsOf(kinds...)
	var all Report
	for seed := uint64(300); seed < 320; seed++ {
		r, err := Run(Config{Seed: seed, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }, Faults: &faults, Nodes: 4, Work: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for k, n := range r.Struck {
			all.Struck[k] += n
		}
		all.DisksFailed += r.DisksFailed
		all.FoundOut += r.FoundOut
		if enough(&all) {
			return
		}
	}
	t.Fatalf("too little happened: %v, %d disks failed, %d were found out", &all.Struck, all.DisksFailed, all.FoundOut)
}

// Writes and syncs that fail end the node, which comes back with what was durable.
func TestFailedDisksEndNodes(t *testing.T) {
	faultsOnly(t, func(all *Report) bool { return all.DisksFailed >= 10 }, DiskError)
}

// A bit that flips on a disk stops who reads it, and is never served.
func TestFlippedBitsAreFoundOut(t *testing.T) {
	faultsOnly(t, func(all *Report) bool { return all.FoundOut >= 3 }, FlipDisk, Pause)
}

// A node that has lost its disk joins as another one, and its replicas are rebuilt.
func TestWipedNodesAreReplaced(t *testing.T) {
	faultsOnly(t, func(all *Report) bool { return all.Struck[Wipe] >= 4 && all.Struck[LeftDown] >= 1 }, Wipe, LeftDown)
}

// A directory that lags for ever is noticed, though everything else has settled.
func TestDirectoryThatLagsIsNoticed(t *testing.T) {
	none := Faults(0)
	_, err := Run(Config{Seed: 5, PinRandom: func(s uint64) { cryptotest.SetGlobalRandom(t, s) }, Faults: &none, Grown: new(bool), Nodes: 3, Work: 2 * time.Second,
		Overlook: func(error) bool { return true },
		Direct: func(s *Stage) {
			s.After(1900*time.Millisecond, func() {
				for _, n := range s.run.cluster.nodes {
					tamper(t, n)
				}
			})
		}})
	if err == nil || !strings.Contains(err.Error(), "directory") {
		t.Fatalf("%v", err)
	}
}

// tamper changes the first entry of the directory that a node has.
func tamper(t *testing.T, n *Node) {
	v := n.engine.NewView()
	rows, _, err := v.Scan(storage.ScanOptions{Span: router.DirectorySpan(), At: shard.MaxRevision, RowsMax: 1})
	if err = errors.Join(err, v.Close()); err != nil || len(rows) == 0 {
		t.Fatal(err, len(rows))
	}
	e, err := router.DecodeEntry(rows[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	e.Descriptor.NextReplica += 5
	b := n.engine.NewBatch()
	b.PutUnversioned(rows[0].Key, router.AppendEntry(nil, &e))
	if err := n.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
}
