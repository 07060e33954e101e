// Package replica is a shard's copy on a node: it joins a raft group with a
// state machine and serves requests. A node's copies together are a Store.
//
// # A write
//
// Execute checks that this replica leads, that the attempt is meant for exactly
// this epoch, replica and term, and that the key is in the span. A write to a
// user key then waits for a revision. Each replica has one draw in flight; it
// serves every write that was waiting when it was sent, and none that came
// later, so that the order of revisions is an order in real time. The writes are
// proposed in the order of their revisions, only in the term in which the draw
// was sent. What the state machine refuses because its revision came too late
// draws again. The system keyspace has no versions, and its writes skip the draw. A
// delete-range is walked before the draw, and refused if that is too far (weigh.go).
//
// # A read
//
// A read goes to its group, which confirms leadership and waits until the
// applied state is recent enough. Confirmed reads of all replicas gather in one
// queue; a step on the Reads pool takes a run of them and serves it from one
// view of the engine. Each read notes its replica's generation before the view is
// opened, and is served again if the generation is odd, or another one
// afterwards: then the descriptor was changing or a snapshot was being installed.
//
// A read at a revision needs nobody to confirm anything: any replica whose last
// revision is not below it has all that can be read there. For one that has not come
// as far the leader raises its shard, with an entry that writes nothing.
//
// # The floor
//
// rises as time passes, by what the leader proposes of its own samples (floor.go);
// every replica drops the versions below it for itself, in the background (sweep.go).
//
// # Load and size
//
// Every replica counts its requests (load.go); once a second the counts of those that are
// asked for anything become rates (loads.go), and the keys of the busiest ones' requests are
// sampled (sample.go). A leader whose load was too much for ten seconds finds the key where it
// halves (halve.go). One that seems to hold too many bytes is measured, in
// parts, which finds the middle (measure.go). Either is only told (wish.go): splitting is
// placement's decision.
//
// # A stream
//
// Requests come on the streams of sessions (Stream). The newest stream of a session
// supersedes the older ones: before it is greeted, what they have not put into a
// log yet is cancelled, and what they still bring is dropped, so that no attempt of an
// operation follows a later attempt of the same operation into the log. Streams are
// told now and then how far revisions have got (Stream.OnNews).
//
// # The caller
//
// makes one Store, hands its NewMachine to the group host, opens a Stream for each
// client stream, and calls Stream.Execute for its requests. It must not block in a
// reply or in a callback of Config: they run on the steps of groups.
//
// # What it never does
//
// It never retries a write that may have been proposed, never serves a read of
// the latest state that its group did not confirm, never waits, and never keeps a
// request past its reply.
package replica
