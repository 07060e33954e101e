// Package raftgroup drives all raft groups of a node: thousands of RawNodes on
// a handful of workers, one engine and one transport.
//
// # One round
//
// Every group is pinned to one worker, and every worker has a FIFO of groups
// that have something to do. A worker's round takes up to 64 of them and reads
// like this (round.go):
//
//  1. step each group's mailbox into its RawNode and take at most one Ready;
//     network messages leave at once, a leader's appends before its own fsync;
//  2. commit the log appends of all groups as one batch, without waiting for
//     its sync; what must not be said before it is durable waits for that sync
//     (sync.go), and the worker goes on;
//  3. apply the committed entries of all groups as one unsynced batch, data and
//     replicated state together, then tell raft, the machines, the proposers
//     and the readers;
//  4. release the groups; one that has more goes to the tail.
//
// There is no goroutine and no timer per group. One timer per host marks the
// groups that tick.
//
// # What the caller must do
//
// Provide a Machine per replica (machine.go says when each method is called), a
// Transport (transport.go), and hand received frames and snapshots to the Host,
// which is a Receiver. Callbacks run on the group's turn and must not block.
// Close the transport before the host, and the host before the engine.
//
// # Membership
//
// changes by one learner, or by one joint configuration at a time, which is left
// explicitly; whoever leads finishes what its author did not (membership.go, joint.go).
// A replica ends when there is proof that it was removed, with one batch that leaves a
// tombstone in its place; a message for it finds nobody from then on (remove.go). Who
// was away when it was removed asks (ask.go).
//
// # What it never does
//
// It knows nothing of keys, revisions or commands: an operation is bytes. It
// never waits: work that touches the disk for long (installing a large
// snapshot, reading one for sending) runs on queues of its own. It grows without
// bound nowhere: bytes of proposals, of incoming messages and of one apply
// batch have node-wide budgets; past them proposals get ErrBusy and messages are
// dropped and counted.
//
// # Reading order
//
// host.go, group.go, machine.go; worker.go, round.go, turn.go, ready.go,
// sync.go, apply.go; propose.go, read.go; membership.go, joint.go, transfer.go,
// remove.go, ask.go;
// codec.go, receive.go, send.go; snapshot_send.go, snapshot_receive.go,
// install.go; truncate.go, status.go.
package raftgroup
