package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// Where there is no terminal a line comes every few seconds, with the rate since the
// count began and what is left at that rate.
func TestProgressInLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	p := &progress{w: &out, now: func() time.Time { return now }}
	at := func(seconds int, do func()) { now = time.Unix(1000+int64(seconds), 0); do() }
	at(0, func() { p.show(stage{text: "begins"}) })
	at(1, func() { p.show(stage{text: "too early for another line"}) })
	at(4, func() { p.show(stage{text: "sends", done: 0, total: 40 << 20, unit: "bytes"}) })
	at(8, func() { p.show(stage{text: "sends", done: 8 << 20, total: 40 << 20, unit: "bytes"}) })
	at(12, func() { p.left("left: 8", 8, "replicas") })
	at(16, func() { p.left("left: 6", 6, "replicas") })
	at(20, func() { p.show(stage{text: "waits"}) })
	at(24, func() { p.show(stage{text: "waits"}) })
	p.clear()
	want := `begins
sends; 0 B of about 40.0 MiB
sends; 8.0 MiB of about 40.0 MiB, 2.0 MiB/s, about 16s left
left: 8; 0 of 8 replicas
left: 6; 2 of 8 replicas, 0.5/s, about 12s left
waits
waits, still
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// On a terminal there is a bar, which is gone in the end.
func TestProgressAsABar(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, live: true, now: time.Now}
	p.show(stage{text: "begins"})
	p.show(stage{text: "a snapshot", done: 10 << 20, total: 40 << 20, unit: "bytes"})
	p.show(stage{text: "all of it", done: 40 << 20, total: 40 << 20, unit: "bytes"})
	p.left("left: 2", 2, "replicas")
	p.left("left: 1", 1, "replicas")
	drawn := out.String()
	for _, want := range []string{"begins", "a snapshot", " 25% |", "50% |", "█"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("no %q in %q", want, drawn)
		}
	}
	if strings.Contains(drawn, "100%") || strings.Contains(drawn, "\n") {
		t.Errorf("the bar has come to its end by itself: %q", drawn)
	}
	p.clear()
	if rest := strings.TrimPrefix(out.String(), drawn); rest == "" || strings.Trim(rest, "\r ") != "" {
		t.Errorf("what is left on the screen: %q", rest)
	}
}
