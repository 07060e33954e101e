package env

import "time"

// Env is everything that code below package node may ask of the world.
// All methods are safe for concurrent use.
type Env interface {
	// Now is the time on a monotonic clock that counts suspend, since an
	// arbitrary origin that is fixed for the life of the process. It is not
	// related to wall-clock time and means nothing to another process.
	Now() time.Duration

	// AfterFunc submits step to q once d has passed. A negative d counts as 0.
	// The step may run although Stop was called, when it was already queued:
	// steps check their own state.
	AfterFunc(d time.Duration, q Queue, step func()) Timer

	// Uint64 is a uniformly distributed random number. It is good enough for
	// jitter and identifiers; it is not a source of secrets.
	Uint64() uint64

	// NewQueue makes a queue whose steps run one at a time, in the order in
	// which they were submitted. name appears in profiles and traces.
	// Queues live as long as the environment: make few of them, at start.
	NewQueue(name string) Queue

	// NewPool makes a queue whose steps run up to workers at once, in no
	// particular order: for work that may touch a disk and is independent.
	NewPool(name string, workers int) Queue
}

// Queue runs steps. A step runs, returns, and reports by a callback; it never
// waits for another step or goroutine. A queue itself is unbounded: whoever
// submits bounds what it has outstanding.
type Queue interface {
	// Submit arranges for step to run, and returns at once. After the
	// environment was closed it does nothing.
	Submit(step func())
}

// Timer is a pending AfterFunc.
type Timer interface {
	// Stop prevents the step from being submitted and tells whether it did.
	Stop() bool
}
