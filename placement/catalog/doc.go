// Package catalog owns the records of the meta shard and the operations on them:
// the nodes of the cluster and what is wanted of them, the directory of shards, the
// operations on shards that people asked for, the counters that IDs come from, and
// the settings, whose types, bounds and meanings it knows. They are ordinary records
// in an ordinary shard. The directory is an index: the authority
// for a shard's descriptor is the shard's own log.
//
// Every operation is a chain of steps over KV: it returns at once, repeats what
// failed a bounded number of times after growing, jittered pauses, and calls
// done exactly once, from any step. Every operation may be repeated by its
// caller whatever its outcome was: records only move forward (a node's to higher
// incarnations, a directory entry's to newer epochs and terms), an ID that was
// handed out in a lost answer is never handed out again, and a setting is what
// its last writer wrote.
//
// The caller gives a KV that routes to the meta shard and calls back exactly
// once per call. The package keeps no state between operations, caches nothing,
// and never decides where replicas go.
package catalog
