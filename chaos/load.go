package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/sim"
)

const (
	// slots is how many keys of a range are in use at a time, by all clients of the range.
	slots = 3
	// keyOps is after how many operations a key is left for a new one: the check of a
	// history grows faster than its length.
	keyOps = 80
	// clientsOfRange write and read the keys of one range, so that one range's outage is
	// not that of another one's clients.
	clientsOfRange = 2
	// think is the longest pause between two operations of a client.
	think = 10 * time.Millisecond
	// opPatience is how long a client waits for an operation.
	opPatience = 4 * time.Second
	// connections is how many client libraries share the work.
	connections = 3
)

// load is the clients of a run, and what they saw.
type load struct {
	clients  []*client.Client
	recorder sim.Recorder
	outages  *outages
	ledger   ledger
	seed     uint64
	verdict  *verdict
	started  time.Time
	working  sync.WaitGroup
	stopped  atomic.Bool
	slots    [ranges][slots]slot
	looks    looks

	done, undetermined, refused atomic.Int64 // operations by outcome; a read that failed is refused
}

// slot is a key in use.
type slot struct {
	mu         sync.Mutex
	generation int
	ops        int
	seen       client.KeyValue // what was read of it last
}

// openLoad opens the client libraries.
func openLoad(ctx context.Context, c *cluster, o *outages, seed uint64, started time.Time) (*load, error) {
	l := &load{outages: o, seed: seed, verdict: c.verdict, started: started}
	for range connections {
		opened, err := client.Open(ctx, client.Options{Endpoints: c.endpoints(), CertsDir: c.certs, CertName: chaosClient, DialTimeout: healPatience, Logger: quietLogger()})
		if err != nil {
			l.close()
			return nil, err
		}
		l.clients = append(l.clients, opened)
	}
	return l, nil
}

func (l *load) close() {
	for _, c := range l.clients {
		_ = c.Close()
	}
}

// start sets the clients to work until stop.
func (l *load) start() {
	id := 0
	begin := func(work func(w *worker)) {
		w := &worker{load: l, id: id, client: l.clients[id%len(l.clients)], rnd: rand.New(rand.NewPCG(l.seed, uint64(1000+id)))}
		id++
		l.working.Go(func() { work(w) })
	}
	for where := range ranges {
		for range clientsOfRange {
			begin(func(w *worker) { w.use(where) })
		}
	}
	for k := range ledgerClients {
		begin(func(w *worker) { w.keepLedger(k) })
	}
	begin((*worker).lookBack)
}

// stop returns when the last operation has.
func (l *load) stop() {
	l.stopped.Store(true)
	l.working.Wait()
}

// worker is one client: it has one operation under way at a time.
type worker struct {
	*load
	id      int
	client  *client.Client
	rnd     *rand.Rand
	written int
}

func (w *worker) rest() { time.Sleep(time.Duration(w.rnd.Int64N(int64(think)))) }

// prefix begins the keys of a range. Shards divide the first bytes evenly.
func prefix(where int) string { return string([]byte{byte(where * 256 / ranges)}) }

func registerKey(where, slot, generation int) string {
	return fmt.Sprintf("%sr/%d/%06d", prefix(where), slot, generation)
}

// use works on the keys of a range.
func (w *worker) use(where int) {
	for !w.stopped.Load() {
		i := w.rnd.IntN(slots)
		s := &w.slots[where][i]
		key, seen := s.take(where, i)
		ctx, cancel := context.WithTimeout(context.Background(), opPatience)
		var err error
		switch k := w.rnd.IntN(20); {
		case k < 7:
			err = w.put(ctx, key)
		case k < 9:
			err = w.delete(ctx, key)
		case k < 12:
			err = w.swap(ctx, key, seen)
		default:
			var found client.KeyValue
			if found, err = w.get(ctx, key); err == nil {
				s.saw(found)
			}
		}
		cancel()
		w.count(where, err)
		w.rest()
	}
}

// take gives the key of a slot for one operation.
func (s *slot) take(where, i int) (key string, seen client.KeyValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops++; s.ops > keyOps {
		s.generation, s.ops, s.seen = s.generation+1, 1, client.KeyValue{}
	}
	return registerKey(where, i, s.generation), s.seen
}

