package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// progressEvery is between two lines of progress where there is no terminal.
	progressEvery = 3 * time.Second
	// barWidth is that of the bar alone, descriptionMax that of the text before it.
	barWidth, descriptionMax = 20, 56
)

// stage is how far something has come.
type stage struct {
	text        string // what it does or waits for
	done, total uint64 // total 0: nobody knows
	unit        string // what is counted: "bytes", "replicas", "leaders", "shards"
}

// progress tells somebody who waits how far something has come, with its rate and an
// estimate of what is left: by a bar on a terminal, by a line every few seconds
// elsewhere.
type progress struct {
	w    io.Writer
	live bool
	now  func() time.Time

	began     time.Time // of what is counted now
	from      uint64    // done then
	unit      string
	total     uint64 // the most that was seen: what is added meanwhile is not forgotten
	bar       *progressbar.ProgressBar
	turning   bool // the bar has no end
	said      string
	saidAt    time.Time
	saidBegun bool
}

// newProgress writes to stderr, which is where nobody looks for a document.
func (a *app) newProgress() *progress {
	kind, _ := a.lookupEnv("TERM")
	return &progress{w: a.stderr, live: terminal(a.stderr) && kind != "dumb", now: time.Now}
}

// show takes in a stage, and shows it if it is time to.
func (p *progress) show(s stage) {
	now := p.now()
	if s.unit != p.unit || p.began.IsZero() {
		p.clear()
		p.unit, p.total, p.began, p.from = s.unit, 0, now, s.done
	}
	p.total = max(p.total, s.total)
	s.total = p.total
	if p.live {
		p.draw(s)
		return
	}
	if p.saidBegun && now.Sub(p.saidAt) < progressEvery {
		return
	}
	p.say(s, now)
}

// left shows a count that falls: what it was at first is the total.
func (p *progress) left(text string, left uint64, unit string) {
	if unit != p.unit {
		p.show(stage{text: text, total: left, unit: unit})
		return
	}
	total := max(p.total, left)
	p.show(stage{text: text, done: total - left, total: total, unit: unit})
}

func (p *progress) say(s stage, now time.Time) {
	line := s.text
	if s.total > 0 {
		line += "; " + s.amount() + p.pace(s, now)
	}
	if line == p.said && s.total == 0 {
		line += ", still"
	} else {
		p.said = line
	}
	p.saidAt, p.saidBegun = now, true
	fmt.Fprintln(p.w, line)
}

func (s *stage) amount() string {
	if s.unit == "bytes" {
		return fmt.Sprintf("%s of about %s", bytesText(s.done), bytesText(s.total))
	}
	return fmt.Sprintf("%s of %s %s", count(s.done), count(s.total), s.unit)
}

// pace is the rate since the count began, and what is left at that rate; "" while
// nothing has moved.
func (p *progress) pace(s stage, now time.Time) string {
	elapsed := now.Sub(p.began).Seconds()
	if s.done <= p.from || elapsed <= 0 {
		return ""
	}
	rate := float64(s.done-p.from) / elapsed
	text := fmt.Sprintf(", %.1f/s", rate)
	if s.unit == "bytes" {
		text = fmt.Sprintf(", %s/s", bytesText(uint64(rate)))
	}
	if left := s.total - min(s.done, s.total); left > 0 {
		text += ", about " + ago(float64(left)/rate) + " left"
	}
	return text
}

// draw moves the bar. It never comes to its end: what is counted may be complete
// before the whole is, and the command says itself when that is so.
func (p *progress) draw(s stage) {
	if p.bar == nil || p.turning != (s.total == 0) {
		p.clear()
		p.bar, p.turning = newBar(p.w, &s), s.total == 0
	}
	p.bar.Describe(cut(s.text, descriptionMax))
	if s.total == 0 {
		_ = p.bar.Add(1) // it turns
		return
	}
	// Errors are those of a terminal that is gone.
	p.bar.ChangeMax64(int64(s.total))
	_ = p.bar.Set64(int64(min(s.done, s.total-1)))
	_ = p.bar.RenderBlank()
}

func newBar(w io.Writer, s *stage) *progressbar.ProgressBar {
	most := int64(s.total)
	if s.total == 0 {
		most = -1
	}
	options := []progressbar.Option{progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(barWidth), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true), progressbar.OptionSetRenderBlankState(true), progressbar.OptionThrottle(0),
		progressbar.OptionSetSpinnerChangeInterval(0)} // it would turn by itself, and on after it was cleared
	switch {
	case s.total == 0:
	case s.unit == "bytes":
		options = append(options, progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
	default:
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(s.unit))
	}
	return progressbar.NewOptions64(most, options...)
}

// clear takes the bar off the screen.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}
