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
	op        *Op
	cmd       shard.Command
	operation client.Operation
	then      func()
	again     bool // another client has sent it before
}

// choose carries out a write under an ID of its caller's.
func (k *worker) choose(o *Op, cmd shard.Command, birth shard.Revision, timeout time.Duration, then func()) {
	l := k.load.cluster.loop
	k.carryOut(&chosen{op: o, cmd: cmd, then: then,
		operation: client.Operation{ID: shard.OpID{Session: shard.Session(l.rand.Uint64() | 1), Sequence: 1}, Birth: birth}}, timeout)
}

// takeUp sends again what a client that has ended had in flight. It is the same
// operation to all: it began with the first attempt, and returns now.
func (k *worker) takeUp(pending []*chosen) {
	for _, c := range pending {
		c.then, c.again = func() {}, true
		k.carryOut(c, k.patience)
	}
}

func (k *worker) carryOut(c *chosen, timeout time.Duration) {
	k.chosen = append(k.chosen, c)
	finish := k.wrote(c.op, c.then)
	k.do(c.cmd, client.DoOptions{Timeout: timeout, Operation: c.operation}, 0, func(res shard.Result, err error) {
		k.chosen = slices.DeleteFunc(k.chosen, func(x *chosen) bool { return x == c })
		if c.again && classify(err) == refused {
			// So much for this client's attempts. Of earlier ones only a success tells.
			err = fmt.Errorf("%w: %w", shard.ErrUndetermined, err)
		}
		finish(res, err)
	})
}
