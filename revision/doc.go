// Package revision puts every write of the cluster into one order.
//
// A revision is a write's place in that order. Revisions come from one counter,
// which the leader of the meta shard has in memory: Grants. Every node asks it on
// behalf of all its replicas at once: Draws. Replicas then propose what they were
// given, and the state machine refuses what came too late (package shard/machine).
//
// # Why the order is an order in real time
//
// If a write was acknowledged before another one began, its revision is the
// smaller one:
//
//   - Nothing is fetched ahead. A draw serves the writes that waited when it was
//     sent, and is granted after that: so above all that was granted before.
//   - A leader takes the counter, then has a quorum confirm that it still led in
//     the same term, then replies. A leader that was deposed meanwhile does not
//     reply: its successor may have granted more, and their writes may have been
//     acknowledged. It is not enough that it leads again by the time it asks.
//   - A leader grants only below a bound that a majority has on disk, and only
//     what it has raised the bound by itself, in its term: (bound before, bound
//     after] of a raise that it has seen applied. Whoever led before granted below.
//
// # What it costs
//
// A note there and one back, which travel among the groups' messages. A node with a
// voter of the meta shard asks its leader, and confirms by itself what it was granted:
// the leader and that voter are a quorum, whose terms are compared after the counter
// was taken. The leader's own node asks one of the other voters for its term, for the
// same reason. Draws of nodes without a voter and in larger or joint configurations
// cost a round of heartbeats instead, which all that wait share. A node has one draw
// in flight, so that under load the writes of a whole round trip share it.
//
// # Failures
//
// A draw is lost with its leader or connection; another one is sent, and numbers
// that were granted to nobody are never used. Without a leader of the meta shard
// writes wait, no longer than DrawsConfig.Patience, and then get ErrNoRevision: nothing
// was proposed. Reads need no revision, but for snapshots over several shards.
package revision
