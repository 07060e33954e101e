package sim

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Workload is a number of clients that write and read a few keys in every way that
// there is, each with several operations at a time, and write down what they saw.
type Workload struct {
	cluster *Cluster
	cfg     WorkloadConfig
	history *History
	clients []*worker
	made    int      // clients so far
	keys    [][]byte // full keys, in order
	written int      // values and markers so far: each is unique
	memory  memory
	started bool
	stopped bool

	Operations                          int // that returned
	Acked, Undetermined, Refused, Reads int // operations by outcome
	Calls                               int // of Acked: batches and delete-ranges
	ReadsAt, Compacted                  int // reads at a revision: answered, and refused as below the floor
}

// worker is one client core and its operations in flight. Each has habits of its
// own: one that only reads notices what those that write have no time for.
type worker struct {
	load    *Workload
	id      int
	env     *Env
	core    *client.Core
	running int // operations in flight

	writePercent int
	retries      int           // see client.CoreConfig
	chosen       []*chosen     // writes in flight whose operation is the caller's own
	plain        bool          // no batches, delete-ranges or reads at a revision
	patience     time.Duration // longest time-out
}

// WorkloadConfig sizes a workload.
type WorkloadConfig struct {
	Clients    int
	Concurrent int           // operations in flight of one client
	Keys       int           // spread over the user keyspace
	ValueBytes int           // longest value
	Think      time.Duration // longest pause between two operations
	Scout      time.Duration // mean pause between two operations of the scout
	Chosen     int           // of eight writes, how many are operations that their client chose; 0: one
	Plain      bool          // nothing but puts, deletes, gets and scans of the latest state
}

// NewWorkload makes the clients. Start sets them to work.
func NewWorkload(c *Cluster, cfg WorkloadConfig) *Workload {
	w := &Workload{cluster: c, cfg: cfg, history: &History{}, memory: memory{loop: c.loop, seen: make(map[string]version)}}
	for i := range cfg.Keys {
		w.keys = append(w.keys, shard.UserKey(fmt.Appendf([]byte{byte(i * 256 / cfg.Keys)}, "key%d", i)))
	}
	for range cfg.Clients {
		w.clients = append(w.clients, w.client())
	}
	return w
}

func (w *Workload) client() *worker {
	l := w.cluster.loop
	w.made++
	name := fmt.Sprintf("c%d", w.made)
	e := l.NewEnv(name, clockExact)
	return &worker{load: w, id: w.made, env: e,
		core: client.NewCore(client.CoreConfig{Env: e, Dialer: &Dialer{net: w.cluster.net, name: name, env: e},
			Endpoints: w.cluster.addresses(), Cluster: w.cluster.ID, Logger: w.cluster.logger(name)}),
		writePercent: []int{5, 50, 90}[l.rand.IntN(3)],
		retries:      []int{0, 0, 1, -1}[l.rand.IntN(4)],
		plain:        w.cfg.Plain || l.rand.IntN(4) == 0,
		patience:     []time.Duration{300 * time.Millisecond, time.Second, 4 * time.Second}[l.rand.IntN(3)]}
}

// Start lets every client work until Stop.
func (w *Workload) Start() {
	w.started = true
	for _, k := range w.clients {
		k.start()
	}
	NewScout(w, w.cfg.Scout).Start()
}

// Replace ends a client as a crash does, and lets a new one take its place.
// What it had in flight never returns, but for the writes that it had noted down
// before it sent them.
func (w *Workload) Replace(i int) {
	old := w.clients[i]
	old.env.Close()
	w.cluster.net.left(old.env)
	w.clients[i] = w.client()
	if w.started && !w.stopped {
		w.clients[i].start()
		w.clients[i].takeUp(old.chosen)
	}
}

// Stop begins no further operation. Those in flight go on until they return.
func (w *Workload) Stop() { w.stopped = true }

// Idle tells whether all operations of clients that are alive have returned.
func (w *Workload) Idle() bool {
	for _, k := range w.clients {
		if k.running > 0 {
			return false
		}
	}
	return true
}

// Close ends the clients.
func (w *Workload) Close() {
	for _, k := range w.clients {
		k.env.Close()
	}
}

func (k *worker) start() {
	for range k.load.cfg.Concurrent {
		k.later()
	}
}

func (k *worker) later() {
	k.load.cluster.net.in(k.env, k.load.cluster.loop.between(0, k.load.cfg.Think), "think", func() {
		if !k.load.stopped {
			k.operate(k.later)
		}
	})
}

