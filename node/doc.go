// Package node wires one node together: the engine, the replicas and the host
// that drives them, the transport, a client of the cluster of its own, the feed
// of the shard directory, and placement while the node leads the meta shard.
//
// The caller brings what differs between production and simulation: the
// environment, the engine, a transport, a dialer and the RPCs between nodes.
// Package server brings the real ones, package sim twins on one event loop. A
// node consists of steps only: no method waits.
//
// A store's life begins with Bootstrap (a new cluster) or Adopt (an identity
// that the cluster gave it) and goes on with Resume at every later start; only
// then may New start the node, because peers tell two runs of one store apart
// by the incarnation that Resume made durable.
package node
