package client

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/internal/env/prod"
	"github.com/kiloraft/kiloraft/shard"
)

// Options of Open.
type Options struct {
	Endpoints   []string      // host:port of some nodes
	DialTimeout time.Duration // how long Open waits for an endpoint; 0: 5 s
	Logger      *slog.Logger  // nil: slog.Default
	CacheShards int           // router cache bound, default 65,536

	// CertsDir is a folder of certificates as `kiloraft cert` makes it: ca.crt and
	// those of clients. Connections are mutual TLS then; the certificates may be
	// replaced while the client is open. "": plaintext, to loopback addresses only.
	CertsDir string
	// CertName chooses client.NAME.crt among several.
	CertName string
	// Dialer reaches the nodes in another way; nil: gRPC, with CertsDir if that is
	// set. Close closes it if it is an io.Closer.
	Dialer Dialer

	// MaxRetries is how often a write is sent again after an answer was lost: it then
	// takes effect once, however often it was sent. 0: 16; negative: never, such a
	// write ends with shard.ErrUndetermined. WithRetries changes it for one call.
	MaxRetries int
}

const defaultDialTimeout = 5 * time.Second

// Client is safe for concurrent use. Its methods return an OpError, which wraps
// errors of package shard, a GaveUpError when the context ended first, ErrNotFound
// or ErrClosed.
type Client struct {
	core *Core
	// What Close closes besides; nil in a client from a core.
	env    *prod.Env
	dialer Dialer
}

// FromCore is a client on a core that others own and close: Close does nothing.
// The core's environment must run steps by itself, as the production one does,
// and go on until the core's Close has ended the calls that wait.
func FromCore(core *Core) *Client { return &Client{core: core} }

// Open connects; it fails if no endpoint answers within DialTimeout or ctx, if
// endpoints belong to different clusters, or if certificates are not accepted, on
// either side, at any endpoint: with a shard.DeniedError that says why.
func Open(ctx context.Context, o Options) (*Client, error) {
	if len(o.Endpoints) == 0 {
		return nil, &shard.InvalidError{Field: "endpoints", Reason: "are missing; name at least one host:port"}
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if err := o.chooseDialer(); err != nil {
		return nil, err
	}
	c := &Client{env: prod.New(), dialer: o.Dialer}
	c.core = NewCore(CoreConfig{Env: c.env, Dialer: o.Dialer, Endpoints: o.Endpoints, Logger: o.Logger, CacheShards: o.CacheShards, MaxRetries: o.MaxRetries, DeniedIsFinal: true})
	if err := c.await(ctx, o.DialTimeout); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// await returns once the core found its cluster.
func (c *Client) await(ctx context.Context, timeout time.Duration) error {
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	opened := make(chan error, 1)
	c.core.post(func() { c.core.whenOpened(func(err error) { opened <- err }) })
	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
		return &UnreachableError{Cause: ctx.Err(), Answers: c.core.heard()}
	}
}

// Close ends what is under way with ErrClosed, which is also
// shard.ErrUndetermined for writes that may have been sent, and releases all
// resources. Closing twice is harmless.
func (c *Client) Close() error {
	if c.env == nil {
		return nil
	}
	closed := make(chan struct{})
	if !c.core.close(func() { close(closed) }) {
		return nil
	}
	<-closed
	var err error
	if d, ok := c.dialer.(io.Closer); ok {
		err = d.Close()
	}
	c.env.Close()
	return err
}

// Cluster is the cluster that the client talks to.
func (c *Client) Cluster() shard.ClusterID { return c.core.Cluster() }

// Core is the event-driven core below, for those who count or drive it.
func (c *Client) Core() *Core { return c.core }

// KeyValue is a key with its value. Revision is that of the write that made it.
type KeyValue struct {
	Key      []byte
	Value    []byte
	Revision shard.Revision
}

// Get reads the latest value of a key, or its value AtRevision. ErrNotFound: it
// has none. The result's key is the caller's slice; its value belongs to the caller.
func (c *Client) Get(ctx context.Context, key []byte, opts ...CallOption) (KeyValue, error) {
	o, err := options(mayReadAt|mayReadAnywhere, opts)
	var res shard.Result
	if err == nil {
		w := c.newWaiter(key)
		res, err = c.call(ctx, w, &shard.Command{Kind: shard.KindGet, Key: w.key, Revision: o.at(), AnyReplica: o.anyReplica}, &DoOptions{})
	}
	switch {
	case err != nil:
	case !res.Found:
		err = ErrNotFound
	default:
		return KeyValue{Key: key, Value: res.Value, Revision: res.Revision}, nil
	}
	return KeyValue{}, &OpError{Op: "get", Key: key, Err: err}
}

// GetAt is Get at a revision; see AtRevision.
func (c *Client) GetAt(ctx context.Context, key []byte, r shard.Revision, opts ...CallOption) (KeyValue, error) {
	return c.Get(ctx, key, append([]CallOption{AtRevision(r)}, opts...)...)
}

// Put writes a value and returns the revision that it got. It does not keep the
// slices.
func (c *Client) Put(ctx context.Context, key, value []byte, opts ...CallOption) (shard.Revision, error) {
	w := c.newWaiter(key)
	res, err := c.write(ctx, w, &shard.Command{Kind: shard.KindPut, Key: w.key, Value: value}, opts)
	if err != nil {
		return 0, &OpError{Op: "put", Key: key, Err: err}
	}
	return res.Revision, nil
}

// Delete removes a key, whether it has a value or not, and returns the revision
// of the removal.
func (c *Client) Delete(ctx context.Context, key []byte, opts ...CallOption) (shard.Revision, error) {
	w := c.newWaiter(key)
	res, err := c.write(ctx, w, &shard.Command{Kind: shard.KindDelete, Key: w.key}, opts)
	if err != nil {
		return 0, &OpError{Op: "delete", Key: key, Err: err}
	}
	return res.Revision, nil
}
