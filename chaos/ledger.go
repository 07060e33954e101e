package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// ledgerClients each write keys that nobody else writes, each key once, all over the ranges.
const ledgerClients = 4

// ledger is what its clients were told: of each client, of each of its keys in turn.
// A client writes its own part only; it is read when all have stopped.
type ledger struct {
	entries [ledgerClients][]entry
	missing int
}

// entry is one key's fate. It has a revision if the write was acknowledged.
type entry struct {
	revision     shard.Revision
	undetermined bool
}

func ledgerKey(k, n int) string { return fmt.Sprintf("%sl/%d/%06d", prefix(n%ranges), k, n) }

// ledgerValue is the value of a key: some hundred bytes to some thousand, so that there is
// something to be sent when a replica moves.
func ledgerValue(key string, k, n int) []byte {
	size := 256 + rand.New(rand.NewPCG(uint64(k), uint64(n))).IntN(4<<10)
	return bytes.Repeat([]byte(key+"|"), 1+size/len(key))
}

// keepLedger writes one key after the other.
func (w *worker) keepLedger(k int) {
	for n := 0; !w.stopped.Load(); n++ {
		key := ledgerKey(k, n)
		ctx, cancel := context.WithTimeout(context.Background(), opPatience)
		rev, err := w.client.Put(ctx, []byte(key), ledgerValue(key, k, n))
		cancel()
		w.ledger.entries[k] = append(w.ledger.entries[k], entry{rev, errors.Is(err, shard.ErrUndetermined)})
		w.count(n%ranges, err)
		w.rest()
		time.Sleep(think)
	}
}

// count is how many writes there were, and how many were acknowledged.
func (l *ledger) count() (all, acknowledged int) {
	for _, entries := range l.entries {
		all += len(entries)
		for _, e := range entries {
			if e.revision != 0 {
				acknowledged++
			}
		}
	}
	return all, acknowledged
}

// audit compares what the cluster holds with the ledger.
func (l *load) audit(ctx context.Context) error {
	held := map[string]client.KeyValue{}
	for where := range ranges {
		start := []byte(prefix(where) + "l/")
		for kv, err := range l.clients[0].Scan(ctx, client.ScanOptions{Start: start, End: append(bytes.Clone(start), 0xff), PageRows: 500}) {
			if err != nil {
				return err
			}
			kv.Key = bytes.Clone(kv.Key)
			held[string(kv.Key)] = kv
		}
	}
	l.ledger.compare(held, l.verdict)
	return nil
}

// compare finds fault with what is held, which it uses up.
func (l *ledger) compare(held map[string]client.KeyValue, v *verdict) {
	for k, entries := range l.entries {
		for n, e := range entries {
			key := ledgerKey(k, n)
			kv, there := held[key]
			delete(held, key)
			switch {
			case e.revision != 0 && !there:
				l.missing++
				v.fail("an acknowledged write is lost: %q of revision %d", key, e.revision)
			case e.revision != 0 && kv.Revision != e.revision:
				v.fail("%q was acknowledged with revision %d and has %d", key, e.revision, kv.Revision)
			case e.revision == 0 && !e.undetermined && there:
				v.fail("a write that was refused took effect: %q has revision %d", key, kv.Revision)
			case there && !bytes.Equal(kv.Value, ledgerValue(key, k, n)):
				v.fail("%q has a value of %d bytes that nobody wrote", key, len(kv.Value))
			}
		}
	}
	for key := range held {
		v.fail("the cluster holds %q, which nobody wrote", key)
	}
}
