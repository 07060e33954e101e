package storage

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// smallImportBytes is the content up to which a snapshot is kept in memory and
// can be installed by an ordinary batch. Most shards of a young cluster are this
// small, and an ingest costs a WAL sync, files and often a memtable's rotation.
const smallImportBytes = 256 << 10

// Import receives the chunks of one snapshot outside any group's turn. Small
// content stays in memory; from smallImportBytes on it goes to SST files in the
// store's folder for incoming data, which nothing refers to before Install, and
// which the next Open removes if a crash leaves them behind.
//
// Not safe for concurrent use. Its owner sees to it that no other replica's span
// overlaps the snapshot's from before the first Install or StageInstall on.
type Import struct {
	e       *Engine
	shard   shard.ID
	replica shard.ReplicaID

	state    ReplicaState
	sequence uint64 // of the next chunk
	totals   totals
	finished bool
	failed   error // the first one; nothing is accepted after it
	closed   bool

	lastKey []byte // of the last record, as in the store
	key     []byte // buffer

	small      []dataRecord // while there are no files; copies
	smallBytes int
	ssts       *sstWriter // once the content is not small
	unchecked  int        // bytes that may be written before the next look at the disk
}

// NewImport begins to receive a snapshot for a shard's replica.
func (e *Engine) NewImport(id shard.ID, replica shard.ReplicaID) (*Import, error) {
	if err := e.failure(); err != nil {
		return nil, err
	}
	return &Import{e: e, shard: id, replica: replica}, nil
}

// Add takes the next chunk, which it does not keep. It refuses missing, doubled,
// reordered and corrupt chunks, and content that does not belong into the
// snapshot, with an error that wraps shard.ErrMalformed; other errors are the
// disk's, one that is nearly full included. After an error the import can only be closed.
func (i *Import) Add(chunk []byte) error {
	if i.closed || i.failed != nil {
		return fmt.Errorf("import into shard %d is over: %w", i.shard, i.failed)
	}
	if err := i.add(chunk); err != nil {
		i.failed = fmt.Errorf("import into shard %d, chunk %d: %w", i.shard, i.sequence, err)
		return i.failed
	}
	i.sequence++
	return nil
}

func (i *Import) add(chunk []byte) error {
	kind, sequence, payload, crc, err := decodeChunk(chunk)
	switch {
	case err != nil:
		return err
	case sequence != i.sequence:
		return malformed("it has number %d", sequence)
	case i.finished:
		return malformed("it comes after the last one")
	case (kind == chunkState) != (i.sequence == 0):
		return malformed("it is of kind %d", kind)
	}
	switch kind {
	case chunkState:
		err = i.addState(payload)
	case chunkData:
		err = i.addData(payload)
	case chunkFinal:
		return i.addFinal(payload)
	}
	i.totals.addChunk(crc)
	return err
}

// addState takes the replicated state. Its configuration must list the receiver:
// a replica that installs a snapshot from before it was added would take itself
// for removed.
func (i *Import) addState(payload []byte) error {
	state, err := decodeReplicaState(payload)
	if err != nil {
		return err
	}
	if state.Descriptor.ID != i.shard {
		return malformed("the snapshot is of shard %d", state.Descriptor.ID)
	}
	if _, ok := state.Descriptor.Replica(i.replica); !ok {
		return malformed("the snapshot's configuration does not list replica %d", i.replica)
	}
	if state.Applied < firstIndex || state.AppliedTerm < firstTerm {
		return malformed("the snapshot is at index %d, term %d", state.Applied, state.AppliedTerm)
	}
	i.state = state
	return nil
}

func (i *Import) addData(payload []byte) error {
	d := decoder{b: payload}
	for len(d.b) > 0 {
		r := d.dataRecord()
		if d.err != nil {
			break
		}
		if err := r.check(i.state.Descriptor.Span); err != nil {
			return err
		}
		i.key = r.appendKey(i.key[:0])
		if len(i.lastKey) > 0 && comparer.Compare(i.lastKey, i.key) >= 0 {
			return malformed("key %x is not in order", r.key)
		}
		if err := i.addRecord(r); err != nil {
			return err
		}
		i.totals.addRecord(r.key, r.value)
		i.lastKey, i.key = i.key, i.lastKey
	}
	return d.done()
}

// addRecord takes the record whose key in the store is i.key.
func (i *Import) addRecord(r dataRecord) error {
	if i.ssts != nil {
		if err := i.checkRoom(len(i.key) + len(r.value)); err != nil {
			return err
		}
		return i.ssts.add(i.key, r.value)
	}
	i.small = append(i.small, dataRecord{bytes.Clone(r.key), r.revision, bytes.Clone(r.value)})
	i.smallBytes += len(i.key) + len(r.value)
	if i.smallBytes < smallImportBytes {
		return nil
	}
	if err := i.checkRoom(i.smallBytes); err != nil {
		return err
	}
	return i.spill()
}

// spill moves what is in memory to files.
func (i *Import) spill() error {
	w, err := i.e.newSSTWriter(i.shard)
	if err != nil {
		return err
	}
	i.ssts = w
	var key []byte
	for _, r := range i.small {
		key = r.appendKey(key[:0])
		if err := w.add(key, r.value); err != nil {
			return err
		}
	}
	i.small = nil
	return nil
}

func (i *Import) addFinal(payload []byte) error {
	want, err := decodeTotals(payload)
	if err != nil {
		return err
	}
	if want != i.totals {
		return malformed("the snapshot's totals are %+v, received were %+v", want, i.totals)
	}
	if i.ssts != nil {
		if err := i.ssts.close(); err != nil {
			return err
		}
	}
	i.finished = true
	return nil
}

// Finish tells that all chunks are there, and the snapshot's state.
func (i *Import) Finish() (ReplicaState, error) {
	switch {
	case i.failed != nil:
		return ReplicaState{}, i.failed
	case i.closed || !i.finished:
		return ReplicaState{}, fmt.Errorf("import into shard %d: %w", i.shard, malformed("the snapshot ends after chunk %d", i.sequence))
	}
	return i.state, nil
}

// Small tells whether the content is small enough to be installed by an ordinary
// batch (StageInstall) instead of an ingest.
func (i *Import) Small() bool { return i.ssts == nil }

// Close abandons the import, or releases it after the installation. It may be
// called more than once.
func (i *Import) Close() error {
	if i.closed {
		return nil
	}
	i.closed = true
	i.small = nil
	if i.ssts == nil {
		return nil
	}
	return i.ssts.abandon()
}
