// Package machine is the deterministic state machine of a shard: the bytes of
// one logged operation go in, its result and the writes that it makes of a
// storage batch come out. It knows no clock, no network and no randomness, and
// reads nothing but the shard's own data, so that every replica that applies the
// same log comes to the same state, whatever the turns in which it does so and
// however often it restarts in between.
//
// The caller owes it three things. Entries come in the order of the log, each
// once. The writes of one turn, from the first Apply to EndApply, are committed
// together or not at all. And Published follows when they are visible to new
// views: until then the machine answers its own reads from what the turn wrote.
//
// A refusal that every replica makes alike (a key outside the span, an epoch
// that is not current, a revision that is not larger than the last) is part of a
// Result and changes nothing. An error is something else: bytes that no leader
// can have proposed. The replica that sees one stops.
//
// The machine never replies to anybody, never decides who leads, and never
// looks at what other shards do.
package machine
