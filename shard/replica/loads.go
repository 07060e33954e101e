package replica

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// loads turns the counts of a store's replicas into rates and samples, once a second,
// and finds where the shards that are led here would be split. It looks at
// those alone that are asked for anything; while there are none it has no timer.
type loads struct {
	u     *upkeep
	limit atomic.Int64 // requests per second that a shard may have; 0: any number

	mu      sync.Mutex
	woken   []*Replica // since the last look
	ticking bool       // a timer is armed, or about to be

	// Of the upkeep's queue.
	watched []*watched // in order of shard
	looked  time.Duration
	timer   env.Timer // nil: none yet
}

const (
	loadInterval = time.Second
	// loadDecay is the time in which what was counted loses all but 1/e of its weight.
	loadDecay = 4 * time.Second
	// windowTime is the length of a sampling window. A shard is to be split when its load was
	// too much in windowsKept of them in a row: a load that does not last for these ten
	// seconds is over before a split, and the move after it, can help. They begin anew with each
	// change of the span, so that what a split has done shows before the next one.
	windowTime  = 2 * time.Second
	windowsKept = 5
	windowsLate = 3 // of them: the later half
	// Keys are sampled of sampledMax replicas at most, the busiest that this node leads, and
	// of none with less than sampledMin requests per second. So the memory for it is bounded:
	// the windows of one take 70 KiB if keys are short, and 0.8 MiB if all are spans of long ones.
	sampledMax = 64
	sampledMin = 5.0
	// idleBelow is the rate per second from which on a replica is not looked at any more.
	idleBelow = 0.05
)

// SetSplitLoad sets how many requests per second a shard may have before its leader
// wishes that it be split; 0 or less: any number.
func (s *Store) SetSplitLoad(requestsPerSecond int64) {
	s.upkeep.loads.limit.Store(max(requestsPerSecond, 0))
}

// wake has r looked at from now on. It is called by the request that finds it asleep.
func (k *loads) wake(r *Replica) {
	k.mu.Lock()
	k.woken = append(k.woken, r)
	start := !k.ticking
	k.ticking = true
	k.mu.Unlock()
	if start {
		k.u.queue.Submit(k.start)
	}
}

func (k *loads) start() {
	k.looked = k.u.store.cfg.Env.Now()
	k.arm()
}

func (k *loads) arm() {
	if !k.u.closed.Load() {
		k.timer = k.u.store.cfg.Env.AfterFunc(loadInterval, k.u.queue, k.tick)
	}
}

func (k *loads) stop() {
	if k.timer != nil {
		k.timer.Stop()
	}
}

// tick looks at all replicas that are asked for anything.
func (k *loads) tick() {
	if k.u.closed.Load() {
		return
	}
	now := k.u.store.cfg.Env.Now()
	passed := now - k.looked
	k.looked = now
	k.admit()
	for _, w := range k.watched {
		w.count(passed)
	}
	k.choose(now)
	for _, w := range k.watched {
		w.look(now, float64(k.limit.Load()))
	}
	k.u.sizes.look(k.replicas())
	if k.dismiss() {
		k.arm()
	}
}

// admit takes in those that have woken.
func (k *loads) admit() {
	k.mu.Lock()
	woken := k.woken
	k.woken = nil
	k.mu.Unlock()
	for _, r := range woken {
		k.watched = append(k.watched, &watched{r: r, counted: r.load.asleep})
	}
	slices.SortFunc(k.watched, func(a, b *watched) int { return cmp.Compare(a.r.id, b.r.id) })
}

// dismiss lets those go that nothing is asked of any more, and tells whether there
// are others.
func (k *loads) dismiss() bool {
	k.watched = slices.DeleteFunc(k.watched, func(w *watched) bool { return w.idle() })
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ticking = len(k.watched) > 0 || len(k.woken) > 0
	return k.ticking
}

func (k *loads) replicas() []*Replica {
	all := make([]*Replica, 0, len(k.watched))
	for _, w := range k.watched {
		all = append(all, w.r)
	}
	return all
}

// choose has keys sampled of the busiest replicas that lead, and of no others.
func (k *loads) choose(now time.Duration) {
	var busy []*watched
	for _, w := range k.watched {
		if w.r.splits() && w.load.requests() >= sampledMin {
			busy = append(busy, w)
		} else {
			w.rest()
		}
	}
	slices.SortStableFunc(busy, func(a, b *watched) int { return cmp.Compare(b.load.requests(), a.load.requests()) })
	for i, w := range busy {
		if i < sampledMax {
			w.sample(now)
		} else {
			w.rest()
		}
	}
}
