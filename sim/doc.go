// Package sim runs a whole cluster on one goroutine from one seed.
//
// The rooms below package node consist of steps and reach the world through
// env.Env, vfs.FS, raftgroup.Transport and client.Dialer. Sim has a twin of each:
// a seeded event loop with virtual time (loop.go), an in-memory disk that loses
// what was not synced (disk.go), a network that drops, delays, doubles and
// divides (net.go, dial.go). Everything above them is the real code: Pebble,
// raft, the host, the replicas, the client core, and every frame's codec.
//
// Run carries out one simulation: it starts the cluster, lets clients work while
// faults strike (faults.go lists them), heals everything but for a node that may stay
// down, waits for convergence, and checks what was promised. The same Config gives the
// same run, step by step; the hash of its trace tells. A Failure names its seed and
// tells what led to it (story.go).
//
// make sim runs many seeds, in processes of their own (fleet_test.go).
//
// What was promised is looked at from three sides. The witness replays every log on
// a model of the data and compares what replicas make of it (effects.go), and what
// they hold, version by version (content.go). What clients were told is compared with
// that (judge.go). And their history must hold by itself, whatever the logs say: per
// key (history.go), in one order over all shards (order.go), and at each revision
// (snapshot.go). Checks are tested with histories that break them.
//
// Every key has exactly one shard at any moment (coverage.go); in the end the directory
// says what the shards say (directory.go).
//
// Shards are split all the time (split.go); what becomes of them is judged when a replica
// applies it (parted.go), and so is every error that reaches a caller (errors.go).
// Where there are more nodes than replicas of a shard, replicas move (move.go). Nodes lose
// their disks, or hold bits that have flipped, as long as every shard has a majority
// without them (lose.go).
//
// A directed run (Config.Direct) brings about what drawn faults reach too rarely.
// The planted bugs (build tag planted) show that each rule's check finds its bug.
//
// The caller pins the process's source of randomness (Config.PinRandom), because
// raft draws its election jitter from it; two runs at a time in one process would
// share that source, so there is one at a time.
//
// Sim never reads a clock, starts no goroutine of its own and touches no file. Pebble has
// goroutines of its own; storage's simulated mode keeps them from changing
// anything that a run can see.
package sim
