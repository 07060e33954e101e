// Package transport carries raft messages and snapshots between the hosts of
// different nodes. It implements raftgroup.Transport twice: over gRPC (NewGRPC)
// and in memory on an env.Env (NewNetwork), for tests and simulations.
//
// # Messages
//
// All groups of a node share one stream to each other node. Send encodes a
// message into the frame that is being filled for its node; a frame leaves as soon
// as gRPC has taken the previous one. So a busy stream packs many messages into
// each frame, and an idle one delays nothing: no timer is involved.
//
// The transport never blocks and never queues without a bound. A message
// that does not fit, or whose node does not answer, is dropped and counted, and Send
// says so; raft sends again what still matters. A broken stream loses what was
// on its way, and the receiver of this node is told (PeerUnreachable), so that leaders
// probe again instead of assuming delivery.
//
// # Snapshots
//
// Each snapshot has a stream of its own on the same connection, so that a slow
// one delays nobody. A few run at once per node; the others wait in a bounded line.
// A snapshot ends with an explicit frame that counts its chunks: a stream that merely
// stops is not a complete snapshot.
//
// # Identity
//
// Every stream begins with a hello that names cluster, node, incarnation,
// process and the node it is meant for, and is answered by a greeting or a refusal
// with its reason. Refused are: another cluster, another node than the one
// addressed, the node's own ID, an incarnation below the highest one seen from that
// node, and the same incarnation from a second process, which can only be a copied
// store. A higher incarnation, or the same process, replaces the older stream.
//
// # The caller
//
// The caller makes a transport, starts the receiver, and then calls Start. It feeds
// addresses by Config.Addresses and SetAddress; transports report the addresses that they
// learn, and persist nothing. Close stops everything, and waits for callbacks to
// return: do not call it from one.
//
// Only the files named grpc*.go, the adapter to gRPC, start goroutines or ask the
// real clock.
package transport
