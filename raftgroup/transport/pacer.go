package transport

import (
	"sync"
	"time"
)

// pacer spreads the bytes of a node's snapshots over time, those that it sends, or those
// that it receives. Large ones wait for their share; small ones, of which a young cluster
// has many and which somebody may be waiting for, go at once and are counted, so that they
// take from what large ones get.
type pacer struct {
	mu   sync.Mutex
	rate int64         // bytes per second
	free time.Duration // when all that was booked has had its time
}

const (
	// paceBurst is how much time that was not used may be made up for.
	paceBurst = 50 * time.Millisecond
	// paceDebtMax bounds what small snapshots take from large ones. A stream that waits
	// longer than the transport's stall would be given up.
	paceDebtMax = time.Second
)

// setRate takes effect with the next booking.
func (p *pacer) setRate(bytesPerSecond int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = max(bytesPerSecond, 1)
}

// book books n bytes of a large snapshot and returns how long to wait before they are sent.
func (p *pacer) book(now time.Duration, n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = max(p.free, now-paceBurst)
	wait := max(p.free-now, 0)
	p.free += time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	return wait
}

// count books bytes of a small snapshot, which are sent at once.
func (p *pacer) count(now time.Duration, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = max(p.free, now-paceBurst)
	if p.free < now+paceDebtMax {
		p.free += time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	}
}
