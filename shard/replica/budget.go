package replica

import "sync/atomic"

// budget bounds what a node has outstanding. What does not fit is refused at
// once; nothing waits for room.
type budget struct {
	count, bytes       atomic.Int64
	countMax, bytesMax int64
}

// take tells whether one more item of n bytes fits, and counts it if so.
func (b *budget) take(n int) bool {
	if b.count.Add(1) > b.countMax {
		b.count.Add(-1)
		return false
	}
	if b.bytes.Add(int64(n)) > b.bytesMax {
		b.give(n)
		return false
	}
	return true
}

func (b *budget) give(n int) {
	b.count.Add(-1)
	b.bytes.Add(-int64(n))
}
