// Package placement decides where replicas and leaders go: a view of the cluster
// in, steps out. It decides, in this order for each shard: leave a joint
// configuration; promote learners to voters, all that are missing in one joint
// change, once that many are caught up; add a learner where a voter is missing;
// hand leadership to a node that leads fewer shards.
//
// It is pure: no clock, no network, no state but what a Plan counts. The caller
// tells what it knows (a View may be old or incomplete), carries out the steps
// in any order, and decides again with a newer view. That is safe because a step
// names the epoch that it was decided for, and the shard refuses one that is
// meant for another; and because a step that was carried out changes the view
// such that the same step is not decided again.
//
// It never removes a replica and never moves one: a dead node's replicas stay
// members.
package placement
