package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// revisionFlag is a revision that a write can have; 0 while it is not given.
type revisionFlag struct {
	revision   shard.Revision
	anyReplica bool // of reads
}

func (f *revisionFlag) String() string {
	if f.revision == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(f.revision), 10)
}

func (f *revisionFlag) Type() string { return "revision" }

func (f *revisionFlag) Set(s string) error {
	r, err := strconv.ParseUint(s, 10, 64)
	if err != nil || r == 0 || shard.Revision(r) > shard.MaxRevision {
		return fmt.Errorf("it is a number from 1 to %d, as writes print it", shard.MaxRevision)
	}
	f.revision = shard.Revision(r)
	return nil
}

// addTo gives a command that reads --revision and --any-replica.
func (f *revisionFlag) addTo(cmd *cobra.Command) {
	cmd.Flags().Var(f, "revision", "read the state as it was at revision `R`")
	cmd.Flags().BoolVar(&f.anyReplica, "any-replica", false, "with --revision: let any replica answer, not the leader alone")
}

// check refuses what only a read at a revision may ask for.
func (f *revisionFlag) check() error {
	if f.anyReplica && f.revision == 0 {
		return usagef("--any-replica is for reads at a revision: give --revision, too")
	}
	return nil
}

// get reads the latest value, or the one at the revision.
func (f *revisionFlag) get(ctx context.Context, s store, key []byte) (client.KeyValue, error) {
	if f.revision == 0 {
		return s.Get(ctx, key)
	}
	return s.getAt(ctx, key, f.revision, f.anyReplica)
}

// explain names the flag in an error that is about it, and says what to do.
func (f *revisionFlag) explain(err error) error {
	switch {
	case f.revision == 0:
	case errors.Is(err, shard.ErrFutureRevision):
		return fmt.Errorf("--revision %d: %w; `kiloraft status` shows the newest", f.revision, err)
	case errors.Is(err, shard.ErrCompacted):
		return fmt.Errorf("--revision %d: %w; read at a newer one (`kiloraft settings list`: kv.retention is how long old versions can be read)", f.revision, err)
	}
	return err
}
