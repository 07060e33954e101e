// Command chaos runs a cluster of real processes under fire, and judges what its
// clients saw.
//
//	make chaos DURATION=60s SEED=7 NODES=5
//
// It starts nodes as processes of their own, with mutual TLS, keeps clients at work, and
// inflicts faults that are drawn from the seed: processes are killed, one or all at
// once, paused past every time-out, restarted in turn; the network is cut in two, in one direction, or but for
// a bridge, delayed, lossy, unplugged; a disk is full, a node loses its disk and
// joins anew; and shards are split and moved, their leaders too, and nodes are drained meanwhile. In the end
// everything is healed. The run has passed if all of this holds:
//
//   - every key's history is linearizable, revisions are unique and follow real time,
//     reads at a revision give the same answer whenever they are asked (package sim judges);
//   - every acknowledged write of the ledger, of keys that are written once, is there;
//   - the cluster is healthy again within a bound, without a node too many or too few;
//   - every key has one shard;
//   - the replicas of every shard have the same content (kiloraft debug check);
//   - no process ended without having been made to.
//
// Cuts, delays and losses happen in a TCP proxy in front of each node
// (switchboard.go). Where the machine lets it, the run has a network, mounts and
// processes of its own (cell_linux.go), with a network namespace for each node: then packets are
// really lost, and a node's store is on a small file system that can be filled.
// All of that is gone when the command is, however it ends. Where it does not, the
// proxies are what is left, and it says so.
//
// A new fault is a value in one of the tables of faults_*.go: its name, how long it lasts, and a
// function that inflicts it and gives back how to heal it.
//
// The seed decides which faults come in which order, how long they last, and whom
// they prefer. What becomes of them is up to the machine.
package main
