package main

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/kiloraft/kiloraft/bench"
	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/server"
	"github.com/kiloraft/kiloraft/shard"
)

// app is one run of the command, with everything that it takes from the process
// or asks of other rooms, so that tests can put their own in its place.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookupEnv      func(string) (string, bool)

	openStore func(ctx context.Context, t target, timeout time.Duration) (store, error)
	runServer func(ctx context.Context, c server.Config) error

	global globalFlags
}

// globalFlags are those of every command.
type globalFlags struct {
	endpoints []string
	certsDir  string
	client    string
	output    string
	timeout   time.Duration
}

// store is what commands use of the client library.
type store interface {
	bench.Store
	Delete(ctx context.Context, key []byte, opts ...client.CallOption) (shard.Revision, error)
	CompareAndSwap(ctx context.Context, key []byte, condition client.Condition, value []byte, opts ...client.CallOption) (client.SwapResult, error)
	Close() error

	// Calls whose options matter, so that a test sees them.
	getAt(ctx context.Context, key []byte, r shard.Revision, anyReplica bool) (client.KeyValue, error)
	deleteRange(ctx context.Context, start, end []byte, progress func(client.DeleteRangeResult)) (client.DeleteRangeResult, error)
}

// clusterStore is the client library as a store.
type clusterStore struct{ *client.Client }

var _ store = clusterStore{}

func (s clusterStore) getAt(ctx context.Context, key []byte, r shard.Revision, anyReplica bool) (client.KeyValue, error) {
	if anyReplica {
		return s.GetAt(ctx, key, r, client.AnyReplica())
	}
	return s.GetAt(ctx, key, r)
}

func (s clusterStore) deleteRange(ctx context.Context, start, end []byte, progress func(client.DeleteRangeResult)) (client.DeleteRangeResult, error) {
	return s.DeleteRange(ctx, start, end, client.WithProgress(progress))
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, lookupEnv func(string) (string, bool)) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, lookupEnv: lookupEnv, openStore: openStore, runServer: server.Run}
}

func openStore(ctx context.Context, t target, timeout time.Duration) (store, error) {
	c, err := client.Open(ctx, client.Options{Endpoints: t.endpoints, Dialer: client.NewGRPCDialer(t.creds), DialTimeout: timeout})
	if err != nil {
		return nil, err
	}
	return clusterStore{c}, nil
}

// terminal tells whether what is written to w is seen by a person at once.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colored tells whether w takes colours.
func (a *app) colored(w io.Writer) bool {
	if _, off := a.lookupEnv("NO_COLOR"); off {
		return false
	}
	kind, _ := a.lookupEnv("TERM")
	return terminal(w) && kind != "dumb"
}
