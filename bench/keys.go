package bench

import (
	"encoding/binary"
	"math/rand/v2"
)

// keyBytes is the length of every key.
const keyBytes = 32

// digitsAt is where the decimal number of a key begins.
const digitsAt = keyBytes - 13 // 1e12 keys at most

// keyMaker writes keys. Key i is the same in every run, so that one run can read
// what another has loaded.
type keyMaker struct {
	hashed bool
	buf    [keyBytes]byte
}

func newKeyMaker(d Distribution) *keyMaker {
	k := &keyMaker{hashed: d != Sequential}
	copy(k.buf[:digitsAt], "bench-seq-000000000")
	if k.hashed {
		copy(k.buf[8:digitsAt], "bench-key-0")
	}
	return k
}

// key is the i-th key. The slice is valid until the next call.
func (k *keyMaker) key(i uint64) []byte {
	if k.hashed {
		binary.BigEndian.PutUint64(k.buf[:8], mix(i))
	}
	for p, n := keyBytes-1, i; p >= digitsAt; p, n = p-1, n/10 {
		k.buf[p] = byte('0' + n%10)
	}
	return k.buf[:]
}

// mix spreads consecutive numbers evenly over all numbers, one to one (the
// finalizer of MurmurHash3, applied to i+1 so that 0 does not stay 0).
func mix(i uint64) uint64 {
	i++
	i ^= i >> 33
	i *= 0xff51afd7ed558ccd
	i ^= i >> 33
	i *= 0xc4ceb9fe1a85ec53
	return i ^ i>>33
}

// values hands out pieces of one random buffer: they differ from each other and
// hardly compress, and cost nothing to make. They are read only.
type values struct {
	buf  []byte
	size int
}

// valueStarts is how many different pieces there are.
const valueStarts = 64 << 10

func newValues(size int, seed uint64) values {
	v := values{buf: make([]byte, size+valueStarts), size: size}
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range v.buf {
		v.buf[i] = byte(r.Uint32())
	}
	return v
}

func (v values) pick(r *rand.Rand) []byte {
	at := r.Uint32() % valueStarts
	return v.buf[at : int(at)+v.size : int(at)+v.size]
}
