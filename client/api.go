package client

import (
	"context"
	"iter"
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
	"github.com/kiloraft/kiloraft/shard"
)

// CONTRACT: signatures that other rooms build on; bodies follow.

// ---- facade (public) ----

// Options of Open.
type Options struct {
	Endpoints   []string // host:port of some nodes
	DialTimeout time.Duration
	Logger      *slog.Logger
	CacheShards int // router cache bound, default 65,536
}

// Client is safe for concurrent use.
type Client struct{}

// Open connects; it fails if no endpoint answers within DialTimeout or ctx, or
// if endpoints belong to different clusters.
func Open(ctx context.Context, o Options) (*Client, error) { panic("contract") }
func (c *Client) Close() error                             { panic("contract") }
func (c *Client) Cluster() shard.ClusterID                 { panic("contract") }

type KeyValue struct {
	Key      []byte
	Value    []byte
	Revision shard.Revision
}

// ErrNotFound: the key has no value.
var ErrNotFound error

func (c *Client) Get(ctx context.Context, key []byte) (KeyValue, error) { panic("contract") }
func (c *Client) Put(ctx context.Context, key, value []byte) (shard.Revision, error) {
	panic("contract")
}
func (c *Client) Delete(ctx context.Context, key []byte) (shard.Revision, error) { panic("contract") }

// MultiGet: found[i].Revision 0 means not found. MultiPut is not atomic: errs[i] per pair.
func (c *Client) MultiGet(ctx context.Context, keys [][]byte) ([]KeyValue, error) { panic("contract") }
func (c *Client) MultiPut(ctx context.Context, pairs []KeyValue) ([]shard.Revision, []error) {
	panic("contract")
}

type ScanOptions struct {
	Start, End []byte // user keys; empty: unbounded
	Limit      int    // 0: all
	Reverse    bool
	KeysOnly   bool
	PageRows   int
}

// Scan pages through the range; each shard's part is linearizable, the whole is not (yet).
func (c *Client) Scan(ctx context.Context, o ScanOptions) iter.Seq2[KeyValue, error] {
	panic("contract")
}

// ScanPage is one page; resume is nil at the end.
func (c *Client) ScanPage(ctx context.Context, o ScanOptions) (rows []KeyValue, resume []byte, err error) {
	panic("contract")
}

// ---- core (event-driven; used by facade, node and sim) ----

// CoreConfig of a core.
type CoreConfig struct {
	Env       env.Env
	Dialer    Dialer
	Endpoints []string
	Cluster   shard.ClusterID // zero: pin the first that answers
	Logger    *slog.Logger
}

type Core struct{}

func NewCore(cfg CoreConfig) *Core { panic("contract") }
func (c *Core) Close()             { panic("contract") }

// Do routes and carries out a command with full keys, in either keyspace. timeout 0: none.
// done is called exactly once, from a step; result slices may be kept.
// cancel gives up waiting: done is then called with ErrUndetermined for a write that may have been sent.
// A scan is one page within one shard; its Resume then is the shard's end if the range goes on.
func (c *Core) Do(cmd shard.Command, timeout time.Duration, done func(shard.Result, error)) (cancel func()) {
	panic("contract")
}

// AddNodes tells the core addresses; Nodes is what it knows.
func (c *Core) AddNodes(m map[shard.NodeID]string) { panic("contract") }
func (c *Core) Nodes() map[shard.NodeID]string     { panic("contract") }

// Dialer opens streams to nodes. The gRPC one (NewGRPCDialer) is an adapter; sim has a twin.
type Dialer interface {
	// Open starts to connect to address and returns at once. Exactly one of the handler's
	// Closed calls comes last. Handler calls are made from any goroutine, one at a time.
	Open(address string, h StreamHandler) Stream
	// Info asks the node at address for what a client needs to start.
	Info(address string, timeout time.Duration, done func(Info, error))
}

// StreamHandler receives a stream's events.
type StreamHandler interface {
	Greeted(g shard.Greeting)
	Received(frame []byte) // frame is the handler's to keep
	Closed(err error)
}

// Stream is one client stream to a node.
type Stream interface {
	// Ready calls fill when the stream can take a frame: at once if none is on
	// its way, else after the previous one has left. fill appends a frame, or nothing.
	// At most one fill is pending.
	Ready(fill func(buf []byte) []byte)
	Close()
}

// Info is what a node tells a client at first contact.
type Info struct {
	Cluster    shard.ClusterID
	Node       shard.NodeID
	Meta       shard.Descriptor
	MetaLeader shard.NodeID
	Nodes      map[shard.NodeID]string
}
