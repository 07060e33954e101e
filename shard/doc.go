// Package shard holds Kiloraft's nouns: identities, spans, descriptors, epochs
// and revisions; the commands that travel from a client into a group's log,
// with their compact encoding; the frames that carry them; and the closed set
// of errors.
//
// It imports nothing but the standard library and depends on no other room.
// Every decoder here refuses malformed input with an error that wraps
// ErrMalformed and never panics; none keeps more memory than its input allows.
package shard
