// Package storage is a node's one Pebble engine and every key layout in it:
// the store's identity, the replicas' local records and raft logs, and the data
// of all shards as versions.
//
// # What lies where
//
// Local records begin with one byte, data with another (keys.go). Data is
// ordered by key and not by shard, so that a split moves no byte. Every value
// begins with a format byte; golden files under testdata fix the bytes of each.
//
// # What the caller must do
//
//   - Open one Engine per store directory, and Close it once no step uses it.
//   - End the process in Config.Fatal. It is called once, for whichever of the
//     three ways in which Pebble reports a failed disk comes first: an error from
//     a sync that is waited for, Logger.Fatalf, or EventListener.BackgroundError.
//     Nothing is retried over a failed write or sync: after a failed fsync the
//     kernel may have dropped the pages, and a second one that succeeds proves
//     nothing about them.
//   - Collect writes in a Batch and hand it over by Commit or CommitSync, which
//     consume it. The order of commits is the order in the WAL, and a crash keeps
//     a prefix of it: what must not survive without something else is committed
//     with it or after it.
//   - Let nothing leave the node that depends on a commit before the done of a
//     CommitSync which came after that commit.
//   - Use a Log, a Batch, a View, an Export and an Import from one step at a time.
//
// # What it never does
//
// It knows nothing of raft groups, terms or elections beyond the bytes that it
// keeps for them, never writes one replica's records for another's sake, and never
// calls back on the caller's goroutine. It never reads a hole: a large snapshot's span is
// excised, which is not atomic for readers, and a read that may have met it fails with
// ErrReplaced (excise.go).
//
// # Simulation
//
// With Config.Simulated nothing depends on time or on the scheduling of
// goroutines: syncs are explicit events on Config.Env, flushes and compactions
// happen inside Commit at fixed counts. On vfs.NewCrashableMem a crash then
// loses exactly what was not synced, alike in every run of a seed.
package storage
