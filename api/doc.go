// Package api is what Kiloraft's processes say to each other over gRPC.
//
// It holds the protobuf services (kiloraft.proto, generated into package
// kiloraftpb), the raw streams that carry packed frames of clients and peers
// without protobuf (raw.go), the one place where errors become gRPC statuses and
// back (status.go), and conversions between package shard's nouns and their
// protobuf messages (convert.go).
//
// It knows neither servers nor clients: it never dials, listens or retries.
package api

//go:generate go run -C ../tools ./protogen api/kiloraft.proto
