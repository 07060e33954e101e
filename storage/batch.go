package storage

import (
	"bytes"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"

	"github.com/kiloraft/kiloraft/shard"
)

// Batch collects writes, which become visible and durable together. Later
// writes of a key win over earlier ones, range deletions included. Keys and
// values are copied. Not safe for concurrent use.
type Batch struct {
	p *pebble.Batch // nil once consumed
	// appended are the runs of entries that the batch makes readable from the
	// disk: only then may the entry cache drop them.
	appended []cachedRun
}

// NewBatch makes an empty batch. It must be committed or closed.
func (e *Engine) NewBatch() *Batch { return &Batch{p: e.db.NewBatch()} }

// Empty tells whether nothing was written to b.
func (b *Batch) Empty() bool { return b.p.Empty() }

// Bytes is the size of b in the WAL.
func (b *Batch) Bytes() int { return b.p.Len() }

// Mark is a place in a batch to which it can be rolled back.
type Mark struct {
	bytes int
	count uint32
}

// Mark notes how much was written to b so far.
func (b *Batch) Mark() Mark { return Mark{bytes: b.p.Len(), count: b.p.Count()} }

// RollBack discards what was written since m, which is a mark of b. Log appends
// cannot be rolled back: a Log has taken them in already.
func (b *Batch) RollBack(m Mark) {
	if len(b.appended) > 0 {
		panic("storage: a batch with log entries is rolled back")
	}
	if b.p.Len() == m.bytes {
		return
	}
	// A batch's representation begins with 8 bytes of sequence number and 4 bytes
	// that count its records.
	kept := bytes.Clone(b.p.Repr()[:m.bytes])
	binary.LittleEndian.PutUint32(kept[8:], m.count)
	must(b.p.SetRepr(kept))
}

// VersionsSince calls each for every version that was written since m, a mark of
// b, in the order of the writes. Keys and values alias b: they stay as they are
// until it is committed, rolled back or closed.
func (b *Batch) VersionsSince(m Mark, each func(key []byte, rev shard.Revision, h VersionHeader, value []byte)) {
	if b.p.Len() == m.bytes {
		return
	}
	r := batchrepr.Reader(b.p.Repr()[m.bytes:])
	for {
		kind, k, record, ok, err := r.Next()
		must(err)
		if !ok {
			return
		}
		if kind != pebble.InternalKeyKindSet || len(k) == 0 || k[0] != dataPrefix {
			continue
		}
		key, rev, err := parseDataKey(k)
		must(err)
		if rev == 0 {
			continue
		}
		h, value, err := decodeVersion(record)
		must(err)
		each(key, rev, h, value)
	}
}

// Close discards a batch that was not committed. It is harmless after a commit.
// A Log that staged something in it no longer agrees with the store: Release it
// and open it again.
func (b *Batch) Close() {
	if b.p != nil {
		b.take().Close()
	}
}

// take consumes b.
func (b *Batch) take() *pebble.Batch {
	p := b.p
	if p == nil {
		panic("storage: a batch is used after it was committed or closed")
	}
	b.p = nil
	return p
}

// committed hands the entries that b made readable to the cache's budget.
func (b *Batch) committed() {
	for _, run := range b.appended {
		run.log.e.recent.admit(run)
	}
	b.appended = nil
}

// Errors of a Pebble batch that is neither indexed nor full are impossible; one
// is a programmer's error.
func must(err error) {
	if err != nil {
		panic("storage: batch: " + err.Error())
	}
}

func (b *Batch) set(key, value []byte)         { must(b.p.Set(key, value, nil)) }
func (b *Batch) delete(key []byte)             { must(b.p.Delete(key, nil)) }
func (b *Batch) deleteRange(start, end []byte) { must(b.p.DeleteRange(start, end, nil)) }

// setDeferred reserves room for a key and a value, to be filled in place and
// then finished.
func (b *Batch) setDeferred(keyLen, valueLen int) *pebble.DeferredBatchOp {
	return b.p.SetDeferred(keyLen, valueLen)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func putUint64(b []byte, v uint64) { binary.BigEndian.PutUint64(b, v) }
