package fake

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// KV is a meta shard in memory. Commands take effect after half of Latency and
// answer after the other half.
type KV struct {
	Env     env.Env
	Latency time.Duration
	// PageRows bounds a scan's page; 0: no bound.
	PageRows int
	// Fault, if set, decides a command's fate before it takes effect: an error,
	// and whether the command takes effect nevertheless (its answer is lost).
	Fault func(cmd *shard.Command) (err error, applied bool)
	// Meanwhile, if set, runs just before a command takes effect.
	Meanwhile func(cmd *shard.Command)

	Commands int // that took effect or failed
	Reads    int
	Writes   int
	Busy     int // commands outstanding
	BusyMax  int

	records map[string][]byte
	queue   env.Queue
}

// NewKV makes an empty one.
func NewKV(e env.Env, latency time.Duration) *KV {
	return &KV{Env: e, Latency: latency, records: map[string][]byte{}, queue: e.NewQueue("kv")}
}

// Put writes a record at once; Get reads one at once.
func (k *KV) Put(key, value []byte) { k.records[string(key)] = bytes.Clone(value) }
func (k *KV) Get(key []byte) []byte { return k.records[string(key)] }
func (k *KV) Delete(key []byte)     { delete(k.records, string(key)) }
func (k *KV) Len() int              { return len(k.records) }
func (k *KV) Has(key []byte) bool   { _, ok := k.records[string(key)]; return ok }
func (k *KV) after(step func())     { k.Env.AfterFunc(k.Latency/2, k.queue, step) }
func (k *KV) sorted() (keys []string) {
	for key := range k.records { //order-free: sorted below
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Do implements catalog.KV.
func (k *KV) Do(cmd shard.Command, timeout time.Duration, done func(shard.Result, error)) func() {
	k.Busy++
	k.BusyMax = max(k.BusyMax, k.Busy)
	k.after(func() {
		if k.Meanwhile != nil {
			k.Meanwhile(&cmd)
		}
		k.Commands++
		var res shard.Result
		err := cmd.Check()
		applied := err == nil
		if err == nil && k.Fault != nil {
			err, applied = k.Fault(&cmd)
			applied = applied || err == nil
		}
		if applied {
			res = k.apply(&cmd)
		}
		k.after(func() {
			k.Busy--
			if err != nil {
				res = shard.Result{}
			}
			done(res, err)
		})
	})
	return func() {}
}

func (k *KV) apply(cmd *shard.Command) (res shard.Result) {
	if cmd.Kind.Write() {
		k.Writes++
	} else {
		k.Reads++
	}
	old, present := k.records[string(cmd.Key)]
	switch cmd.Kind {
	case shard.KindGet:
		return shard.Result{Found: present, Value: bytes.Clone(old)}
	case shard.KindPut:
		k.Put(cmd.Key, cmd.Value)
	case shard.KindIncrement:
		var n uint64
		if present {
			n = binary.BigEndian.Uint64(old)
		}
		value := binary.BigEndian.AppendUint64(nil, n+cmd.Delta)
		k.Put(cmd.Key, value)
		return shard.Result{Value: value}
	case shard.KindCompareAndPut:
		holds := present && bytes.Equal(old, cmd.Expect)
		if cmd.ExpectAbsent {
			holds = !present
		}
		if !holds {
			return shard.Result{Value: bytes.Clone(old)}
		}
		if cmd.Remove {
			k.Delete(cmd.Key)
		} else {
			k.Put(cmd.Key, cmd.Value)
		}
		return shard.Result{Found: true}
	case shard.KindScan:
		for _, key := range k.sorted() {
			if key < string(cmd.Start) || key >= string(cmd.End) {
				continue
			}
			if k.PageRows > 0 && len(res.Rows) == k.PageRows {
				res.Resume = []byte(key)
				break
			}
			res.Rows = append(res.Rows, shard.Row{Key: []byte(key), Value: bytes.Clone(k.records[key])})
		}
	}
	return res
}
