package replica

import (
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// Revisions numbers writes.
type Revisions interface {
	// Draw hands out n revisions, first to first+n-1, each larger than every
	// revision that was handed out in the cluster before the call. done is called
	// once, perhaps before Draw returns; err is ErrNoRevision.
	Draw(n int, done func(first shard.Revision, err error))
	// HandedOut tells whether r was handed out before done is called, by any node
	// and for any shard. done is called once, perhaps before HandedOut returns. err
	// as of Draw: it is not known.
	HandedOut(r shard.Revision, done func(known bool, err error))
	// Newest is the newest revision that Draw has handed out on this node; 0: none.
	// All of this is safe for concurrent use.
	Newest() shard.Revision
}

// Config of a node's replicas. Zero bounds take their defaults.
type Config struct {
	Node      shard.NodeID
	Env       env.Env
	Engine    *storage.Engine
	Revisions Revisions
	Grants    Granter   // nil: this node never serves draws
	Reads     env.Queue // a pool on which reads touch the disk
	// Address is where clients reach a node, "" if unknown. Safe for concurrent use.
	Address func(shard.NodeID) string
	// DescriptorChanged is told of each applied descriptor, and of each gain of
	// leadership (leading), so that directories can be fed. Must not block.
	DescriptorChanged func(d shard.Descriptor, leading bool, term uint64)
	Logger            *slog.Logger

	// ReadsAtOnce is how many steps serve gets at the same time; default 2.
	// More of them than Reads has workers gain nothing.
	ReadsAtOnce int
	// Bounds of what the node has outstanding between Execute and the reply; past
	// them ErrBusy. Bytes are those of the commands.
	ReadsMax      int64 // default 65,536
	ReadBytesMax  int64 // default 32 MiB
	WritesMax     int64 // default 262,144
	WriteBytesMax int64 // default 128 MiB

	// Retention and DropRate are those of the start; see SetRetention, SetDropRate.
	Retention time.Duration // default 10 minutes
	DropRate  int64         // versions per second; default 50,000; below 0: none
	// CheckInterval is how often each shard is checked; see SetCheckInterval. 0: not at all.
	CheckInterval time.Duration
}

func (c *Config) setDefaults() {
	orInt := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&c.ReadsMax, 1<<16)
	orInt(&c.ReadBytesMax, 32<<20)
	orInt(&c.WritesMax, 1<<18)
	orInt(&c.WriteBytesMax, 128<<20)
	orInt(&c.DropRate, 50_000)
	if c.Retention == 0 {
		c.Retention = 10 * time.Minute
	}
	if c.ReadsAtOnce == 0 {
		c.ReadsAtOnce = 2
	}
	if c.Address == nil {
		c.Address = func(shard.NodeID) string { return "" }
	}
	if c.DescriptorChanged == nil {
		c.DescriptorChanged = func(shard.Descriptor, bool, uint64) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// group is what a replica asks of its raft group; *raftgroup.Group is one.
type group interface {
	Propose(p *raftgroup.Proposal) error
	Read(r raftgroup.Read) error
	Confirm(r raftgroup.Read) error
	ProposeMembership(term uint64, m shard.MembershipChange, done func(error))
	Turn(run func(), abandoned func(error))
}

// view is a consistent view of the data; *storage.View is one.
type view interface {
	Get(key []byte, at shard.Revision) (value []byte, rev shard.Revision, found bool, err error)
	Scan(o storage.ScanOptions) (rows []shard.Row, resume []byte, err error)
	Garbage(o storage.GarbageOptions) (storage.Garbage, error)
	Versions(key []byte, max int) ([]storage.Version, error)
	Walk(span shard.Span, above shard.Revision, max int) (steps int, err error)
	Sizes(o storage.SizesOptions, each func(key []byte, bytes int)) (storage.Sizes, error)
	Close() error
}
