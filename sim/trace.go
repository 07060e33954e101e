package sim

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Trace is everything that happened in a run, as text: every step that ran and
// every event that the observers report. Two runs are the same run if their
// hashes are equal. Of the text it keeps the last lines of each actor only.
type Trace struct {
	hash   uint64
	lines  uint64
	all    io.Writer // every line, or nil
	buf    []byte
	actors []*actorTail // in order of first appearance
	byName map[string]*actorTail
}

// tailLines is how many lines of each actor are kept for a Failure.
const tailLines = 60

type actorTail struct {
	name  string
	lines [tailLines]string
	next  int
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// NewTrace makes an empty trace. all, if not nil, receives every line: compare
// two such files to find where runs part.
func NewTrace(all io.Writer) *Trace {
	return &Trace{hash: fnvOffset, all: all, byName: make(map[string]*actorTail)}
}

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
	b := fmt.Appendf(t.buf[:0], "%12.6f %s ", at.Seconds(), actor)
	b = append(fmt.Appendf(b, format, args...), '\n')
	t.add(b)
	tail := t.byName[actor]
	if tail == nil {
		tail = &actorTail{name: actor}
		t.byName[actor] = tail
		t.actors = append(t.actors, tail)
	}
	tail.lines[tail.next%tailLines] = string(b)
	tail.next++
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

// Tail is the last lines of every actor.
func (t *Trace) Tail() string {
	var s strings.Builder
	for _, a := range t.actors {
		fmt.Fprintf(&s, "--- %s\n", a.name)
		for i := max(0, a.next-tailLines); i < a.next; i++ {
			s.WriteString(a.lines[i%tailLines])
		}
	}
	return s.String()
}
