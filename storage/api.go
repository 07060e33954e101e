package storage

import (
	"context"
	"io"
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// CONTRACT: signatures that other rooms build on; bodies follow.

// Config of an engine.
type Config struct {
	Dir         string
	FS          vfs.FS // nil: the operating system's
	MemoryBytes int64  // budget for block cache, memtables and entry cache; 0: the default of 512 MiB
	Env         env.Env
	Simulated   bool // deterministic: no automatic compactions or delayed flushes; syncs are explicit events on Env
	Logger      *slog.Logger
	Fatal       func(error) // called once, on the first failed write, sync or background work; production ends the process in it
}

type Engine struct{}

func Open(cfg Config) (*Engine, error) { panic("contract") }
func (e *Engine) Close() error         { panic("contract") }
func (e *Engine) NewBatch() *Batch     { panic("contract") }

// Commit makes b visible and appends it to the WAL without waiting for a sync. It consumes b.
func (e *Engine) Commit(b *Batch) error { panic("contract") }

// CommitSync makes b visible at once; done is called later, from another step,
// once b and all that was committed before it are durable, even if b is empty.
// Completions of one lane are called in order. It consumes b. done is never
// called after a failure (Config.Fatal is).
func (e *Engine) CommitSync(b *Batch, lane int, done func()) error { panic("contract") }

// Batch collects writes. Not safe for concurrent use.
type Batch struct{}

func (b *Batch) Empty() bool { panic("contract") }
func (b *Batch) Bytes() int  { panic("contract") }
func (b *Batch) Close()      { panic("contract") } // for a batch that is not committed

// Identity is who this store is.
type Identity struct {
	Cluster     shard.ClusterID
	Node        shard.NodeID
	Incarnation uint64
}

func (e *Engine) Identity() (Identity, bool, error) { panic("contract") }
func (b *Batch) PutIdentity(id Identity)            { panic("contract") }

// AddressBook: nodes' addresses as last known.
func (e *Engine) AddressBook() (map[shard.NodeID]string, error) { panic("contract") }
func (b *Batch) PutAddress(node shard.NodeID, address string)   { panic("contract") }

// ReplicaState is the replicated state of a replica: equal on all replicas at the same applied index.
type ReplicaState struct {
	Applied      uint64 // index of the last applied entry
	AppliedTerm  uint64
	LastRevision shard.Revision
	Floor        shard.Revision
	Descriptor   shard.Descriptor
	Versions     uint64 // versions ever written: an estimate of the keys
	Bytes        uint64 // bytes of keys and values ever written
}

// ReplicaRecord names one replica found on disk. Initialized: it has a ReplicaState.
type ReplicaRecord struct {
	Shard       shard.ID
	Replica     shard.ReplicaID
	Initialized bool
}

// Replicas lists all replicas with records in the store, in order of shard.
func (e *Engine) Replicas() ([]ReplicaRecord, error)                   { panic("contract") }
func (e *Engine) ReplicaState(id shard.ID) (ReplicaState, bool, error) { panic("contract") }
func (b *Batch) PutReplicaState(id shard.ID, s *ReplicaState)          { panic("contract") }

// PutInitialReplica writes everything that a shard's first replica starts from:
// state (Applied 10, AppliedTerm 1), anchor of the log at (10, 1), HardState{term 1, commit 10}.
func (b *Batch) PutInitialReplica(replica shard.ReplicaID, s *ReplicaState) { panic("contract") }

// Log is the raft log and hard state of one replica. It implements raft.Storage
// but for Snapshot. It is used by one goroutine at a time (the group's turn).
type Log struct{}

// OpenLog opens the log of a replica; an empty one if the store has no records of it.
func (e *Engine) OpenLog(id shard.ID, replica shard.ReplicaID) (*Log, error) { panic("contract") }

// Append stages entries and deletes every entry above the last one. The log's
// own view changes at once: commit b before the group's turn ends.
func (l *Log) Append(b *Batch, entries []raftpb.Entry) { panic("contract") }

// SetHardState stages what changed of {term, vote} and {commit}.
func (l *Log) SetHardState(b *Batch, hs raftpb.HardState) { panic("contract") }

// Truncate stages the removal of all entries up to and including index (which must be applied).
func (l *Log) Truncate(b *Batch, index uint64) error { panic("contract") }

// Bytes is the size of the entries in the log.
func (l *Log) Bytes() int64 { panic("contract") }

// Reset makes the log's view that of a log emptied by an installed snapshot at (index, term).
func (l *Log) Reset(index, term uint64) { panic("contract") }

// Release frees what the log holds in shared caches.
func (l *Log) Release()                                               { panic("contract") }
func (l *Log) InitialState() (raftpb.HardState, error)                { panic("contract") } // commit is max(record, applied)
func (l *Log) Entries(lo, hi, maxSize uint64) ([]raftpb.Entry, error) { panic("contract") }
func (l *Log) Term(i uint64) (uint64, error)                          { panic("contract") }
func (l *Log) LastIndex() (uint64, error)                             { panic("contract") }
func (l *Log) FirstIndex() (uint64, error)                            { panic("contract") }

// VersionHeader precedes the value of every version.
type VersionHeader struct {
	Op        shard.OpID
	Tombstone bool
}

// PutVersion writes key at revision rev. A tombstone has no value.
func (b *Batch) PutVersion(key []byte, rev shard.Revision, h VersionHeader, value []byte) {
	panic("contract")
}
func (b *Batch) PutUnversioned(key, value []byte) { panic("contract") }
func (b *Batch) DeleteUnversioned(key []byte)     { panic("contract") }

// View is a consistent view of a span's data. Not safe for concurrent use; Close it.
// Keys in the system keyspace are unversioned and their revision is 0.
type View struct{}

// NewView opens a view of the whole data keyspace as of now.
func (e *Engine) NewView() *View { panic("contract") }
func (v *View) Close() error     { panic("contract") }

// Get finds the newest version of key at or below at (MaxRevision: newest).
// found is false for a missing key and for a tombstone. value is valid until the next call.
func (v *View) Get(key []byte, at shard.Revision) (value []byte, rev shard.Revision, found bool, err error) {
	panic("contract")
}

// ScanOptions: see shard.Command.
type ScanOptions struct {
	Span     shard.Span
	At       shard.Revision
	Reverse  bool
	KeysOnly bool
	RowsMax  int
	BytesMax int
}

// Scan returns a page; at least one row if there is one. resume is nil when the
// page reached the end of the span, else the next page's Start (End in reverse).
func (v *View) Scan(o ScanOptions) (rows []shard.Row, resume []byte, err error) { panic("contract") }

// Snapshot is a point-in-time view of a whole replica, for sending. It stays
// consistent while the engine moves on. Safe to open on the group's turn
// (constant time) and to read from another queue. Close it exactly once.
type Snapshot struct{}

func (e *Engine) NewSnapshot() *Snapshot                          { panic("contract") }
func (s *Snapshot) State(id shard.ID) (ReplicaState, bool, error) { panic("contract") }

// Export makes a reader of the replica's chunks: state, then data in key order.
func (s *Snapshot) Export(id shard.ID) (*Export, error) { panic("contract") }
func (s *Snapshot) Close() error                        { panic("contract") }

type Export struct{}

// Next is the next chunk (at most about 256 KiB, with sequence number and
// checksum); io.EOF after the last one. The slice is valid until the next call.
func (x *Export) Next() ([]byte, error) { panic("contract") }
func (x *Export) Close() error          { panic("contract") }

// Import receives the chunks of one snapshot outside any group's turn.
type Import struct{}

func (e *Engine) NewImport(id shard.ID, replica shard.ReplicaID) (*Import, error) { panic("contract") }
func (i *Import) Add(chunk []byte) error                                          { panic("contract") } // refuses missing, doubled, reordered, corrupt chunks
func (i *Import) Finish() (ReplicaState, error)                                   { panic("contract") } // all chunks are there; its State
func (i *Import) Close() error                                                    { panic("contract") } // abandons or releases; idempotent

// Small tells whether the content is small enough to be installed by an
// ordinary batch (StageInstall) instead of an ingest.
func (i *Import) Small() bool { panic("contract") }

// StageInstall stages the whole installation into b: range-deletes old's and the
// new span and the log, writes data, replicated state, and the log's anchor.
func (i *Import) StageInstall(b *Batch, old shard.Span) error { panic("contract") }

// Install does the same by ingesting SSTs whose range tombstones clear their
// part of the span. The WAL is synced before. It blocks on the disk: not for a worker.
func (i *Import) Install(old shard.Span) error { panic("contract") }

// Stats for metrics and status.
type Stats struct {
	WALSyncs, WALBytes, Commits          uint64
	DiskBytes, MemtableBytes, CacheBytes int64
	Compactions, Flushes, Ingests        uint64
	L0Sublevels                          int
}

func (e *Engine) Stats() Stats { panic("contract") }

// SpanBytes estimates the bytes on disk under span.
func (e *Engine) SpanBytes(span shard.Span) (uint64, error) { panic("contract") }

var _ = context.Background
var _ = io.EOF