// operate draws one operation and carries it out.
func (k *worker) operate(then func()) {
	l := k.load.cluster.loop
	key := k.load.keys[l.rand.IntN(len(k.load.keys))]
	timeout := l.between(k.patience/10, k.patience)
	cancelAt := time.Duration(0)
	if l.chance(10) {
		cancelAt = l.between(0, 20*time.Millisecond)
	}
	if l.rand.IntN(100) < k.writePercent {
		k.change(key, timeout, cancelAt, then)
		return
	}
	if !k.plain && l.rand.IntN(3) == 0 {
		k.lookBack(key, timeout, then)
		return
	}
	if l.rand.IntN(6) > 0 {
		k.get(key, timeout, func(error) { then() })
		return
	}
	k.scan(shard.Command{Kind: shard.KindScan, Start: key, Reverse: l.rand.IntN(2) == 0, Limit: uint64(l.rand.IntN(5))}, timeout, then)
}

// change draws one write of a key and carries it out.
func (k *worker) change(key []byte, timeout, cancelAt time.Duration, then func()) {
	l := k.load.cluster.loop
	kind := l.rand.IntN(16)
	switch {
	case kind < 2:
		k.write(&Op{Kind: shard.KindDelete}, shard.Command{Kind: shard.KindDelete, Key: key}, timeout, cancelAt, then)
	case kind < 6 && !k.plain:
		k.call(k.swap(key), timeout, cancelAt, then)
	case kind < 8 && !k.plain:
		k.call(k.batch(key), timeout, cancelAt, then)
	case kind < 9 && !k.plain:
		k.call(k.deleteRange(key), timeout, cancelAt, then)
	default:
		value := k.load.value(k.id)
		k.write(&Op{Kind: shard.KindPut, Value: value}, shard.Command{Kind: shard.KindPut, Key: key, Value: []byte(value)}, timeout, cancelAt, then)
	}
}

// value is a new value: unique, and of a drawn length.
func (w *Workload) value(id int) string {
	w.written++
	v := fmt.Sprintf("c%d.%d|", id, w.written)
	n := w.cluster.loop.rand.IntN(w.cfg.ValueBytes + 1)
	return v + strings.Repeat("v", max(0, n-len(v)))
}

func (k *worker) write(o *Op, cmd shard.Command, timeout, cancelAt time.Duration, then func()) {
	k.begin(o, cmd.Key)
	if birth, ok := k.mayChoose(); ok {
		k.choose(cmd, birth, timeout, then, func(k *worker, then func()) func(shard.Result, error) { return k.wrote(o, then) })
		return
	}
	k.do(cmd, client.DoOptions{Timeout: timeout}, cancelAt, k.wrote(o, then))
}

// wrote is what becomes of a write's answer.
func (k *worker) wrote(o *Op, then func()) func(shard.Result, error) {
	return func(res shard.Result, err error) {
		how := classify(err)
		switch how {
		case done:
			k.load.Acked++
			o.Rev = res.Revision
			k.load.memory.revision(res.Revision)
			if res.Revision == 0 {
				k.load.cluster.witness.Fail("a write was acknowledged without a revision: %v", o)
			}
		case undetermined:
			k.load.Undetermined++
		default:
			k.load.Refused++
		}
		k.load.history.End(o, how)
		k.event(o, err)
		then()
	}
}

func (k *worker) get(key []byte, timeout time.Duration, then func(error)) {
	o := k.begin(&Op{Kind: shard.KindGet}, key)
	k.do(shard.Command{Kind: shard.KindGet, Key: key}, client.DoOptions{Timeout: timeout}, 0, func(res shard.Result, err error) {
		o.Found, o.Value, o.Rev = res.Found, string(res.Value), res.Revision
		how := refused
		if err == nil {
			how = done
			k.load.Reads++
			if !res.Found {
				o.Value, o.Rev = "", 0
			}
			k.load.memory.saw(o.Key, version{rev: o.Rev, found: o.Found, value: o.Value})
		}
		k.load.history.End(o, how)
		k.event(o, err)
		then(err)
	})
}

// scan reads a page between the command's Start and another drawn key, which says
// of every key that it covers what its value is.
func (k *worker) scan(cmd shard.Command, timeout time.Duration, then func()) {
	other := k.load.keys[k.load.cluster.loop.rand.IntN(len(k.load.keys))]
	span := shard.Span{Start: cmd.Start, End: append(bytes.Clone(other), 0)}
	if bytes.Compare(span.Start, span.End) >= 0 {
		span = shard.Span{Start: other, End: append(bytes.Clone(cmd.Start), 0)}
	}
	cmd.Start, cmd.End = span.Start, span.End
	var ops []*Op
	for _, key := range k.load.keys {
		if span.Contains(key) {
			ops = append(ops, k.begin(&Op{Kind: shard.KindGet}, key))
		}
	}
	k.do(cmd, client.DoOptions{Timeout: timeout}, 0, func(res shard.Result, err error) {
		page := span
		if err == nil {
			k.load.Reads++
			page = k.checkPage(&cmd, &res)
		}
		rows := rowsByKey(&res)
		for _, o := range ops {
			how := refused
			if err == nil && page.Contains([]byte(o.Key)) {
				how = done
				if row := rows[o.Key]; row != nil {
					o.Found, o.Value, o.Rev = true, string(row.Value), row.Revision
				}
			}
			k.load.history.End(o, how)
			if how == done && res.Revision != 0 {
				k.load.history.Saw(&Snapshot{At: res.Revision, Shard: o.Shard, Key: o.Key, Found: o.Found, Value: o.Value, Rev: o.Rev, Client: k.id, Call: o.Call, Time: o.At})
			}
		}
		if err == nil && res.Revision != 0 {
			k.load.memory.revision(res.Revision)
		}
		k.scanned(&cmd, &res, err)
		then()
	})
}

