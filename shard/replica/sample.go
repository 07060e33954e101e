package replica

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kiloraft/kiloraft/shard"
)

// sampler draws windowSample of the requests to one replica in each window, each
// request as likely as any other, however many there are: a reservoir, with Vitter's
// algorithm L, which tells beforehand how many requests to let pass. So a request that
// is not drawn costs one subtraction.
//
// What is counted down is not exact while requests race each other; a few are passed
// over then, whatever their keys.
type sampler struct {
	until atomic.Int64 // the requests until one is drawn; that one finds 0

	mu     sync.Mutex
	random uint64
	w      float64 // as algorithm L has it: the largest of windowSample random numbers in a row, and falling
	drawn  []asked // of this window
}

const (
	windowSample = 128
	// sampledBytesMax is how much of a key is kept. Nothing is wrong with the balance of
	// a key that was cut off: exactly the keys above it are counted there. Keys that are
	// alike so far are taken for one.
	sampledBytesMax = 512
)

func newSampler(seed uint64) *sampler {
	s := &sampler{random: seed, w: 1, drawn: make([]asked, 0, windowSample)}
	s.until.Store(1)
	return s
}

// due tells whether this request is to be drawn.
func (s *sampler) due() bool { return s.until.Add(-1) == 0 }

// draw takes the keys of a request into the sample.
func (s *sampler) draw(start, end []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	into := len(s.drawn)
	if into < windowSample {
		s.drawn = s.drawn[:into+1] // with the memory of an earlier window's
	} else {
		into = int(s.float() * windowSample)
	}
	d := &s.drawn[into]
	d.start, d.end = append(d.start[:0], cutOff(start)...), d.end[:0]
	if end = cutOff(end); bytes.Compare(d.start, end) < 0 {
		d.end = append(d.end, end...)
	}
	s.until.Store(s.gap())
}

// gap is how many requests from now on the next one is that is drawn.
func (s *sampler) gap() int64 {
	if len(s.drawn) < windowSample {
		return 1
	}
	s.w *= math.Exp(math.Log(s.float()) / windowSample)
	const most = 1 << 40 // more than there are in a window
	return 1 + int64(min(math.Log(s.float())/math.Log1p(-s.w), most))
}

// turn ends a window and begins the next one in the memory of spare, which is empty or an
// earlier window's that nobody needs any more.
func (s *sampler) turn(spare []asked) []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	done := s.drawn
	s.drawn, s.w = slices.Grow(spare[:0], windowSample), 1
	s.until.Store(1)
	return done
}

// float is a random number between 0 and 1, and neither: splitmix64.
func (s *sampler) float() float64 {
	s.random += 0x9e3779b97f4a7c15
	z := s.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (float64((z^z>>31)>>12) + 0.5) / (1 << 52)
}

func cutOff(key []byte) []byte { return key[:min(len(key), sampledBytesMax)] }

// extent are the keys that a command is about: start alone if end is
// nil. Of a scan
// they are those that the page which was read covers, and not all that its caller wants to
// read in the end.
func extent(c *shard.Command, resume []byte) (start, end []byte) {
	switch c.Kind {
	case shard.KindScan:
		switch {
		case resume == nil:
		case c.Reverse:
			return resume, c.End
		default:
			return c.Start, resume
		}
		return c.Start, c.End
	case shard.KindDeleteRange:
		return c.Start, c.End
	case shard.KindBatch:
		return batchExtent(c)
	}
	return c.Key, nil
}

// batchExtent is from the first to the last key of a batch, which no split can leave
// whole that comes between them.
func batchExtent(c *shard.Command) (first, last []byte) {
	each := func(key []byte) {
		if first == nil || bytes.Compare(key, first) < 0 {
			first = key
		}
		if last == nil || bytes.Compare(key, last) > 0 {
			last = key
		}
	}
	for i := range c.Compares {
		each(c.Compares[i].Key)
	}
	for _, ops := range [...][]shard.BatchOp{c.Then, c.Else} {
		for i := range ops {
			each(ops[i].Key)
		}
	}
	if bytes.Equal(first, last) {
		return first, nil
	}
	return first, append(bytes.Clone(last), 0)
}
