package replica

import (
	"bytes"
	"math"
	"slices"
	"time"
)

// watched is a replica that is asked for something. It is of the upkeep's queue.
type watched struct {
	r       *Replica
	counted counts
	load    Load

	// While keys are sampled.
	version uint64        // of the epoch that all of this is of
	opened  time.Duration // the window
	before  uint64        // requests until then
	windows []window      // that are complete, the oldest first
	at      []byte        // where the load falls into halves, if it is too much
	refusal string        // why nowhere
}

// window is a complete one.
type window struct {
	drawn    []asked
	requests uint64
	time     time.Duration
}

// seen is what others are told of a replica's load; it does not change.
type seen struct {
	load    Load
	version uint64 // of the epoch that the rest is of
	at      []byte
	refusal string
}

// count turns what was counted since the last look into rates.
func (w *watched) count(passed time.Duration) {
	if passed <= 0 {
		return
	}
	now := w.r.load.counts()
	share := 1 - math.Exp(-passed.Seconds()/loadDecay.Seconds())
	follow := func(rate *float64, now, then uint64) { *rate += (float64(now-then)/passed.Seconds() - *rate) * share }
	follow(&w.load.Reads, now.reads, w.counted.reads)
	follow(&w.load.Writes, now.writes, w.counted.writes)
	follow(&w.load.BytesWritten, now.bytesWritten, w.counted.bytesWritten)
	w.counted = now
}

// sample begins to sample keys, and begins anew if the shard's span is another one.
func (w *watched) sample(now time.Duration) {
	l := &w.r.load
	version := w.r.descriptor.Load().Epoch.Version
	if l.sampler.Load() != nil && w.version == version {
		return
	}
	w.rest()
	w.version, w.opened, w.before = version, now, w.counted.requests()
	l.sampler.Store(newSampler(w.r.store.cfg.Env.Uint64()))
}

// rest ends sampling, and forgets what was found.
func (w *watched) rest() {
	w.r.load.sampler.Store(nil)
	w.windows, w.at, w.refusal, w.load.Hot = nil, nil, "", nil
}

// look ends the window when its time is over, judges what the last ones hold, and
// tells what is known.
func (w *watched) look(now time.Duration, limit float64) {
	if s := w.r.load.sampler.Load(); s != nil && now-w.opened >= windowTime {
		w.turn(s, now)
		w.judge(limit)
	}
	w.r.load.seen.Store(&seen{load: w.load, version: w.version, at: w.at, refusal: w.refusal})
}

// turn begins the next window.
func (w *watched) turn(s *sampler, now time.Duration) {
	var spare []asked
	if len(w.windows) == windowsKept {
		spare = w.windows[0].drawn
		w.windows = w.windows[:copy(w.windows, w.windows[1:])]
	}
	requests := w.counted.requests()
	w.windows = append(w.windows, window{drawn: s.turn(spare), requests: requests - w.before, time: now - w.opened})
	w.opened, w.before = now, requests
}

// judge finds the hot keys, and the key to split at if the load was too much in all
// windows.
func (w *watched) judge(limit float64) {
	sample, seconds := w.sampled()
	w.load.Hot = hotKeys(sample, seconds)
	before := w.at != nil || w.refusal != ""
	w.at, w.refusal = nil, ""
	if limit > 0 && len(w.windows) == windowsKept && w.slowest() >= limit {
		at, refusal := halve(sample, w.r.descriptor.Load().Span)
		w.at, w.refusal = bytes.Clone(at), refusal // the windows' memory is used again
		if !before {
			w.r.store.cfg.Logger.Info("a shard has too much load", "shard", uint64(w.r.id), "requests_per_second", int(w.load.requests()),
				"split_at", keyText(w.at), "refusal", refusal)
		}
	}
}

// sampled is what was drawn in all complete windows, in order of start, and how long
// they were.
func (w *watched) sampled() (sample []sampled, seconds float64) {
	sample = make([]sampled, 0, windowsKept*windowSample)
	for i := range w.windows {
		x := &w.windows[i]
		seconds += x.time.Seconds()
		for _, a := range x.drawn {
			sample = append(sample, sampled{asked: a, weight: float64(x.requests) / float64(len(x.drawn)), late: i >= windowsKept-windowsLate})
		}
	}
	slices.SortFunc(sample, func(a, b sampled) int { return bytes.Compare(a.start, b.start) }) // once for all who sort
	return sample, seconds
}

// slowest is the rate of the window with the fewest requests per second.
func (w *watched) slowest() float64 {
	slowest := math.Inf(1)
	for i := range w.windows {
		x := &w.windows[i]
		slowest = min(slowest, float64(x.requests)/x.time.Seconds())
	}
	return slowest
}

// idle tells whether the replica may sleep, and puts it to sleep.
func (w *watched) idle() bool {
	if w.load.requests() >= idleBelow && !w.r.hasStopped() {
		return false
	}
	w.rest()
	l := &w.r.load
	l.asleep = w.counted // a request that still finds it awake counts for the next time
	l.seen.Store(nil)
	l.awake.Store(false)
	return true
}
