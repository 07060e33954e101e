package raftgroup

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/kiloraft/kiloraft/shard"
)

// raftLogger keeps raft quiet: it prints every transition of every group at
// Info. Warnings and errors go to slog at Debug. A panic is a broken invariant
// and stays one.
type raftLogger struct {
	log     *slog.Logger
	shard   shard.ID
	replica shard.ReplicaID
}

func (l raftLogger) say(text func() string) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("raft: "+text(), "shard", uint64(l.shard), "replica", uint64(l.replica))
	}
}

func (raftLogger) Debug(...any)          {}
func (raftLogger) Debugf(string, ...any) {}
func (raftLogger) Info(...any)           {}
func (raftLogger) Infof(string, ...any)  {}

func (l raftLogger) Warning(v ...any) { l.say(func() string { return fmt.Sprint(v...) }) }
func (l raftLogger) Warningf(f string, v ...any) {
	l.say(func() string { return fmt.Sprintf(f, v...) })
}
func (l raftLogger) Error(v ...any)            { l.Warning(v...) }
func (l raftLogger) Errorf(f string, v ...any) { l.Warningf(f, v...) }

func (l raftLogger) Fatal(v ...any)            { l.Panic(v...) }
func (l raftLogger) Fatalf(f string, v ...any) { l.Panicf(f, v...) }
func (l raftLogger) Panic(v ...any)            { l.Panicf("%s", fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any) {
	panic(fmt.Sprintf("raft, shard %d, replica %d: ", l.shard, l.replica) + fmt.Sprintf(f, v...))
}
