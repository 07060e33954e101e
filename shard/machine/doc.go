// Package machine is the deterministic state machine of a shard: the bytes of
// one logged operation go in, its result and the writes that it makes of a
// storage batch come out. It knows no clock, no network and no randomness, and
// reads nothing but the shard's own data, so that every replica that applies the
// same log comes to the same state, whatever the turns in which it does so and
// however often it restarts in between.
//
// The caller owes it four things. Entries come in the order of the log, each
// once. The writes of one turn, from the first Apply to EndApply, are committed
// together or not at all. Published follows when they are visible to new views:
// until then the machine answers its own reads from the turn's batch. And what a
// replica drops of its own accord are versions that no state from the floor on
// shows: the machine looks at no other state, so that what is dropped already,
// which differs from replica to replica, makes no difference.
//
// A refusal that every replica makes alike (a key outside the span, an epoch
// that is not current, a revision that is not larger than the last) is part of a
// Result and changes nothing. An error is something else: bytes that no leader
// can have proposed, or a view that cannot be read. The replica that sees one stops.
//
// Commands on keys with versions are evaluated first and carried out afterwards
// (effect.go): a later attempt of an operation whose effect is found in the data
// (retry.go) is evaluated on the state before it, and carried out no second time. One
// that changed nothing leaves a trace of itself if it is a later attempt.
//
// The machine never replies to anybody, never decides who leads, and never
// looks at what other shards do.
package machine
