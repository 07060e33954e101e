package catalog

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// A counter's value is the last ID that was handed out, in 8 bytes, big endian:
// what the increment command keeps and answers with.
const (
	nodeCounter  = "id/node"
	opCounter    = "id/operation"
	shardCounter = "id/shard"
)

func counterKey(name string) []byte {
	return append([]byte{shard.SystemKeyspace}, name...)
}

func encodeCounter(last uint64) []byte { return binary.BigEndian.AppendUint64(nil, last) }

func decodeCounter(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: a counter of %d bytes", shard.ErrMalformed, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// AllocateNode hands out a node ID that nobody else ever has. An attempt whose
// answer was lost spends an ID.
func (c *Catalog) AllocateNode(done func(shard.NodeID, error)) {
	c.allocate(nodeCounter, "a node ID", func(id uint64, err error) { done(shard.NodeID(id), err) })
}

// AllocateShard hands out a shard ID that no other shard ever has. An attempt whose
// answer was lost spends an ID.
func (c *Catalog) AllocateShard(done func(shard.ID, error)) {
	c.allocate(shardCounter, "a shard ID", func(id uint64, err error) { done(shard.ID(id), err) })
}

// allocate hands out the next ID of a counter.
func (c *Catalog) allocate(counter, what string, done func(uint64, error)) {
	o := &operation{c: c, what: "allocating " + what, end: func(err error) { done(0, err) }}
	o.again = func() {
		c.do(shard.Command{Kind: shard.KindIncrement, Key: counterKey(counter), Delta: 1}, func(res shard.Result, err error) {
			var last uint64
			if err == nil {
				last, err = decodeCounter(res.Value)
			}
			if err != nil {
				o.failed(err)
				return
			}
			done(last, nil)
		})
	}
	o.again()
}
