package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kiloraft/kiloraft/bench"
)

// config is what the command line says.
type config struct {
	binary string // kiloraft
	parts  []string
	json   bool
	scale  scale
}

// scale is how much a part does, and for how long.
type scale struct {
	Peak     time.Duration `json:"peak"`  // how long the peak is measured
	Quiet    time.Duration `json:"quiet"` // churn: the load alone
	Busy     time.Duration `json:"busy"`  // churn: the load with splits and moves
	Splits   int           `json:"splits"`
	Moves    int           `json:"moves"`
	Spread   time.Duration `json:"spread"` // at most
	Join     time.Duration `json:"join"`   // at most
	Keys     uint64        `json:"keys"`   // churn and spread
	Bytes    uint64        `json:"bytes"`  // join: of values
	Settings settings      `json:"settings"`
	// Judged: what is too slow is a failure. Operations that fail always are.
	Judged bool `json:"judged"`
}

// settings of the cluster that the user wants otherwise, name=value.
type settings []string

var (
	whole = scale{Peak: 10 * time.Second, Quiet: 20 * time.Second, Busy: time.Minute, Splits: 20, Moves: 10,
		Spread: 5 * time.Minute, Join: 4 * time.Minute, Keys: 100_000, Bytes: 2 << 30, Judged: true}
	// quick shows that all of it works, and measures nothing.
	quick = scale{Peak: 2 * time.Second, Quiet: 5 * time.Second, Busy: 10 * time.Second, Splits: 4, Moves: 2,
		Spread: 40 * time.Second, Join: time.Minute, Keys: 10_000, Bytes: 64 << 20}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	if text := os.Getenv(taskVariable); text != "" {
		if err := inside(ctx, text); err != nil {
			fmt.Fprintln(os.Stderr, "elastic:", err)
			return 1
		}
		return 0
	}
	cfg, err := options(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "elastic:", err)
		return 2
	}
	return outside(ctx, cfg)
}

func options(args []string) (config, error) {
	var c config
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	f := flag.NewFlagSet("elastic", flag.ContinueOnError)
	f.StringVar(&c.binary, "kiloraft", "bin/kiloraft", "the `BINARY` under test")
	part := f.String("part", strings.Join(names, ","), "run those `PARTS`, name,name,...")
	output := f.String("o", "table", "`FORMAT` of the report: table or json")
	tiny := f.Bool("quick", false, "so little that it only shows that all of it works; nothing is too slow then")
	duration := f.Duration("duration", 0, "churn: split and move for so long; 0: 1m")
	size := f.Float64("size", 0, "join: `GIB` of values; 0: 2")
	var set settings
	f.Func("set", "give a setting of the cluster another value first, `NAME=VALUE`; may be repeated", func(text string) error {
		if !strings.Contains(text, "=") {
			return errors.New("it is NAME=VALUE")
		}
		set = append(set, text)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.scale = whole
	if *tiny {
		c.scale = quick
	}
	if *duration != 0 {
		c.scale.Busy = *duration
	}
	if *size != 0 {
		c.scale.Bytes = uint64(max(*size, 0) * (1 << 30))
	}
	c.parts, c.json, c.scale.Settings = strings.Split(*part, ","), *output == "json", set
	for _, name := range c.parts {
		if !slices.Contains(names, name) {
			return c, fmt.Errorf("-part: %q is not one of %s", name, strings.Join(names, ", "))
		}
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case *output != "table" && *output != "json":
		return c, fmt.Errorf("-o: it is %q and must be table or json", *output)
	case c.scale.Busy <= eventTail || c.scale.Busy > time.Hour:
		return c, fmt.Errorf("-duration: it is %v and must be more than %v and at most 1h", *duration, eventTail)
	case c.scale.Bytes < 1<<20 || c.scale.Bytes > 1<<40:
		return c, fmt.Errorf("-size: it is %g and must be between 0.001 and 1024", *size)
	}
	if _, err := os.Stat(c.binary); err != nil {
		return c, fmt.Errorf("-kiloraft: %w", err)
	}
	return c, nil
}

// outside runs the parts one after the other, each with a cluster of its own, and prints
// what they found.
func outside(ctx context.Context, cfg config) int {
	code := 0
	reports := make([]*report, 0, len(cfg.parts))
	for _, p := range parts {
		if !slices.Contains(cfg.parts, p.name) {
			continue
		}
		r := p.inDemo(ctx, cfg)
		if reports = append(reports, r); !r.OK {
			code = 1
		}
		if !cfg.json {
			r.print(os.Stdout)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if cfg.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(reports); err != nil {
			fmt.Fprintln(os.Stderr, "elastic:", err)
			return 1
		}
	}
	return code
}

// inside measures one part, beside the cluster, and leaves the report to the command
// outside.
func inside(ctx context.Context, text string) error {
	// Node 4 is killed with the thread that started it, should all else fail.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetGCPercent(400) // as `kiloraft bench` does
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return fmt.Errorf("%s: %w", taskVariable, err)
	}
	p := parts[slices.IndexFunc(parts, func(p part) bool { return p.name == t.Part })]
	ctx, cancel := context.WithTimeout(ctx, partPatience+t.Scale.Busy)
	defer cancel()
	s, err := openScene(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	r := &report{Part: p.name, Environment: bench.CurrentEnvironment("")}
	if err := p.measure(ctx, s, r); err != nil {
		return err
	}
	if ctx.Err() != nil { // what it has found is not of the whole
		return context.Cause(ctx)
	}
	r.OK = len(r.Wrong) == 0
	return json.NewEncoder(os.Stdout).Encode(r)
}
