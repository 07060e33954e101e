package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/server"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

const (
	shardsMax = catalog.InitialShardsMax
	memoryMin = 16 << 20
)

func (a *app) startCommand() *cobra.Command {
	c := server.Config{Version: versionText()}
	memory := bytesFlag(storage.DefaultMemoryBytes)
	locality := ""
	level := "info"
	cmd := &cobra.Command{
		Use:   "start --store DIR (--certs-dir DIR | --insecure)",
		Short: "Run a node until it is told to stop",
		Long: "Run a node: create a cluster, join one, or go on with what is in the store.\n" +
			"On an empty store a node creates a cluster, or joins the one that --join leads to; a store that has been\n" +
			"used keeps its cluster and its node ID. SIGINT and SIGTERM stop the node in an orderly way.\n" +
			"With --certs-dir every port speaks mutual TLS, with node.crt and node.key (see kiloraft cert); the files are\n" +
			"read again when they change. With --insecure every port speaks plaintext, on loopback addresses.",
		Example: `  kiloraft start --insecure --store ./n1 --initial-shards 8
  kiloraft start --certs-dir ./certs --store ./n2 --listen 0.0.0.0:7400 --advertise n2.example.org:7400 --join n1.example.org:7400`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.MemoryBytes, c.CertsDir = int64(memory), a.global.certsDir
			if err := checkStart(&c); err != nil {
				return err
			}
			var err error
			if c.Locality, err = shard.ParseLocality(locality); err != nil {
				return usagef("--locality: %v", err)
			}
			c.Logger = a.logger(level)
			// As much again as the budget is left to requests and messages under
			// way before the collector runs more often.
			a.collectLess(2 * c.MemoryBytes)
			err = a.runServer(cmd.Context(), c)
			if cmd.Context().Err() != nil && isInterrupt(err) {
				return nil // asked to stop, and stopped
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Store, "store", "", "`DIR` of the node's data; made if absent, with mode 0700")
	f.Var(&memory, "memory", "`BYTES` for memtables and caches, e.g. 256MiB; the process takes up to about twice as much")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:7400", "`ADDRESS` to serve clients and nodes on")
	f.StringVar(&c.Advertise, "advertise", "", "`ADDRESS` at which others reach this node (default: that of --listen)")
	f.StringVar(&c.HTTP, "http", "127.0.0.1:7401", "`ADDRESS` for /healthz, /metrics and /debug/pprof/; empty is none")
	f.StringSliceVar(&c.Join, "join", nil, "`ADDRESSES` of nodes of the cluster to join, host:port,host:port,...")
	f.IntVar(&c.InitialShards, "initial-shards", 1, "divide the keys of a new cluster into `N` shards")
	f.StringVar(&locality, "locality", "", "where the node is, the widest tier first, as `K=V,K=V`: region=eu,zone=a; a shard's replicas are spread over places")
	f.BoolVar(&c.Insecure, "insecure", false, "serve plaintext, on loopback addresses only")
	f.Var(&choice{value: &level, of: []string{"debug", "info", "warn", "error"}}, "log-level", "`LEVEL` from which on to log: debug, info, warn or error")
	grouped(cmd, "Store", "store", "memory")
	grouped(cmd, "Addresses", "listen", "advertise", "http")
	grouped(cmd, "Cluster", "join", "initial-shards", "locality")
	grouped(cmd, "Security and logs", "insecure", "log-level")
	return cmd
}

// checkStart refuses flags that cannot work, before anything is touched.
func checkStart(c *server.Config) error {
	switch {
	case c.Store == "":
		return usagef("--store is missing: the folder of the node's data")
	case !c.Insecure && c.CertsDir == "":
		return usagef("give --certs-dir, the folder of the node's certificates (kiloraft cert makes them), or --insecure to serve plaintext on loopback addresses")
	case c.Insecure && c.CertsDir != "":
		return usagef("give --certs-dir or --insecure, not both")
	case c.InitialShards < 1 || c.InitialShards > shardsMax:
		return usagef("--initial-shards: it is %d and must be between 1 and %d", c.InitialShards, shardsMax)
	case c.MemoryBytes < memoryMin:
		return usagef("--memory: it is %s and must be at least %s", bytesText(uint64(max(c.MemoryBytes, 0))), bytesText(memoryMin))
	}
	addresses := [][2]string{{"--listen", c.Listen}}
	for _, optional := range [][2]string{{"--advertise", c.Advertise}, {"--http", c.HTTP}} {
		if optional[1] != "" {
			addresses = append(addresses, optional)
		}
	}
	for _, address := range c.Join {
		if address == c.Listen || address == c.Advertise {
			return usagef("--join: %s is this node itself; name another node of the cluster", address)
		}
		addresses = append(addresses, [2]string{"--join", address})
	}
	for _, a := range addresses {
		if err := checkAddress(a[0], a[1]); err != nil {
			return err
		}
		if c.Insecure && !loopback(a[1]) {
			return usagef("%s: %s is not a loopback address; --insecure is for loopback addresses only", a[0], a[1])
		}
	}
	return nil
}

func isInterrupt(err error) bool { return err == nil || err == context.Canceled }

// logger writes to standard error, for people and for whoever collects lines.
func (a *app) logger(level string) *slog.Logger {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		panic(err) // the flag admits known levels only
	}
	return slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: l}))
}

// bytesFlag is a number of bytes, with a unit if one likes.
type bytesFlag int64

var byteUnits = []struct {
	suffix string
	factor float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}

func (b *bytesFlag) String() string {
	for i := len(byteUnits) - 1; i >= 0; i-- {
		if u := byteUnits[i]; u.suffix == "GiB" || u.suffix == "MiB" {
			if n := int64(u.factor); int64(*b) >= n && int64(*b)%n == 0 {
				return fmt.Sprintf("%d%s", int64(*b)/n, u.suffix)
			}
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *bytesFlag) Type() string { return "bytes" }

func (b *bytesFlag) Set(s string) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.factor >= math.MaxInt64 {
			break
		}
		*b = bytesFlag(v * u.factor)
		return nil
	}
	return fmt.Errorf("%q is not a number of bytes, like 512MiB or 2GiB", s)
}
