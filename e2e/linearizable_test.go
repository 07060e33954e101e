package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/kiloraft/kiloraft/client"
)

// register is one key: porcupine checks each key's history by itself.
type registerInput struct {
	key   string
	write bool
	value string // "" deletes
}

var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(registerInput).key
			byKey[k] = append(byKey[k], op)
		}
		var out [][]porcupine.Operation
		for _, h := range byKey {
			out = append(out, h)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
}

// recorder runs clients on a few keys and keeps their history.
type recorder struct {
	client *client.Client
	keys   int
	start  time.Time
	stop   atomic.Bool
	wg     sync.WaitGroup

	mu      sync.Mutex
	history []porcupine.Operation
	unknown int
}

func (r *recorder) run(id int) {
	rnd := rand.New(rand.NewPCG(uint64(id), 1))
	for n := 0; !r.stop.Load(); n++ {
		in := registerInput{key: fmt.Sprintf("%c/register", 'a'+rnd.IntN(r.keys))}
		if rnd.IntN(2) == 0 {
			in.write = true
			if rnd.IntN(10) > 0 {
				in.value = fmt.Sprintf("%d-%d", id, n)
			}
		}
		r.one(id, in)
	}
}

func (r *recorder) one(id int, in registerInput) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	op := porcupine.Operation{ClientId: id, Input: in, Call: int64(time.Since(r.start))}
	err := r.perform(ctx, in, &op)
	op.Return = int64(time.Since(r.start))
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
	case in.write:
		// It may take effect at any later time, or never: an operation that
		// returns after everything else allows both.
		op.Return = math.MaxInt64
		r.unknown++
	default:
		return // a failed read says nothing
	}
	r.history = append(r.history, op)
}

func (r *recorder) perform(ctx context.Context, in registerInput, op *porcupine.Operation) (err error) {
	key := []byte(in.key)
	switch {
	case !in.write:
		var kv client.KeyValue
		kv, err = r.client.Get(ctx, key)
		if errors.Is(err, client.ErrNotFound) {
			err = nil
		}
		op.Output = string(kv.Value)
	case in.value == "":
		_, err = r.client.Delete(ctx, key)
	default:
		_, err = r.client.Put(ctx, key, []byte(in.value))
	}
	return err
}

// TestHistoryIsLinearizable runs concurrent clients through kills and leader
// transfers and checks every key's history.
func TestHistoryIsLinearizable(t *testing.T) {
	c := startCluster(t, 3, 8)
	r := &recorder{client: c.client(), keys: 26, start: time.Now()}
	for id := range 12 {
		r.wg.Go(func() { r.run(id) })
	}
	rnd := rand.New(rand.NewPCG(7, 7))
	for round := range 3 {
		for range 6 {
			// A transfer may be refused while a node is catching up; the
			// history is what counts.
			c.run("shard", "transfer-leader", fmt.Sprint(2+rnd.IntN(8)), "--to", fmt.Sprint(1+rnd.IntN(3)))
		}
		victim := c.nodes[round%len(c.nodes)]
		victim.kill()
		time.Sleep(2 * time.Second)
		victim.start()
		c.waitWhole()
	}
	r.stop.Store(true)
	r.wg.Wait()
	if len(r.history) < 2000 {
		t.Fatalf("only %d operations: no history to speak of", len(r.history))
	}
	switch verdict := porcupine.CheckOperationsTimeout(register, r.history, 2*time.Minute); verdict {
	case porcupine.Ok:
		t.Logf("%d operations, %d of unknown outcome: linearizable", len(r.history), r.unknown)
	default:
		t.Fatalf("%d operations, %d of unknown outcome: %v", len(r.history), r.unknown, verdict)
	}
}
