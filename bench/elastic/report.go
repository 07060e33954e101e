package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kiloraft/kiloraft/bench"
)

// report is what a part has found.
type report struct {
	Part        string            `json:"part"`
	OK          bool              `json:"ok"`
	Wrong       []string          `json:"wrong"`
	Figures     json.RawMessage   `json:"figures"`
	Environment bench.Environment `json:"environment"`
	Table       string            `json:"table"`   // for people
	Summary     string            `json:"summary"` // name=value ...
}

// fail notes that something is not as it should be.
func (r *report) fail(format string, args ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
}

// put takes in the figures; they are what JSON can say.
func (r *report) put(figures any) {
	text, err := json.Marshal(figures)
	if err != nil {
		panic(err)
	}
	r.Figures = text
}

// load judges the operations of a load.
func (r *report) load(what string, b *bench.Report) {
	if b.Errors > 0 {
		r.fail("%s: %s operations failed; the first error: %s", what, bench.Count(b.Errors), b.FirstErrors[0])
	}
	if b.NotFound > 0 {
		r.fail("%s: %s gets did not find what had been written", what, bench.Count(b.NotFound))
	}
	// They have no latency. Fewer cannot be seen in p99; and a load that was told to end, as
	// those of unknown length are, leaves some.
	if !b.Interrupted && b.NeverBegun > b.Ops/1000 {
		r.fail("%s: %s operations were due and never begun: the load was too much, and percentiles are too good", what, bench.Count(b.NeverBegun))
	}
}

// print prints the report for people.
func (r *report) print(w io.Writer) {
	fmt.Fprint(w, r.Table)
	if e := r.Environment; e.Cores > 0 {
		fmt.Fprintf(w, "machine: %d cores, %s %s, %s\n", e.Cores, e.OS, e.Kernel, e.Go)
	}
	for _, text := range r.Wrong {
		fmt.Fprintln(w, "FAILED:", text)
	}
	words := []string{"elastic:", "part=" + r.Part, r.Summary, "ok"}
	if r.Summary == "" {
		words = append(words[:2], "ok")
	}
	if !r.OK {
		words[len(words)-1] = "FAILED"
	}
	fmt.Fprintln(w, strings.Join(words, " "))
}

// tableOf sets rows of cells, the first of which is the head.
func tableOf(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t")+"\t")
	}
	_ = w.Flush() // into memory
	return b.String()
}

// millis is a time in milliseconds.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func ms(v float64) string { return fmt.Sprintf("%.1f ms", v) }
