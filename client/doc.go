// Package client is Kiloraft's smart routing client library.
//
// Client is the blocking facade that programs use: Open, Get, Put, Delete, Scan
// and their multi-key forms, all with a context. It is safe for concurrent use,
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
// once. It is handed to a stream at most once at a time, and again only after an
// answer which proves that the attempt before did not and will not take effect:
// that it reached the wrong replica, term, epoch or shard, that the node was busy
// or cannot serve, or that it was dropped. Such attempts do not count, so the
// next one carries no retry mark (shard.Command.Retry), and no server needs to
// look for the write's ID. When an attempt may have been sent and its answer is
// lost, because the stream broke, the caller gave up or the server cannot tell,
// the caller gets shard.ErrUndetermined; the core never proposes a write twice.
// Reads are repeated elsewhere.
//
// # What the caller must do
//
// Close what was opened. Bound what is outstanding: past QueueBytesMax or
// QueueOpsMax calls end with shard.ErrBusy. Give deadlines: without one an
// operation waits until the cluster can serve it. Callbacks of a Core are called
// from a step and must not block.
//
// The package never reads a clock, starts a goroutine or opens a connection
// outside the facade and the gRPC adapter (grpc.go).
package client
