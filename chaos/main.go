package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	binary   string
	duration time.Duration
	seed     uint64
	nodes    int
	keep     bool
	only     []string // kinds of faults; none: all
	// why there is no cell, if there is none.
	noCell string
}

const (
	nodesMin = 3
	nodesMax = 9
)

func main() {
	cfg, err := options()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if code, ran := inCell(&cfg); ran {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok := run(ctx, cfg)
	stop()
	if !ok {
		os.Exit(1)
	}
}

func options() (config, error) {
	var c config
	self, err := os.Executable()
	if err != nil {
		return c, err
	}
	flag.StringVar(&c.binary, "kiloraft", filepath.Join(filepath.Dir(self), "kiloraft"), "the `BINARY` under test")
	flag.DurationVar(&c.duration, "duration", time.Minute, "inflict faults for so long")
	flag.Uint64Var(&c.seed, "seed", 0, "draw faults from this `SEED`; 0: a random one")
	flag.IntVar(&c.nodes, "nodes", 5, "run `N` nodes")
	flag.BoolVar(&c.keep, "keep", false, "keep the folder with stores and logs although all went well")
	flag.Func("faults", "inflict those `KINDS` only, kind,kind,...", func(text string) error {
		c.only = strings.Split(text, ",")
		for _, kind := range c.only {
			if !slices.Contains(kinds(), kind) {
				return fmt.Errorf("%q is not one of %s", kind, list(kinds()))
			}
		}
		return nil
	})
	noCell := flag.Bool("no-namespaces", false, "do without namespaces and mounts, with proxies alone")
	flag.Parse()
	if *noCell {
		c.noCell = "as was asked for"
	}
	switch {
	case flag.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case c.duration <= 0:
		return c, fmt.Errorf("--duration: it is %v and must be more than 0", c.duration)
	case c.nodes < nodesMin || c.nodes > nodesMax:
		return c, fmt.Errorf("--nodes: it is %d and must be between %d and %d", c.nodes, nodesMin, nodesMax)
	}
	if c.binary, err = filepath.Abs(c.binary); err != nil {
		return c, err
	}
	if _, err := os.Stat(c.binary); err != nil {
		return c, fmt.Errorf("--kiloraft: %w", err)
	}
	for c.seed == 0 {
		c.seed = rand.Uint64() % 1_000_000
	}
	return c, nil
}
