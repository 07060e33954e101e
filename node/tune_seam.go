package node

import "time"

// untuned stands for a store that no setting reaches.
type untuned struct{}

func (untuned) SetRetention(time.Duration) {}
func (untuned) SetDropRate(int64)          {}

// tunedBy is what settings change on this node.
func tunedBy(store any) tunable {
	if t, ok := store.(tunable); ok {
		return t
	}
	return untuned{}
}
