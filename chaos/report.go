package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// report is what a run found.
type report struct {
	cfg       config
	load      *load // nil: it did not come so far
	outages   *outages
	healing   time.Duration // from the last fault's end until the cluster was whole
	shards    int           // whose replicas were compared
	histories int
	unknown   int
}

// print prints the figures, and what is wrong.
func (r *report) print(v *verdict, took time.Duration) {
	if r.load != nil {
		r.table()
		all, acknowledged := r.load.ledger.count()
		fmt.Printf("operations: %d done, %d undetermined, %d refused or unanswered; in the ledger %d of %d writes acknowledged, %d of them lost\n",
			r.load.done.Load(), r.load.undetermined.Load(), r.load.refused.Load(), acknowledged, all, r.load.ledger.missing)
		fmt.Printf("whole again after %v; replicas of %d shards compared; %v in all\n", r.healing.Round(10*time.Millisecond), r.shards, took.Round(time.Second))
	}
	for _, text := range v.wrong {
		fmt.Printf("FAILED: %s\n", text)
	}
}

// table prints the faults by kind.
func (r *report) table() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nfault\tcount\tlongest unavailable\tof one range\t")
	row := func(t toll) {
		fmt.Fprintf(w, "%s\t%d\t%.2f s\t%.2f s\t\n", t.kind, t.count, t.all.Seconds(), t.one.Seconds())
	}
	for _, t := range r.outages.tolls(kinds()) {
		if t.count > 0 {
			row(t)
		}
	}
	row(r.outages.total())
	_ = w.Flush()
	fmt.Println()
}

// kinds are all kinds of faults, in the order of the tables.
func kinds() (names []string) {
	seen := map[string]bool{}
	for _, table := range [][]fault{processFaults, networkFaults, chores} {
		for _, f := range table {
			if !seen[f.kind] {
				seen[f.kind] = true
				names = append(names, f.kind)
			}
		}
	}
	return names
}

// summary is the last line.
func (r *report) summary(ok bool) string {
	verdict := "FAILED"
	if ok {
		verdict = "ok"
	}
	if r.load == nil {
		return fmt.Sprintf("chaos: duration=%v seed=%d nodes=%d %s", r.cfg.duration, r.cfg.seed, r.cfg.nodes, verdict)
	}
	done := r.load.done.Load()
	ops := done + r.load.undetermined.Load() + r.load.refused.Load()
	total := r.outages.total()
	return fmt.Sprintf("chaos: duration=%v seed=%d nodes=%d faults=%d ops=%d success=%.2f%% histories=%d unknown=%d longest_unavailable=%.2fs of_one_range=%.2fs %s",
		r.cfg.duration, r.cfg.seed, r.cfg.nodes, total.count, ops, 100*float64(done)/float64(max(ops, 1)), r.histories, r.unknown, total.all.Seconds(), total.one.Seconds(), verdict)
}
