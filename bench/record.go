package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	latencyMax = 10 * time.Minute // longer ones count as this long
	digits     = 3
	// recordersMax bounds the histograms of a run; beyond that clients share.
	recordersMax = 8
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMax.Microseconds(), digits)
}

// tally is what some clients did during some time.
type tally struct {
	latency           *hdrhistogram.Histogram // µs
	puts, gets, scans uint64
	rows, missing     uint64
	errors            uint64
}

func newTally() *tally { return &tally{latency: newHistogram()} }

// ops counts the operations that were answered without an error.
func (t *tally) ops() uint64 { return t.puts + t.gets + t.scans }

// add adds o to t and empties o.
func (t *tally) add(o *tally) {
	t.latency.Merge(o.latency)
	t.puts += o.puts
	t.gets += o.gets
	t.scans += o.scans
	t.rows += o.rows
	t.missing += o.missing
	t.errors += o.errors
	o.latency.Reset()
	*o = tally{latency: o.latency}
}

// recorder collects what a share of the clients do.
type recorder struct {
	mu struct {
		sync.Mutex
		current *tally // since the last swap
	}
	spare *tally // empty; owned by whoever calls swap
}

func newRecorder() *recorder {
	r := &recorder{spare: newTally()}
	r.mu.current = newTally()
	return r
}

// swap takes what was recorded since the last swap. Only pointers change hands
// under the lock: merging histograms takes long enough to be seen in latencies.
// The result belongs to the caller until the next swap and is empty by then.
func (r *recorder) swap() *tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.current, r.spare = r.spare, r.mu.current
	return r.spare
}

// outcome is one answered operation.
type outcome struct {
	kind    Workload // Put, Get or Scan
	took    time.Duration
	rows    uint64
	missing bool
	err     error
}

func (r *recorder) record(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.mu.current
	if o.err != nil {
		t.errors++
		return
	}
	switch o.kind {
	case Put:
		t.puts++
	case Get:
		t.gets++
	case Scan:
		t.scans++
	}
	t.rows += o.rows
	if o.missing {
		t.missing++
	}
	// The value is within the histogram's bounds, so that it cannot be refused.
	_ = t.latency.RecordValue(min(max(o.took.Microseconds(), 1), latencyMax.Microseconds()))
}

// records is the whole of a run. collect is for one goroutine at a time.
type records struct {
	recorders []*recorder
	total     *tally
	errors    errorTexts
}

func newRecords(clients int) *records {
	r := &records{total: newTally()}
	for range min(clients, recordersMax) {
		r.recorders = append(r.recorders, newRecorder())
	}
	return r
}

// collect adds what was recorded since the last collect to total, and returns it
// by itself, too.
func (r *records) collect() (recent *tally) {
	recent = newTally()
	for _, one := range r.recorders {
		recent.add(one.swap())
	}
	kept := newHistogram()
	kept.Merge(recent.latency)
	whole := *recent
	r.total.add(recent)
	whole.latency = kept
	return &whole
}

// errorTextsMax is how many different errors a report shows.
const errorTextsMax = 5

// errorTexts keeps the first few different errors.
type errorTexts struct {
	mu struct {
		sync.Mutex
		texts []string
	}
}

func (e *errorTexts) add(err error) {
	text := err.Error()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.mu.texts) >= errorTextsMax {
		return
	}
	for _, t := range e.mu.texts {
		if t == text {
			return
		}
	}
	e.mu.texts = append(e.mu.texts, text)
}

func (e *errorTexts) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.mu.texts...)
}
