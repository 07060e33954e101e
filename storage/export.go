package storage

import (
	"errors"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/shard"
)

// Snapshot is a point-in-time view of a whole replica, for sending. It stays
// consistent while the engine moves on: it sees by sequence number. An installation
// over what it is of ends it: what begins to read data after that fails with
// ErrReplaced, what has begun goes on. Safe to open on the group's turn (constant
// time) and to read from another queue. Close it exactly once, after its exports.
type Snapshot struct {
	e        *Engine
	s        *pebble.Snapshot
	replaced []keyBounds // of e.excises
}

// NewSnapshot opens a snapshot as of now.
func (e *Engine) NewSnapshot() *Snapshot {
	s := &Snapshot{e: e}
	e.excises.opening(s)
	s.s = e.db.NewSnapshot()
	return s
}

// iterator opens an iterator over data. Errors that wrap ErrReplaced: see Snapshot.
func (s *Snapshot) iterator(b keyBounds) (*pebble.Iterator, error) {
	it, err := s.s.NewIter(&pebble.IterOptions{LowerBound: b.lower, UpperBound: b.upper})
	if err != nil || !s.e.excises.pierced(s, b) {
		return it, err
	}
	return nil, errors.Join(ErrReplaced, it.Close())
}

// State reads the replicated state of a shard's replica; false if it has none.
func (s *Snapshot) State(id shard.ID) (ReplicaState, bool, error) {
	return readRecord(s.s, recordKey(id, stateRecord), decodeReplicaState)
}

// Close ends the snapshot.
func (s *Snapshot) Close() error {
	s.e.excises.closing(s)
	return s.s.Close()
}

// Small tells whether the replica's content is small enough to be kept in memory by
// whoever receives it (Import.Small). It reads no more than that much.
func (s *Snapshot) Small(id shard.ID) (bool, error) {
	state, found, err := s.State(id)
	if err != nil || !found {
		return !found, err
	}
	lower, upper := spanBounds(state.Descriptor.Span)
	it, err := s.iterator(keyBounds{lower, upper})
	if err != nil {
		return false, err
	}
	size := 0
	for ok := it.First(); ok && size < smallImportBytes; ok = it.Next() {
		value := it.LazyValue()
		size += len(it.Key()) + value.Len()
	}
	if err := it.Error(); err != nil {
		_ = it.Close()
		return false, err
	}
	return size < smallImportBytes, it.Close()
}

// Export makes a reader of the replica's chunks: state, then data in key order.
// Index, term, configuration and data thus come from one view.
func (s *Snapshot) Export(id shard.ID) (*Export, error) {
	state, found, err := s.State(id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("export of shard %d: it has no replicated state here", id)
	}
	lower, upper := spanBounds(state.Descriptor.Span)
	it, err := s.iterator(keyBounds{lower, upper})
	if err != nil {
		return nil, err
	}
	return &Export{state: state, it: it}, nil
}

// Export reads the chunks of one snapshot. Not safe for concurrent use.
type Export struct {
	state    ReplicaState
	it       *pebble.Iterator
	valid    bool // it is at a record
	finished bool
	sequence uint64
	totals   totals
	buf      []byte
}

// Next is the next chunk: about 256 KiB of records, or one record if that is
// larger. io.EOF after the last one. The slice is valid until the next call.
func (x *Export) Next() ([]byte, error) {
	switch {
	case x.finished:
		return nil, io.EOF
	case x.sequence == 0:
		x.begin(chunkState)
		x.buf = appendReplicaState(x.buf, &x.state)
		x.valid = x.it.First()
	case x.valid:
		x.begin(chunkData)
		if err := x.fill(); err != nil {
			return nil, err
		}
	default:
		x.begin(chunkFinal)
		x.buf = appendTotals(x.buf, x.totals)
		x.finished = true
	}
	if err := x.it.Error(); err != nil {
		return nil, err
	}
	var crc uint32
	x.buf, crc = endChunk(x.buf)
	x.totals.addChunk(crc)
	x.sequence++
	return x.buf, nil
}

func (x *Export) begin(kind chunkKind) { x.buf = beginChunk(x.buf[:0], kind, x.sequence) }

func (x *Export) fill() error {
	for n := 0; x.valid; n++ {
		key, rev, err := parseDataKey(x.it.Key())
		if err != nil {
			return err
		}
		value, err := x.it.ValueAndErr()
		if err != nil {
			return err
		}
		if n > 0 && len(x.buf)+len(key)+len(value) > chunkBytes {
			return nil
		}
		x.buf = appendDataRecord(x.buf, dataRecord{key, rev, value})
		x.totals.addRecord(key, value)
		x.valid = x.it.Next()
	}
	return nil
}

// Close ends the export; the snapshot stays open.
func (x *Export) Close() error {
	it := x.it
	x.it = nil
	if it == nil {
		return nil
	}
	return it.Close()
}
