// Package env is the interface between Kiloraft's rooms and the world: time,
// randomness and execution. Networks and disks have interfaces of their own
// (raftgroup.Transport, client.Dialer, vfs.FS).
//
// Below package node, Kiloraft's code consists of steps. A step is a function
// that runs and returns; it takes short locks, but never waits for another
// goroutine, a timer or the network. It reports by a callback or by submitting
// another step. In production, package internal/env/prod runs steps on real
// goroutines. In a simulation, one seeded event loop runs all steps of a whole
// cluster on one goroutine, so that a run can be repeated from its seed.
//
// The rule is kept by a test (internal/lint) that forbids the go statement,
// select, time.Now, math/rand, net and os in those rooms.
package env
