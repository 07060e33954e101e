package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

// doctorPause is between the doctor's two looks: what changes, or does not, within it
// tells rates, and what is stuck.
const doctorPause = 2 * time.Second

// doctorRecord is what is wrong, as JSON, the worst first.
type doctorRecord struct {
	Healthy  bool      `json:"healthy"` // there is nothing but notes
	Findings []finding `json:"findings"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with the cluster, and what to do",
		Long: "Say what is wrong with the cluster: what, since when if that is known, what the system does about it, and what a\n" +
			"person can do. It looks twice, two seconds apart. The exit code is 0 if nothing is wrong, and 1 if something is; notes\n" +
			"are for those who plan, and count for nothing.",
		Example: `  kiloraft doctor
  kiloraft doctor -o json`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				f, err := a.examine(ctx, c)
				if err != nil {
					return err
				}
				found := diagnose(f)
				r := doctorRecord{Healthy: healthy(found), Findings: append([]finding{}, found...)}
				if err := a.print(r, func(w io.Writer) error { return a.writeFindings(w, f, found) }); err != nil {
					return err
				}
				if !r.Healthy {
					return &exitError{code: exitFailed} // it has been said
				}
				return nil
			})
		},
	}
}

func healthy(found []finding) bool {
	for _, f := range found {
		if f.Severity != severityNote {
			return false
		}
	}
	return true
}

// examine gathers the facts. What cannot be asked for is a fact as well, unless nobody
// answers at all.
func (a *app) examine(ctx context.Context, c *cluster) (*facts, error) {
	f := &facts{plaintext: a.global.certsDir == ""}
	first, err := c.status(ctx)
	if err != nil {
		return nil, err
	}
	firstShards, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
	if err != nil {
		return nil, err
	}
	f.before = sight{first, firstShards.GetShards()}
	began := time.Now()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(doctorPause):
	}
	if f.now.status, err = c.status(ctx); err != nil {
		return nil, err
	}
	shards, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
	if err != nil {
		return nil, err
	}
	f.now.shards, f.between, f.unix = shards.GetShards(), time.Since(began), uint64(max(0, time.Now().Unix()))
	// The meta shard may not answer.
	ops, opsErr := c.operations(ctx, 0)
	settings, settingsErr := c.settings(ctx)
	explained, explainErr := ask(ctx, c, explaining(0, 0))
	f.operations, f.settings, f.explained = ops.GetOperations(), settings.GetSettings(), explained.GetLines()
	for _, err := range []error{opsErr, settingsErr, explainErr} {
		if err != nil {
			f.unasked = append(f.unasked, a.plain(err))
		}
	}
	return f, nil
}

// writeFindings writes what is wrong in words.
func (a *app) writeFindings(w io.Writer, f *facts, found []finding) error {
	problems := 0
	for _, x := range found {
		if x.Severity != severityNote {
			problems++
		}
	}
	s := f.now.status
	size := fmt.Sprintf("%d of %d nodes live, %s shards", s.GetNodesLive(), s.GetNodes(), count(s.GetShards()))
	var err error
	switch problems {
	case 0:
		_, err = fmt.Fprintf(w, "%s   %s\n", a.emphasis(w, true, "nothing is wrong"), size)
	case 1:
		_, err = fmt.Fprintf(w, "%s   %s\n", a.emphasis(w, false, "1 problem"), size)
	default:
		_, err = fmt.Fprintf(w, "%s   %s\n", a.emphasis(w, false, fmt.Sprintf("%d problems", problems)), size)
	}
	for _, x := range found {
		_, next := io.WriteString(w, x.text())
		err = errors.Join(err, next)
	}
	return err
}

// text is a finding on a few lines.
func (x *finding) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-8s  %s: %s", x.Severity, x.About, x.What)
	if x.SinceSeconds > 0 {
		fmt.Fprintf(&b, ", since %s", ago(float64(x.SinceSeconds)))
	}
	b.WriteString("\n")
	for _, line := range []struct{ head, text string }{{"what is done", x.Doing}, {"what to do", x.Todo}} {
		if line.text != "" {
			fmt.Fprintf(&b, "          %s: %s\n", line.head, line.text)
		}
	}
	return b.String()
}
