// Package placement decides where replicas and leaders go: a view of the cluster
// in, steps out. It decides, in this order for each shard:
//
//   - leave a joint configuration;
//   - move the leader off a node that drains or leaves;
//   - the next step of the shard's task, if it has one: a replica is to be added,
//     removed or moved, because a person asked for it or to even out;
//   - voters that are missing, or whose nodes are dead or leave: add a learner for
//     each, and once they are caught up promote them and demote those that they
//     replace, in one joint change;
//   - remove a learner that nobody needs;
//   - split the shard where its leader wishes it.
//
// For shards that need nothing it decides, in this order:
//
//   - moves of replicas to nodes in other places (shard.Locality), as far apart as may be;
//   - moves of replicas from nodes that hold the most for the room that their disks offer to
//     those that hold the least: what a replica costs is its bytes and a constant;
//   - transfers of leadership to nodes that bear less: what a leader costs is its load and
//     a constant;
//   - moves of replicas of shards whose load leadership alone cannot even out.
//
// A move begins only if its source still exceeds its target by more than a tolerance once it
// is done, with all that is under way counted as done; so moves come to an end. Replicas
// move only while no shard needs anything else that it can be given, and each node takes part in few moves at once.
//
// The meta shard is placed like any other, but has five voters where five nodes serve; four it
// never has for long: they outlive no more than three do.
//
// Invariants: a replica is added before another one goes; leadership leaves before
// its voter is demoted; a shard has one step at a time; what would not be replaced
// is not demoted, but for what exceeds the replication factor or a person's task; while
// a voter that stays is silent, none is promoted that the new majority would need.
// Voters beyond the replication factor, which somebody added, stay; of the meta shard an even
// number does not outlast the loss that made it even.
//
// Forecast carries out in thought what it decides, for those who ask first.
//
// It is pure: no clock, no network, no state but what a Plan counts. The caller
// tells what it knows (a View may be old or incomplete), carries out the steps
// in any order, and decides again with a newer view. That is safe because a step
// names the epoch that it was decided for, and the shard refuses one that is
// meant for another; and because a step that was carried out changes the view
// such that the same step is not decided again.
package placement
