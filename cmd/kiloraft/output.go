package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/kiloraft/kiloraft/bench"
)

// print writes the one document of a command: v as JSON, or what table writes.
func (a *app) print(v any, table func(w io.Writer) error) error {
	if a.global.output == "json" {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	return table(a.stdout)
}

// table writes rows under headings, in columns.
func table(w io.Writer, headings []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{headings}, rows...) {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// cut shortens a text for a table.
func cut(s string, max int) string {
	if utf8.RuneCountInString(s) <= max {
		return s
	}
	return string([]rune(s)[:max-1]) + "…"
}

// bytesText writes a number of bytes for people.
func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	if v >= 99.95 {
		return fmt.Sprintf("%.0f %ciB", v, units[unit])
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}

// count writes a number with commas.
func count(n uint64) string { return bench.Count(n) }

// ago writes how long something has lasted, in its two largest units.
func ago(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	days, hours, minutes := d/(24*time.Hour), d/time.Hour%24, d/time.Minute%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd %dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh %dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm %ds", minutes, d/time.Second%60)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// yes writes a truth for a table.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// emphasis colours a word, if w takes colours. The word alone says it all.
func (a *app) emphasis(w io.Writer, good bool, word string) string {
	if !a.colored(w) {
		return word
	}
	if good {
		return "\x1b[32m" + word + "\x1b[0m"
	}
	return "\x1b[1;31m" + word + "\x1b[0m"
}
