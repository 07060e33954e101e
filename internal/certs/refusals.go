package certs

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// Refusals logs who was refused and why, up to refusalsLogged in each
// refusalsEvery, and counts the others: whoever can connect can be refused as
// often as it likes. It is safe for concurrent use.
type Refusals struct {
	Log *slog.Logger

	mu     sync.Mutex
	began  time.Time // of the present period
	logged int
	more   int
}

const (
	refusalsEvery  = 10 * time.Second
	refusalsLogged = 20
)

// Say logs one refusal.
func (r *Refusals) Say(from net.Addr, reason string) {
	r.mu.Lock()
	now := time.Now()
	var skipped int
	if now.Sub(r.began) >= refusalsEvery {
		skipped = r.more
		r.began, r.logged, r.more = now, 0, 0
	}
	quiet := r.logged >= refusalsLogged
	if quiet {
		r.more++
	} else {
		r.logged++
	}
	r.mu.Unlock()
	if skipped > 0 {
		r.Log.Warn("more was refused than logged", "count", skipped)
	}
	if !quiet {
		r.Log.Warn("refused", "from", from, "reason", reason)
	}
}
