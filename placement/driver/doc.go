// Package driver carries out what package placement decides, and feeds the
// directory.
//
// A Driver works on one node of the cluster, the one that leads the meta shard:
// its owner starts it in each term in which the node leads, and stops it when it
// no longer does. It is a loop without memory that matters: it asks the live nodes
// what they have, decides, asks shards' leaders to change, and decides again. What it
// has begun and not finished is visible in the shards' own descriptors, so that the
// next driver goes on from there; two drivers at once do no harm, as every change
// names the epoch that it is for and only one change of an epoch applies.
//
// What a descriptor cannot tell is what a person asked for. That is recorded in the
// meta shard before its first step: nodes' states, and operations on shards. The
// driver reads these records, decides nothing before it has, and records how
// operations end. It remembers, and its successor does not: for how long nodes have
// been silent, how long a task has made no progress, and moves that only even out;
// what these leave half done, a learner, is removed once nobody has needed it for a
// while.
//
// A shard whose step has ended gets its next one from the answer, without another
// poll. Learners that have to catch up are polled for alone and often, all
// replicas once a second, at rest as under way.
//
// A Feeder works on every node: it writes the descriptors and terms of the shards
// that the node leads to the directory.
//
// Neither blocks, and neither starts a goroutine. The owner supplies the network
// as a Cluster; each of its calls must call back exactly once, within a time of
// its own choosing.
package driver
