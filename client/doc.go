// Package client is Kiloraft's smart routing client library.
//
// Client is the blocking facade that programs use: Open, Get, Put, Delete, Scan
// and their multi-key forms, CompareAndSwap, Batch and DeleteRange, all with a
// context, and with options for one call (CallOption). It is safe for concurrent use,
// and many concurrent callers are what it is made for: their operations are
// packed onto one stream per node.
//
// Core is what the facade stands on, and what nodes and simulations use
// directly: an event-driven router that consists of steps (package internal/env)
// and reaches the network through a Dialer. It learns the cluster from its
// endpoints and pins its UUID; routes by a bounded cache (package router) and
// asks the shard directory on a miss; follows the typed hints of servers; backs
// off, jittered and bounded, where there are none; and holds deadlines.
//
// # What happens to a write
//
// A write has an ID (session, sequence) and a birth, and its bytes are encoded
// once. It is handed to a stream at most once at a time. Most answers that are no
// result prove that the attempt did not and will not take effect: it reached the
// wrong replica, term, epoch or shard, the node was busy or cannot serve, no
// revision could be drawn, or it was dropped. The write is then sent again as it is,
// and no server looks for its ID.
//
// When the answer is lost, because the stream broke or the server cannot tell, the
// write carries the retry mark (shard.Command.Retry) from then on, and is sent again
// up to MaxRetries times: the shard looks for what an earlier attempt wrote, and
// answers with that attempt's outcome. What this rests on is written in retry.go.
// If no answer comes that tells, before the retries are used up, the deadline passes
// or the caller gives up, the caller gets shard.ErrUndetermined. One whose write is
// older than the retention, or lies on both sides of a split by now, gets it at once,
// as a shard.OutcomeLostError: no attempt can be told more.
// Writes to the system keyspace are not sent again after a lost answer. Reads are
// repeated elsewhere.
//
// A caller who wants to repeat a write after a restart of its own chooses the
// operation (WithOperation), and keeps it with what it is about to write. Its outcome,
// that a condition did not hold included, is decided once.
//
// The birth is the newest revision that the session has heard of. Nodes tell it in
// every frame, and on streams that are idle a few times in each retention, so that
// a client that has not written for long can still repeat its next write.
//
// # Reads
//
// A Get reads the latest state, or that of a revision (AtRevision). A Scan is of one
// revision from end to end: that of the shard's state if it needs one shard only, or
// one that is drawn first. Reads at a revision may go to any replica (AnyReplica).
//
// # Certificates
//
// With Options.CertsDir connections are mutual TLS with a client's certificate, as
// `kiloraft cert create-client` makes it; nodes must show a node's for the host that was
// dialled. Without it they are plaintext, and to loopback addresses only. A side that
// does not accept the other makes calls fail with a shard.DeniedError.
//
// # What the caller must do
//
// Close what was opened. Bound what is outstanding: past QueueBytesMax or
// QueueOpsMax calls end with shard.ErrBusy. Give deadlines: without one an
// operation waits until the cluster can serve it. Read and write within the
// retention. Callbacks of a Core are called
// from a step and must not block.
//
// The package never reads a clock, starts a goroutine or opens a connection
// outside the facade and the gRPC adapter (grpc.go).
package client
