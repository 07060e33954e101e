package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Workload is what clients do.
type Workload string

const (
	Put   Workload = "put"   // write one value
	Get   Workload = "get"   // read one value, linearizably
	Mixed Workload = "mixed" // half gets, half puts
	Scan  Workload = "scan"  // read ScanRows rows from a key on
)

// Workloads lists all, in the order in which help shows them.
var Workloads = []Workload{Put, Get, Mixed, Scan}

// ScanRows is how many rows one operation of Scan asks for.
const ScanRows = 100

// Distribution is how keys are chosen.
type Distribution string

const (
	// Uniform: every key is equally likely.
	Uniform Distribution = "uniform"
	// Zipfian: the k-th most popular key is chosen in proportion to k^-0.99, as
	// in YCSB. Popular keys lie in different shards.
	Zipfian Distribution = "zipfian"
	// Sequential: one key after the other, over all clients. Keys have no hash
	// in front, so that neighbours lie in one shard.
	Sequential Distribution = "sequential"
)

// Distributions lists all.
var Distributions = []Distribution{Uniform, Zipfian, Sequential}

// Config of a run.
type Config struct {
	Workload     Workload
	Clients      int           // at once; 1 to 1,000,000
	Duration     time.Duration // of the measured phase
	Warmup       time.Duration
	Keys         uint64 // how many different ones
	ValueBytes   int
	Distribution Distribution
	Rate         float64 // operations per second of all clients together; 0: closed loop
	Load         bool    // write all keys first; a miss is an error then
	Timeout      time.Duration
	Seed         uint64 // of the choice of keys

	// Status asks the cluster for its counters, for the report's figures per
	// operation. It may be nil. A failure leaves the figures out.
	Status StatusFunc
	// Progress is called about once a second, from one goroutine at a time. It
	// may be nil.
	Progress func(Progress)
}

// Check refuses what cannot run, with a shard.InvalidError that names the flag.
func (c *Config) Check() error {
	invalid := func(field, format string, args ...any) error {
		return &shard.InvalidError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case !slices.Contains(Workloads, c.Workload):
		return invalid("workload", "%q is not one of %s", string(c.Workload), join(Workloads))
	case !slices.Contains(Distributions, c.Distribution):
		return invalid("--distribution", "%q is not one of %s", string(c.Distribution), join(Distributions))
	case c.Clients < 1 || c.Clients > 1_000_000:
		return invalid("--clients", "is %d; it is between 1 and 1,000,000", c.Clients)
	case c.Duration <= 0:
		return invalid("--duration", "is %v; it must be above 0", c.Duration)
	case c.Warmup < 0:
		return invalid("--warmup", "is %v; it must not be below 0", c.Warmup)
	case c.Keys < 1 || c.Keys > 1e12:
		return invalid("--keys", "is %d; it is between 1 and 1,000,000,000,000", c.Keys)
	case c.ValueBytes < 0 || c.ValueBytes > shard.ValueBytesMax:
		return invalid("--value-size", "is %d; it is between 0 and %d", c.ValueBytes, shard.ValueBytesMax)
	case !(c.Rate >= 0 && c.Rate <= 1e9):
		return invalid("--rate", "is %g; it is 0 (as fast as the answers come) or operations per second, up to 1e9", c.Rate)
	case c.Timeout <= 0:
		return invalid("--timeout", "is %v; it must be above 0", c.Timeout)
	}
	return nil
}

func join[S ~string](names []S) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}
