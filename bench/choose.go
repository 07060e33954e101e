package bench

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// chooser picks the number of the next key.
type chooser interface {
	next(r *rand.Rand) uint64
}

// newChooser makes the chooser that all clients of a run share.
func newChooser(d Distribution, keys uint64) chooser {
	switch d {
	case Zipfian:
		return newZipf(keys)
	case Sequential:
		return &sequence{keys: keys}
	}
	return uniform(keys)
}

type uniform uint64

func (u uniform) next(r *rand.Rand) uint64 { return r.Uint64N(uint64(u)) }

type sequence struct {
	keys uint64
	last atomic.Uint64
}

func (s *sequence) next(*rand.Rand) uint64 { return (s.last.Add(1) - 1) % s.keys }

// zipfTheta is YCSB's skew. math/rand's Zipf needs one above 1.
const zipfTheta = 0.99

// zipf chooses rank k (from 0) in proportion to (k+1)^-theta, by the rejection
// free inversion of Gray et al., "Quickly generating billion-record synthetic
// databases", SIGMOD 1994. It is read only after it was made.
type zipf struct {
	keys              uint64
	zetan, alpha, eta float64
	half              float64 // 1 + 0.5^theta
}

func newZipf(keys uint64) *zipf {
	zeta2 := zeta(min(keys, 2))
	z := &zipf{keys: keys, zetan: zeta(keys), alpha: 1 / (1 - zipfTheta), half: 1 + math.Pow(0.5, zipfTheta)}
	z.eta = (1 - math.Pow(2/float64(keys), 1-zipfTheta)) / (1 - zeta2/z.zetan)
	return z
}

func (z *zipf) next(r *rand.Rand) uint64 {
	u := r.Float64()
	switch uz := u * z.zetan; {
	case uz < 1 || z.keys == 1:
		return 0
	case uz < z.half || z.keys == 2:
		return 1
	}
	return min(uint64(float64(z.keys)*math.Pow(z.eta*u-z.eta+1, z.alpha)), z.keys-1)
}

// zetaExact is up to where zeta adds terms; the rest is its integral, which by
// then is exact to many digits.
const zetaExact = 1 << 20

// zeta is the sum of k^-theta for k from 1 to n.
func zeta(n uint64) float64 {
	var sum float64
	for k := uint64(1); k <= min(n, zetaExact); k++ {
		sum += math.Pow(float64(k), -zipfTheta)
	}
	if n > zetaExact {
		const e = 1 - zipfTheta
		sum += (math.Pow(float64(n)+0.5, e) - math.Pow(zetaExact+0.5, e)) / e
	}
	return sum
}
