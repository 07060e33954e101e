package driver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/internal/env"
)

// warnEvery is the pause between two warnings of one log.
const warnEvery = time.Second

// limitedLog writes at most one warning per warnEvery, and says how many it left
// out: what goes wrong for one shard tends to go wrong for a thousand. Used by
// one step at a time.
type limitedLog struct {
	logger *slog.Logger
	env    env.Env
	warned bool
	at     time.Duration
	left   int
}

func newLimitedLog(logger *slog.Logger, e env.Env) *limitedLog {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &limitedLog{logger: logger, env: e}
}

func (l *limitedLog) warn(msg string, args ...any) {
	now := l.env.Now()
	if l.warned && now < l.at+warnEvery {
		l.left++
		return
	}
	l.logger.Warn(msg, append(args, "more_like_this", l.left)...)
	l.warned, l.at, l.left = true, now, 0
}

// info writes what happens seldom.
func (l *limitedLog) info(msg string, args ...any) { l.logger.Info(msg, args...) }

// debug writes what, unless nobody reads it.
func (l *limitedLog) debug(msg, name string, what fmt.Stringer) {
	if l.logger.Enabled(context.Background(), slog.LevelDebug) {
		l.logger.Debug(msg, name, what.String())
	}
}
