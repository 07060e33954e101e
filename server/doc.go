// Package server is a node as a process: it opens the store, gives it its
// identity, starts package node on real goroutines, sockets and disks, and
// serves gRPC and HTTP around it until it is told to stop.
//
// One port carries everything of gRPC: the raw streams of client operations and
// of peers, and the protobuf services. The HTTP port, which is optional, has
// /healthz, /metrics and, for loopback callers, /debug/pprof/.
//
// Both are mutual TLS (package internal/certs) or, on loopback addresses, plaintext.
// One gate (gate.go) stands in front of every RPC and page and knows who may call it;
// whatever it does not know is refused.
//
// This package may wait, and has goroutines of its own; everything below it
// consists of steps.
package server
