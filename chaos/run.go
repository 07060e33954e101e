package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// beginPatience is how long the cluster may take to be whole at first.
	beginPatience = 90 * time.Second
	// healPatience is how long it may take to be whole again when everything is healed.
	healPatience = 90 * time.Second
	// judgePatience bounds the reading of everything, and keyPatience the search for an order
	// of one key's operations.
	judgePatience = 5 * time.Minute
	keyPatience   = time.Minute
)

// run runs a cluster under fire, and tells whether everything held.
func run(ctx context.Context, cfg config) bool {
	started := time.Now()
	say := teller(started)
	fmt.Printf("chaos: %d nodes for %v, seed %d; faults: %s\n", cfg.nodes, cfg.duration, cfg.seed, cfg.means())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &verdict{say: say, stop: cancel}
	dir, err := os.MkdirTemp("", "kiloraft-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return false
	}
	r := report{cfg: cfg}
	err = attack(ctx, cfg, dir, v, started, &r)
	if err != nil {
		v.end(err)
	}
	ok := !v.failed()
	r.print(v, time.Since(started))
	if (ok || errors.Is(err, errInterrupted)) && !cfg.keep {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
	} else {
		fmt.Printf("chaos: logs and stores are in %s\n", dir)
	}
	if !ok {
		fmt.Printf("chaos: the same faults again: make chaos DURATION=%v SEED=%d NODES=%d\n", cfg.duration, cfg.seed, cfg.nodes)
	}
	fmt.Println(r.summary(ok))
	return ok
}

var (
	errInterrupted = errors.New("interrupted")
	// errFailed: the verdict is known, and says more.
	errFailed = errors.New("something does not hold")
)

// means says with which means faults are inflicted.
func (c config) means() string {
	if c.noCell == "" {
		return "network namespaces, a small disk, and proxies"
	}
	return "proxies alone (no namespaces and mounts: " + c.noCell + ")"
}

// teller prints lines with the time since the start.
func teller(started time.Time) func(string, ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("%6.1f s  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
	}
}

func quietLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// attack starts the cluster and the clients, inflicts faults, heals, and judges. The error
// says that the run could not go on; what does not hold is told to the verdict.
func attack(ctx context.Context, cfg config, dir string, v *verdict, started time.Time, r *report) error {
	c, err := newCluster(cfg, dir, v, rand.New(rand.NewPCG(cfg.seed, 0)))
	defer func() {
		v.close()
		c.close(v.failed())
	}()
	if err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := c.start(n); err != nil {
			return err
		}
	}
	if err := c.awaitWhole(ctx, beginPatience); ctx.Err() != nil && !v.failed() {
		return errInterrupted
	} else if err != nil {
		return fmt.Errorf("the cluster does not come up: %w", err)
	}
	if err := c.configure(ctx); err != nil {
		return err
	}
	o := newOutages(ranges, time.Now(), func(where int, d time.Duration) {
		v.say("%-10s nothing was done in range %d for %.1f s", "", where, d.Seconds())
	})
	l, err := openLoad(ctx, c, o, cfg.seed, started)
	if err != nil {
		return err
	}
	defer func() {
		l.stop()
		l.close()
	}()
	v.say("the cluster is whole; %d clients begin", ranges*clientsOfRange+ledgerClients+1)
	l.start()
	raging, over := context.WithTimeout(ctx, cfg.duration)
	defer over()
	f := fire{cluster: c, ctx: raging, outages: o, only: cfg.only, say: v.say}
	f.rage(cfg.seed)
	switch {
	case v.failed():
		return errFailed
	case ctx.Err() != nil:
		return errInterrupted
	}
	v.say("the time is over; everything is healed")
	healed := time.Now()
	err = c.awaitWhole(ctx, healPatience)
	r.healing = time.Since(healed)
	o.over(time.Now())
	l.stop()
	r.load, r.outages = l, o
	switch {
	case ctx.Err() != nil && !v.failed():
		return errInterrupted
	case err != nil:
		return fmt.Errorf("the cluster does not recover: %w", err)
	}
	v.say("the cluster is whole after %v; everything is read and compared", r.healing.Round(10*time.Millisecond))
	judging, cancel := context.WithTimeout(ctx, judgePatience)
	defer cancel()
	return judge(judging, c, l, r)
}

// inParallel does n things on a few goroutines; each makes its own function to do them with. It
// returns the first error.
func inParallel(n int, worker func(int) func(int) error) error {
	const goroutines = 12
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, goroutines)
	for g := range goroutines {
		do := worker(g)
		all.Go(func() {
			for errs[g] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[g] = do(i)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
