package sim

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// storyLines is about how many lines a story has at most.
const storyLines = 250

// Story is the trace as somebody reads it: what each node did and what befell it, in
// order of time. What there is much of is told only where it concerns what the story
// is about, an error's text that names shards, keys and revisions, and shortened
// even then; "" is about nothing in particular. Only the end is told of what is too long.
func (t *Trace) Story(about string) string {
	s := subjectsOf(about)
	var told []happened
	said := make(map[string]int)
	for _, h := range t.events {
		if h.detail && !s.in(h.text) || s.elsewhere(h.text) {
			continue
		}
		if said[h.actor+h.text]++; strings.HasPrefix(h.text, "WARN") && said[h.actor+h.text] > warnedMax {
			continue
		}
		told = shorten(told, h)
	}
	var b strings.Builder
	if cut := len(told) - storyLines; cut > 0 {
		fmt.Fprintf(&b, "  (the last %d of %d lines", storyLines, len(told))
		told = told[cut:]
	} else {
		fmt.Fprintf(&b, "  (%d lines", len(told))
	}
	fmt.Fprintf(&b, ", of %d events and %d steps)\n", len(t.events), t.lines-uint64(len(t.events)))
	for _, h := range told {
		fmt.Fprintf(&b, "%11.6f  %-7s  %s\n", h.at.Seconds(), h.actor, cutTo(h.text, storyLineBytes))
	}
	return b.String()
}

// warnedMax is how often an actor may warn of the same.
const warnedMax = 2

// storyLineBytes is the longest that a line's text is.
const storyLineBytes = 400

func cutTo(text string, most int) string {
	text = strings.ReplaceAll(text, "\n", " ")
	if len(text) > most {
		return text[:most] + " …"
	}
	return text
}

// subjects are the names of what a story is about.
type subjects struct {
	whole  []*regexp.Regexp
	shards []string // of them
}

var subjectNames = regexp.MustCompile(`shard \d+|revision \d+|rev=\d+|"[^"]{2,40}"`)

func subjectsOf(about string) (s subjects) {
	about, _, _ = strings.Cut(about, "\n")
	names := subjectNames.FindAllString(about, -1)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if strings.HasPrefix(name, "shard ") {
			s.shards = append(s.shards, name+" ")
		}
		end := `\b`
		if strings.HasSuffix(name, `"`) {
			end = ""
		}
		s.whole = append(s.whole, regexp.MustCompile(regexp.QuoteMeta(name)+end))
	}
	return s
}

func (s subjects) in(text string) bool {
	return slices.ContainsFunc(s.whole, func(name *regexp.Regexp) bool { return name.MatchString(text) })
}

// elsewhere tells whether a text is about a shard, and a story about others.
func (s subjects) elsewhere(text string) bool {
	return len(s.shards) > 0 && strings.HasPrefix(text, "shard ") &&
		!slices.ContainsFunc(s.shards, func(name string) bool { return strings.HasPrefix(text, name) })
}

var applied = regexp.MustCompile(`^(shard \d+ replica \d+) applied (\d+/\d+.*)$`)

// shortenWithin is how much later a line may come that is told with an earlier one.
const shortenWithin = 2 * time.Second

// shorten adds what happened to what is told. What a replica applies in one entry after
// the other is one line, unless something else happens to the replica in between.
func shorten(told []happened, h happened) []happened {
	now := applied.FindStringSubmatch(h.text)
	if now == nil {
		return append(told, h)
	}
	for i := len(told) - 1; i >= 0 && h.at-told[i].at < shortenWithin; i-- {
		p := &told[i]
		if p.actor != h.actor || !strings.HasPrefix(p.text, now[1]+" ") {
			continue
		}
		before := applied.FindStringSubmatch(p.text)
		if before == nil {
			break
		}
		first, _, _ := strings.Cut(before[2], " …")
		p.text = now[1] + " applied " + first + " … " + now[2]
		return told
	}
	return append(told, h)
}
