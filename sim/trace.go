package sim

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// Trace is everything that happened in a run, as text: every step that ran and
// every event that the observers report. Two runs are the same run if their
// hashes are equal. Of the text it keeps the events, for Story.
type Trace struct {
	hash   uint64
	lines  uint64
	all    io.Writer // every line, or nil
	buf    []byte
	events []happened
}

// happened is an event that was reported.
type happened struct {
	at     time.Duration
	actor  string
	text   string
	detail bool // one of many; see Detail
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// NewTrace makes an empty trace. all, if not nil, receives every line: compare
// two such files to find where runs part.
func NewTrace(all io.Writer) *Trace { return &Trace{hash: fnvOffset, all: all} }

// Hash is the FNV-1a hash of all lines so far.
func (t *Trace) Hash() uint64 { return t.hash }

// Lines is the number of lines so far.
func (t *Trace) Lines() uint64 { return t.lines }

// step notes that an event ran. Steps are hashed but not kept.
func (t *Trace) step(at time.Duration, e *event) {
	b := strconv.AppendInt(t.buf[:0], int64(at), 10)
	b = append(b, ' ')
	if e.env != nil {
		b = append(b, e.env.name...)
		b = append(b, '#')
		b = strconv.AppendUint(b, e.env.id, 10)
	} else {
		b = append(b, "world"...)
	}
	b = append(b, ' ')
	b = append(b, e.name...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, e.seq, 10)
	t.add(append(b, '\n'))
}

// Event notes what an actor did. args print the same in every run: no
// addresses, no maps.
func (t *Trace) Event(at time.Duration, actor, format string, args ...any) {
	t.happened(happened{at: at, actor: actor, text: fmt.Sprintf(format, args...)})
}

// Detail is Event for what there is so much of that a Story tells it only where it
// matters: an entry that was applied, a frame that was lost, a client's operation.
func (t *Trace) Detail(at time.Duration, actor, format string, args ...any) {
	t.happened(happened{at: at, actor: actor, text: fmt.Sprintf(format, args...), detail: true})
}

func (t *Trace) happened(h happened) {
	b := fmt.Appendf(t.buf[:0], "%12.6f %s ", h.at.Seconds(), h.actor)
	t.add(append(append(b, h.text...), '\n'))
	t.events = append(t.events, h)
}

func (t *Trace) add(line []byte) {
	t.buf = line
	h := t.hash
	for _, c := range line {
		h = (h ^ uint64(c)) * fnvPrime
	}
	t.hash = h
	t.lines++
	if t.all != nil {
		t.all.Write(line)
	}
}
