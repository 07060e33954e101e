// Command elastic measures what splits, moves and new nodes cost those who use the
// cluster meanwhile.
//
//	make bench-elastic PART=churn DURATION=60s
//
// Each part has a cluster of its own, of real processes, which `kiloraft demo` runs: the
// command starts it, has it start the command once more beside the nodes, and prints what
// that one has found.
//
//   - churn: a steady load at half the peak, first alone, then while shards are split and
//     replicas move, by hand and evenly in time. No operation may fail, and p99 may be
//     twice as high as when all was quiet. Placement is paused, so that what is asked for
//     is all that happens.
//   - spread: a uniform load on one shard, until every node carries its part of it.
//     Nobody touches it: shards split and leaders move by themselves.
//   - join: a node joins three that hold data, until it has its share of bytes and leaders.
//
// The load is package bench's, under a rate: latency counts from the moment at which an
// operation was due. How long nothing was answered is measured beside it (gaps.go), of all
// keys and of those of the shard that was split or moved.
//
// The generator shares its machine with the servers. Figures are of that machine, and of
// nothing else at work on it.
package main
