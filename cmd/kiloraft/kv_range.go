package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// deletedRecord is what a delete-range prints.
type deletedRecord struct {
	Start    string         `json:"start"`
	End      string         `json:"end"`
	Deleted  uint64         `json:"deleted"`
	Revision shard.Revision `json:"revision"` // of the last piece; 0: no key was there
}

func (a *app) kvDelRangeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "del-range START END",
		Short: "Delete all keys of a range and print how many",
		Long: "Delete the keys from START to END, START included and END not; an empty one is unbounded.\n" +
			"It works in pieces of up to 1,000 keys, each of them atomic. When it is interrupted, or --timeout ends it,\n" +
			"it says what is left; running it again goes on with that." + keyHelp,
		Example: `  kiloraft kv del-range user/ user0
  kiloraft kv del-range logs/2024 logs/2025 --timeout 10m -o json`,
		Args: takes(2, "START", "END"),
		RunE: func(cmd *cobra.Command, args []string) error {
			start, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			end, err := keyArgument(args[1])
			if err != nil {
				return err
			}
			if len(end) > 0 && bytes.Compare(start, end) > 0 {
				return usagef("END is before START: %s, %s", args[1], args[0])
			}
			return a.onStore(cmd.Context(), operationOn("del-range", start), func(ctx context.Context, s store) error {
				return a.deleteRange(ctx, s, start, end)
			})
		},
	}
}

func (a *app) deleteRange(ctx context.Context, s store, start, end []byte) error {
	line := newRangeLine(a.stderr)
	done, err := s.deleteRange(ctx, start, end, line.show)
	line.end()
	if err != nil {
		return unfinished(err, done)
	}
	record := deletedRecord{shard.FormatUserKey(start), shard.FormatUserKey(end), done.Deleted, done.Revision}
	return a.print(record, func(w io.Writer) error {
		text := fmt.Sprintf("deleted %s, the last at revision %d", keysText(done.Deleted), done.Revision)
		switch done.Deleted {
		case 0:
			text = "deleted no key: the range has none"
		case 1:
			text = fmt.Sprintf("deleted 1 key, at revision %d", done.Revision)
		}
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

// unfinished says what a delete-range that failed has done and left.
func unfinished(err error, done client.DeleteRangeResult) error {
	err = withoutOperation(err)
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) && done.Deleted == 0 {
		return err // nothing was begun
	}
	rest := "what is left of the range is not deleted"
	if len(done.Next) > 0 {
		rest = fmt.Sprintf(`those from "%s" on are left`, cut(shard.FormatUserKey(done.Next), 100))
	}
	have := "are"
	if done.Deleted == 1 {
		have = "is"
	}
	return fmt.Errorf("%w; %s %s deleted, %s: run the command again", err, keysText(done.Deleted), have, rest)
}

func keysText(n uint64) string {
	if n == 1 {
		return "1 key"
	}
	return count(n) + " keys"
}

// rangeLine shows the progress of a delete-range: in place on a terminal, else
// as a line now and then.
type rangeLine struct {
	w       io.Writer
	inPlace bool
	now     func() time.Time
	started time.Time
	shown   time.Time
	dirty   bool // the cursor is behind a line that has no end yet
}

// inPlaceInterval is between two looks of a person at the same line.
const inPlaceInterval = 100 * time.Millisecond

func newRangeLine(w io.Writer) *rangeLine {
	l := &rangeLine{w: w, inPlace: terminal(w), now: time.Now}
	l.started = l.now()
	l.shown = l.started
	return l
}

func (l *rangeLine) show(p client.DeleteRangeResult) {
	now := l.now()
	interval := quietInterval
	if l.inPlace {
		interval = inPlaceInterval
	}
	if now.Sub(l.shown) < interval {
		return
	}
	l.shown = now
	elapsed := now.Sub(l.started).Seconds()
	text := fmt.Sprintf("%4.0fs  deleted %s  %s/s", elapsed, keysText(p.Deleted), count(uint64(float64(p.Deleted)/elapsed)))
	if len(p.Next) > 0 { // how many keys there are is not known; how far it is may tell
		text += `  at "` + cut(shard.FormatUserKey(p.Next), 40) + `"`
	}
	if l.inPlace {
		fmt.Fprintf(l.w, "%s%s", clearLine, text)
		l.dirty = true
		return
	}
	fmt.Fprintln(l.w, text)
}

// end leaves the last line behind.
func (l *rangeLine) end() {
	if l.dirty {
		fmt.Fprintln(l.w)
	}
}