func rowsByKey(res *shard.Result) map[string]*shard.Row {
	rows := make(map[string]*shard.Row, len(res.Rows))
	for i := range res.Rows {
		rows[string(res.Rows[i].Key)] = &res.Rows[i]
	}
	return rows
}

func (k *worker) scanned(cmd *shard.Command, res *shard.Result, err error) {
	k.load.cluster.trace.Detail(k.load.cluster.loop.now, k.env.name, "scan [%s, %s) reverse=%v at %d: %d rows, revision %d, resume %s, %v",
		shard.FormatKey(cmd.Start), shard.FormatKey(cmd.End), cmd.Reverse, cmd.Revision, len(res.Rows), res.Revision, shard.FormatKey(res.Resume), err)
}

// checkPage gives the part of a scan's span that its page covers, and refuses rows
// out of order, outside the page, or more than asked for.
func (k *worker) checkPage(cmd *shard.Command, res *shard.Result) shard.Span {
	page := shard.Span{Start: cmd.Start, End: cmd.End}
	if res.Resume != nil && cmd.Reverse {
		page.Start = res.Resume
	} else if res.Resume != nil {
		page.End = res.Resume
	}
	if cmd.Limit > 0 && uint64(len(res.Rows)) > cmd.Limit {
		k.load.cluster.witness.Fail("a scan of at most %d rows gave %d", cmd.Limit, len(res.Rows))
	}
	for i := range res.Rows {
		row := &res.Rows[i]
		if bytes.Compare(row.Key, page.Start) < 0 || bytes.Compare(row.Key, page.End) >= 0 {
			k.load.cluster.witness.Fail("a scan of [%x, %x) gave row %x, outside its page [%x, %x)", cmd.Start, cmd.End, row.Key, page.Start, page.End)
		}
		if i > 0 && (bytes.Compare(res.Rows[i-1].Key, row.Key) < 0) == cmd.Reverse {
			k.load.cluster.witness.Fail("a scan's rows are out of order: %x, %x, reverse=%v", res.Rows[i-1].Key, row.Key, cmd.Reverse)
		}
	}
	return page
}

func (k *worker) begin(o *Op, key []byte) *Op {
	o.Client, o.Key, o.Shard, o.At = k.id, string(key), k.load.cluster.shardOf(key), k.load.cluster.loop.now
	return k.load.history.Begin(o)
}

// do hands a command to the core, and cancels it at cancelAt if that is not 0.
func (k *worker) do(cmd shard.Command, options client.DoOptions, cancelAt time.Duration, finish func(shard.Result, error)) {
	returned := false
	k.running++
	options.MaxRetries = k.retries
	cancel := k.core.DoWith(cmd, options, func(res shard.Result, err error) {
		if returned {
			k.load.cluster.witness.Fail("an operation of client %d returned twice: %+v", k.id, cmd)
			return
		}
		returned = true
		k.running--
		k.load.Operations++
		k.load.reached(&cmd, err)
		finish(res, err)
	})
	if cancelAt > 0 {
		k.load.cluster.net.in(k.env, cancelAt, "cancel", func() {
			if !returned {
				cancel()
			}
		})
	}
}

func (k *worker) event(o *Op, err error) {
	value := o.Value
	if i := strings.IndexByte(value, '|'); i >= 0 {
		value = value[:i]
	}
	kind := map[shard.Kind]string{shard.KindPut: "put", shard.KindDelete: "delete", shard.KindGet: "get"}[o.Kind]
	k.load.cluster.trace.Detail(k.load.cluster.loop.now, k.env.name, "%s %s %q revision %d, called at %v: %v", kind, shard.FormatKey([]byte(o.Key)), value, o.Rev, o.At, err)
}

// ReadAll reads every key through the first client until it gets an answer, and
// calls then. It is how the end of a run sees what was kept.
func (w *Workload) ReadAll(then func()) {
	k := w.clients[0]
	var read func(i int)
	read = func(i int) {
		if i == len(w.keys) {
			then()
			return
		}
		k.get(w.keys[i], 5*time.Second, func(err error) {
			if err != nil {
				w.cluster.net.in(k.env, 100*time.Millisecond, "again", func() { read(i) })
				return
			}
			read(i + 1)
		})
	}
	w.cluster.net.in(k.env, 0, "read all", func() { read(0) })
}
