package lint

import (
	"slices"
	"strings"
)

// The rooms of the house, from left to right. A room imports only rooms of
// columns to its left. A package belongs to the room with the longest name that
// is a prefix of its path.
var columns = [][]string{
	{"internal/planted"},
	{"shard", "internal/env"},
	{"storage", "router", "placement", "api"},
	{"raftgroup"},
	{"raftgroup/transport", "shard/machine"},
	{"shard/replica", "placement/catalog"},
	{"revision", "client"},
	{"placement/driver"},
	{"node"},
	{"server", "sim", "bench"},
	{"cmd"},
}

// Rooms outside the order: each says whom it may import, and who may import it.
var outside = map[string]struct{ imports, importers []string }{
	// Package node is shared with the simulation, so that it is package server
	// that brings the real world. Of the client only the facade does, see below.
	"internal/env/prod": {imports: []string{"internal/env"}, importers: []string{"server", "client"}},
	// Certificates are files, sockets and the wall clock; rooms of steps know
	// nothing of them. Of the client the facade and its adapter to gRPC do.
	"internal/certs": {imports: []string{"shard"}, importers: []string{"server", "client", "cmd", "chaos"}},
	"internal/lint":  {},
	// Tests with real processes; no code of its own.
	"e2e": {},
	// A command for tests, which judges real processes as sim does simulated ones. It
	// reaches them as a user does.
	"chaos": {imports: []string{"shard", "client", "sim", "internal/certs"}},
}

// reachesOut tells whether a file of package client may import a room outside.
func reachesOut(path, room string) bool {
	return facade(path) || room == "internal/certs" && Adapters[path] != ""
}

// facade tells whether a file of package client belongs to its blocking facade,
// the part that may use goroutines and the real environment.
func facade(path string) bool { return strings.HasPrefix(path, "client/facade") }

// roomOf is the room of a package, or "" if it has none.
func roomOf(pkg string) string {
	best := ""
	consider := func(room string) {
		if (pkg == room || strings.HasPrefix(pkg, room+"/")) && len(room) > len(best) {
			best = room
		}
	}
	for _, column := range columns {
		for _, room := range column {
			consider(room)
		}
	}
	for room := range outside {
		consider(room)
	}
	return best
}

// columnOf is the place of a room in the order, or -1 if it stands outside.
func columnOf(room string) int {
	return slices.IndexFunc(columns, func(column []string) bool { return slices.Contains(column, room) })
}

// belowNode tells whether a room consists of steps.
func belowNode(room string) bool {
	c := columnOf(room)
	return c >= 0 && c < columnOf("node")
}
