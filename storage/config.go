package storage

import (
	"log/slog"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/internal/env"
)

// DefaultMemoryBytes is the budget of an engine whose Config names none. It
// suits a laptop; memory is taken as it is used, and an idle store takes little.
const DefaultMemoryBytes = 512 << 20

// memoryBytesMin is the smallest budget that leaves every part something to
// work with; smaller ones count as this one.
const memoryBytesMin = 16 << 20

// Config of an engine.
type Config struct {
	// Dir is the store's directory. It is made with mode 0700 if missing; an
	// existing one must be empty or hold a Kiloraft store.
	Dir string
	// FS is where Dir is; nil: the operating system's.
	FS vfs.FS
	// MemoryBytes is the budget for block cache, memtables and entry cache
	// together; 0: DefaultMemoryBytes. It bounds what is kept, not what a
	// caller's own batches and pages take.
	MemoryBytes int64
	// Env is needed with Simulated only.
	Env env.Env
	// Simulated makes the engine deterministic: see the package's comment.
	Simulated bool
	// SyncsEarlyPerMille is how many in a thousand commits that are to be synced are
	// durable before the next one is made; with Simulated only. Which ones is drawn
	// from Env.
	SyncsEarlyPerMille int
	// Logger: nil discards.
	Logger *slog.Logger
	// Fatal is called once, on the first failed write, sync or background work,
	// from any goroutine; production ends the process in it. nil panics. Should
	// it return, every later commit is refused with the same error, and no done
	// of a CommitSync is called any more.
	Fatal func(error)
}

func (c *Config) setDefaults() {
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.MemoryBytes == 0 {
		c.MemoryBytes = DefaultMemoryBytes
	}
	c.MemoryBytes = max(c.MemoryBytes, memoryBytesMin)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) { panic(err) }
	}
	if c.Simulated && c.Env == nil {
		panic("storage: a simulated engine needs an Env")
	}
}
