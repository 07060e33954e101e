// Package prod is the real world behind internal/env: goroutines that run
// steps, the machine's monotonic clock, its timers and its randomness.
//
// It is imported by package server and by the client library's blocking facade
// alone; package node and everything below it take an env.Env and never learn
// which one.
//
// The caller makes one Env per process or client, makes its queues at start,
// and calls Close at the end, from a goroutine that is not one of the queues'
// own. A step that panics ends the process: a half-run step leaves state that
// nothing may build on.
//
// The package never waits on behalf of a step, never drops a step before Close,
// and never bounds what is submitted: whoever submits bounds what it has
// outstanding.
package prod
