package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// ask offers n requests with numbered keys.
func (s *sampler) ask(n int) (drawn int) {
	for i := range n {
		if s.due() {
			s.draw(binary.BigEndian.AppendUint32(nil, uint32(i)), nil)
			drawn++
		}
	}
	return drawn
}

// Of however many requests each is as likely to be in the sample as any other.
func TestSampleIsEven(t *testing.T) {
	const seeds, parts = 300, 10
	for _, n := range []int{1_000, 100_000} {
		var met [parts]int
		drawn := 0
		s := newSampler(1)
		var spare []asked
		for range seeds {
			drawn += s.ask(n)
			sample := s.turn(spare)
			if len(sample) != windowSample {
				t.Fatalf("%d of %d are in the sample", len(sample), n)
			}
			for _, a := range sample {
				met[int(binary.BigEndian.Uint32(a.start))*parts/n]++
			}
			spare = sample
		}
		const want = seeds * windowSample / parts
		for i, got := range met {
			if got < want*93/100 || got > want*107/100 { // 4 standard deviations
				t.Errorf("of %d requests, part %d is met %d times, want about %d", n, i, got, want)
			}
		}
		// What is drawn and replaced later costs: it grows with the logarithm alone.
		if most := windowSample * 8; drawn/seeds > most {
			t.Errorf("of %d requests %d are drawn, want no more than %d", n, drawn/seeds, most)
		}
	}
}

func TestSampleOfFewRequestsHasAll(t *testing.T) {
	s := newSampler(7)
	for _, n := range []int{0, 1, windowSample} {
		s.ask(n)
		sample := s.turn(nil)
		if len(sample) != n {
			t.Errorf("%d of %d", len(sample), n)
		}
		for i, a := range sample {
			if int(binary.BigEndian.Uint32(a.start)) != i || !a.alone() {
				t.Errorf("%d: %+v", i, a)
			}
		}
	}
}

// What was drawn in a window stays as it is while the next ones are drawn, and its
// memory is used again after that.
func TestWindowsDoNotShareMemory(t *testing.T) {
	s := newSampler(3)
	s.ask(1000)
	first := s.turn(nil)
	before := fmt.Sprint(first)
	s.ask(1000)
	s.turn(nil)
	if fmt.Sprint(first) != before {
		t.Error("a complete window has changed")
	}
	s.turn(first)
	s.ask(1)
	if third := s.turn(nil); &third[0] != &first[0] {
		t.Error("a window's memory is not used again")
	}
	s.draw([]byte("a"), []byte("b"))
	s.turn(s.turn(nil))
	s.draw([]byte("c"), nil) // in the memory of a span
	if got := s.turn(nil); len(got) != 1 || !got[0].alone() {
		t.Errorf("%+v", got)
	}
}

// A key that was cut off judges the balance exactly: the same keys are below it.
func TestCutOffKeysKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		long := func(name string) []byte {
			return append(bytes.Repeat([]byte("k"), sampledBytesMax-rapid.IntRange(0, 3).Draw(t, name+" shorter")), rapid.SliceOfN(rapid.ByteRange('j', 'l'), 0, 6).Draw(t, name)...)
		}
		a, at := long("a"), cutOff(long("b"))
		if (bytes.Compare(a, at) < 0) != (bytes.Compare(cutOff(a), at) < 0) {
			t.Fatalf("%q and %q", a, at)
		}
	})
	s := newSampler(1)
	s.draw([]byte(strings.Repeat("k", 600)), []byte(strings.Repeat("k", 601)))
	if got := s.turn(nil); !got[0].alone() || len(got[0].start) != sampledBytesMax {
		t.Errorf("%d bytes, alone %v", len(got[0].start), got[0].alone())
	}
}

func TestExtent(t *testing.T) {
	batch := shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{{Kind: shard.CompareAbsent, Key: []byte("\x02m")}},
		Then: []shard.BatchOp{{Kind: shard.KindPut, Key: []byte("\x02k")}}, Else: []shard.BatchOp{{Kind: shard.KindDelete, Key: []byte("\x02p")}}}
	single := shard.Command{Kind: shard.KindBatch, Compares: batch.Compares, Then: []shard.BatchOp{{Kind: shard.KindPut, Key: []byte("\x02m")}}}
	reverse, deletes := scan("\x02b", "\x02x"), scan("\x02b", "\x02x")
	reverse.Reverse = true
	deletes.Kind = shard.KindDeleteRange
	for _, c := range []struct {
		name       string
		command    shard.Command
		resume     string
		start, end string
	}{
		{"put", put("\x02k", "v"), "", "\x02k", ""},
		{"get", get("\x02k"), "", "\x02k", ""},
		{"batch", batch, "", "\x02k", "\x02p\x00"},
		{"batch of one key", single, "", "\x02m", ""},
		{"scan", scan("\x02b", "\x02x"), "", "\x02b", "\x02x"},
		{"page", scan("\x02b", "\x02x"), "\x02d", "\x02b", "\x02d"},
		{"reverse", reverse, "", "\x02b", "\x02x"},
		{"page in reverse", reverse, "\x02d", "\x02d", "\x02x"},
		{"delete-range", deletes, "", "\x02b", "\x02x"},
	} {
		var resume []byte
		if c.resume != "" {
			resume = []byte(c.resume)
		}
		if start, end := extent(&c.command, resume); string(start) != c.start || string(end) != c.end {
			t.Errorf("%s: %q to %q, want %q to %q", c.name, start, end, c.start, c.end)
		}
	}
}
