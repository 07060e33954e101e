// Package revision numbers writes.
//
// A revision is a write's place in an order of writes. Replicas ask for them
// through the Revisions interface of package shard/replica: a draw of n for a
// shard is answered, at once or later, with n consecutive numbers that are larger
// than all that were handed out for that shard before.
//
// PerShard answers from a counter per shard, so that revisions of different
// shards say nothing about each other. One order over the whole cluster takes
// grants from the meta shard's leader, behind the same interface: a node then has
// one draw in flight for all its shards, a draw serves the writes that were
// waiting when it was sent, and nothing is fetched ahead. Replicas rely on no more
// than the interface says: answers may come late, in any step, out of order
// between shards, and with gaps.
//
// A caller that loses leadership while a draw is out must not use its answer in
// another term. What safety needs beyond that, that revisions in a shard's log
// strictly increase, the state machine checks when it applies.
package revision