func (s *slot) saw(found client.KeyValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = found
}

// count notes how an operation ended.
func (l *load) count(where int, err error) {
	switch {
	case err == nil:
		l.done.Add(1)
		l.outages.completed(where, time.Now())
	case errors.Is(err, shard.ErrUndetermined):
		l.undetermined.Add(1)
	default:
		l.refused.Add(1)
	}
}

// user is a user key as the history names it, and commands do.
func user(key string) string { return string(shard.UserKey([]byte(key))) }

func (w *worker) begin(kind shard.Kind, key, value string) *sim.Op {
	return w.recorder.Begin(&sim.Op{Client: w.id, Kind: kind, Key: user(key), Value: value, At: time.Since(w.started)})
}

// value is a value that nobody else writes.
func (w *worker) value() string {
	w.written++
	return fmt.Sprintf("%d.%d", w.id, w.written)
}

func (w *worker) put(ctx context.Context, key string) (err error) {
	value := w.value()
	o := w.begin(shard.KindPut, key, value)
	o.Rev, err = w.client.Put(ctx, []byte(key), []byte(value))
	w.recorder.End(o, err)
	return err
}

func (w *worker) delete(ctx context.Context, key string) (err error) {
	o := w.begin(shard.KindDelete, key, "")
	o.Rev, err = w.client.Delete(ctx, []byte(key))
	w.recorder.End(o, err)
	return err
}

// get reads a key. That it has no value is no error.
func (w *worker) get(ctx context.Context, key string) (client.KeyValue, error) {
	o := w.begin(shard.KindGet, key, "")
	kv, err := w.client.Get(ctx, []byte(key))
	o.Found, o.Value, o.Rev = err == nil, string(kv.Value), kv.Revision
	w.recorder.End(o, err)
	if errors.Is(err, client.ErrNotFound) {
		err = nil
	}
	return kv, err
}

// swap is a compare-and-swap on what was seen of the key before: often it does not hold
// any more.
func (w *worker) swap(ctx context.Context, key string, seen client.KeyValue) error {
	value := w.value()
	compare, condition := shard.Compare{Kind: shard.CompareAbsent}, client.IfAbsent()
	if seen.Revision != 0 && w.rnd.IntN(2) == 0 {
		compare, condition = shard.Compare{Kind: shard.CompareRevision, Revision: seen.Revision}, client.IfRevision(seen.Revision)
	} else if seen.Revision != 0 {
		compare, condition = shard.Compare{Kind: shard.CompareValue, Value: seen.Value}, client.IfValue(seen.Value)
	}
	full := []byte(user(key))
	compare.Key = full
	c := w.recorder.BeginCall(&sim.Call{Client: w.id, At: time.Since(w.started), Command: shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{compare},
		Then: []shard.BatchOp{{Kind: shard.KindPut, Key: full, Value: []byte(value)}}, Else: []shard.BatchOp{{Kind: shard.KindGet, Key: full}}}})
	res, err := w.client.CompareAndSwap(ctx, []byte(key), condition, []byte(value))
	if err == nil {
		row := shard.Row{Key: full, Revision: res.Current.Revision, Value: res.Current.Value}
		if res.Swapped {
			row = shard.Row{Key: full, Revision: res.Revision}
		}
		c.Result = shard.Result{Found: res.Swapped, Revision: res.Revision, Rows: []shard.Row{row}}
	}
	w.recorder.EndCall(c, err)
	return err
}

// readAll reads every key that was ever used once more.
func (l *load) readAll(ctx context.Context) error {
	type place struct{ where, slot, generation int }
	var places []place
	for where := range ranges {
		for i := range slots {
			for g := range l.slots[where][i].generation + 1 {
				places = append(places, place{where, i, g})
			}
		}
	}
	return inParallel(len(places), func(worker_ int) func(int) error {
		w := &worker{load: l, id: 2000 + worker_, client: l.clients[worker_%len(l.clients)]}
		return func(i int) error {
			p := places[i]
			_, err := w.get(ctx, registerKey(p.where, p.slot, p.generation))
			return err
		}
	})
}
