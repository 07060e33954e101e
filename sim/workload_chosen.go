package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// chosen is a write whose operation its client has noted down before it was sent,
// so that whoever takes the client's place sends it again: under the same ID.
type chosen struct {
	cmd       shard.Command
	operation client.Operation
	// returned makes what notes the answer that a client gets.
	returned func(k *worker, then func()) func(shard.Result, error)
	again    bool // another client has sent it before
}

// mayChoose draws whether a client chooses the operation of a write, and its birth.
func (k *worker) mayChoose() (birth shard.Revision, ok bool) {
	birth = k.load.memory.newest()
	return birth, birth != 0 && !k.plain && k.load.cluster.loop.rand.IntN(8) < max(k.load.cfg.Chosen, 1)
}

// choose carries out a write under an ID of its caller's.
func (k *worker) choose(cmd shard.Command, birth shard.Revision, timeout time.Duration, then func(), returned func(*worker, func()) func(shard.Result, error)) {
	l := k.load.cluster.loop
	k.carryOut(&chosen{cmd: cmd, returned: returned,
		operation: client.Operation{ID: shard.OpID{Session: shard.Session(l.rand.Uint64() | 1), Sequence: 1}, Birth: birth}}, timeout, then)
}

// takeUp sends again what a client that has ended had in flight. It is the same
// operation to all: it began with the first attempt, and returns now.
func (k *worker) takeUp(pending []*chosen) {
	for _, c := range pending {
		c.again = true
		k.carryOut(c, k.patience, func() {})
	}
}

func (k *worker) carryOut(c *chosen, timeout time.Duration, then func()) {
	k.chosen = append(k.chosen, c)
	finish := c.returned(k, then)
	k.do(c.cmd, client.DoOptions{Timeout: timeout, Operation: c.operation}, 0, func(res shard.Result, err error) {
		k.chosen = slices.DeleteFunc(k.chosen, func(x *chosen) bool { return x == c })
		if c.again && classify(err) == refused {
			// So much for this client's attempts. Of earlier ones only a result tells.
			err = fmt.Errorf("%w: %w", shard.ErrUndetermined, err)
		}
		finish(res, err)
	})
}
