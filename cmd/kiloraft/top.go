package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// loadRecord is what is asked of a node's leaders, or of a shard, per second.
type loadRecord struct {
	Reads        float64 `json:"reads_per_second"`
	Writes       float64 `json:"writes_per_second"`
	BytesWritten float64 `json:"bytes_written_per_second"`
}

func (l *loadRecord) all() float64 { return l.Reads + l.Writes }

func (l *loadRecord) add(more loadRecord) {
	l.Reads, l.Writes, l.BytesWritten = l.Reads+more.Reads, l.Writes+more.Writes, l.BytesWritten+more.BytesWritten
}

type topNode struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	Live    bool   `json:"live"`
	State   string `json:"state"`
	Shards  uint64 `json:"shards"`
	Leaders uint64 `json:"leaders"`
	Bytes   uint64 `json:"bytes"`
	loadRecord
}

type topShard struct {
	ID       uint64 `json:"id"`
	Start    string `json:"start"`
	End      string `json:"end"`
	Keyspace string `json:"keyspace"`
	Leader   uint64 `json:"leader"` // a node; 0: none
	Keys     uint64 `json:"keys"`
	Bytes    uint64 `json:"bytes"`
	loadRecord
	SplitAt     string `json:"split_at"`     // where its leader wishes it split; empty: nowhere
	SplitReason string `json:"split_reason"` // size or load
}

type topKey struct {
	Key       string  `json:"key"`
	Shard     uint64  `json:"shard"`
	PerSecond float64 `json:"per_second"`
}

// topRecord is one look at who is asked for how much, as JSON, the busiest first.
type topRecord struct {
	Nodes   []topNode  `json:"nodes"`
	Shards  []topShard `json:"shards"`
	HotKeys []topKey   `json:"hot_keys"`
}

func topOf(nodes []*kiloraftpb.NodeInfo, shards []*kiloraftpb.ShardInfo, by string) topRecord {
	r := topRecord{Nodes: []topNode{}, Shards: []topShard{}, HotKeys: []topKey{}}
	byNode := map[uint64]loadRecord{}
	for _, s := range shards {
		t := shardOf(s)
		one := topShard{ID: t.ID, Start: t.Start, End: t.End, Keyspace: t.Keyspace, Leader: t.Leader, Keys: t.Keys, Bytes: t.Bytes}
		for _, rep := range s.GetReplicas() {
			if !rep.GetLeading() || rep.GetNode() != s.GetLeaderNode() {
				continue
			}
			one.loadRecord = loadRecord{rep.GetReadsPerSecond(), rep.GetWritesPerSecond(), rep.GetBytesWrittenPerSecond()}
			one.SplitAt, one.SplitReason = shard.FormatKey(rep.GetSplitKey()), rep.GetSplitReason()
			for _, k := range rep.GetHotKeys() {
				r.HotKeys = append(r.HotKeys, topKey{shard.FormatKey(k.GetKey()), t.ID, k.GetPerSecond()})
			}
		}
		all := byNode[one.Leader]
		all.add(one.loadRecord)
		byNode[one.Leader] = all
		r.Shards = append(r.Shards, one)
	}
	for _, n := range nodes {
		r.Nodes = append(r.Nodes, topNode{n.GetId(), n.GetAddress(), n.GetLive(), n.GetState(), n.GetShards(), n.GetLeaders(), n.GetBytes(), byNode[n.GetId()]})
	}
	r.sort(by)
	return r
}

// topSorts are what --sort takes.
var topSorts = []string{"load", "reads", "writes", "bytes", "id"}

// sort puts the most of what is asked for first; equal ones stay in order of ID.
func (r *topRecord) sort(by string) {
	weight := func(l *loadRecord, bytes, id uint64) float64 {
		switch by {
		case "reads":
			return l.Reads
		case "writes":
			return l.Writes
		case "bytes":
			return float64(bytes)
		case "id":
			return -float64(id)
		}
		return l.all()
	}
	slices.SortStableFunc(r.Nodes, func(a, b topNode) int {
		return cmp.Or(cmp.Compare(weight(&b.loadRecord, b.Bytes, b.ID), weight(&a.loadRecord, a.Bytes, a.ID)), cmp.Compare(a.ID, b.ID))
	})
	slices.SortStableFunc(r.Shards, func(a, b topShard) int {
		return cmp.Or(cmp.Compare(weight(&b.loadRecord, b.Bytes, b.ID), weight(&a.loadRecord, a.Bytes, a.ID)), cmp.Compare(a.ID, b.ID))
	})
	slices.SortStableFunc(r.HotKeys, func(a, b topKey) int {
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(a.Key, b.Key))
	})
}

// rateText is a number per second for people.
func rateText(v float64) string {
	if v > 0 && v < 9.95 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return count(uint64(v + 0.5))
}

// write writes as much of the record as fits into so many lines; 0: all.
func (r *topRecord) write(w io.Writer, lines int) error {
	var total loadRecord
	for i := range r.Shards {
		total.add(r.Shards[i].loadRecord)
	}
	fmt.Fprintf(w, "%d nodes, %s shards   %s reads/s, %s writes/s, %s/s written\n\n", len(r.Nodes), count(uint64(len(r.Shards))),
		rateText(total.Reads), rateText(total.Writes), bytesText(uint64(total.BytesWritten)))
	shares := topShares(lines-2, len(r.Nodes), len(r.Shards), len(r.HotKeys))
	var nodes, shards, keys [][]string
	for _, n := range r.Nodes[:shares[0]] {
		state := n.State
		if !n.Live {
			state = "not answering"
		}
		nodes = append(nodes, []string{count(n.ID), cut(n.Address, 24), state, count(n.Shards), count(n.Leaders), bytesText(n.Bytes), rateText(n.Reads), rateText(n.Writes),
			bytesText(uint64(n.BytesWritten)) + "/s"})
	}
	for _, s := range r.Shards[:shares[1]] {
		start, end := boundText(s.Start, "–"), boundText(s.End, "–")
		if s.Keyspace == "system" {
			start, end = "(system)", "(system)"
		}
		shards = append(shards, []string{strconv.FormatUint(s.ID, 10), start, end, leaderText(s.Leader), bytesText(s.Bytes), rateText(s.Reads), rateText(s.Writes), s.SplitReason})
	}
	for _, k := range r.HotKeys[:shares[2]] {
		keys = append(keys, []string{cut(k.Key, 60), strconv.FormatUint(k.Shard, 10), rateText(k.PerSecond)})
	}
	err := table(w, []string{"NODE", "ADDRESS", "STATE", "SHARDS", "LEADERS", "DATA", "READS/S", "WRITES/S", "WRITTEN"}, nodes)
	fmt.Fprintln(w)
	err = errors.Join(err, table(w, []string{"SHARD", "START", "END", "LEADER", "DATA", "READS/S", "WRITES/S", "TO SPLIT BY"}, shards))
	if len(keys) > 0 {
		fmt.Fprintln(w)
		err = errors.Join(err, table(w, []string{"HOT KEY", "SHARD", "PER SECOND"}, keys))
	}
	return err
}

// topShares divides the lines of a screen among three tables, each of which has a
// heading, and a blank line before it but for the first. Few nodes and hot keys are
// seen whole, and shards have the rest; what does not fit is left out. lines of 0 or
// less is without bounds.
func topShares(lines int, rows ...int) (shares [3]int) {
	copy(shares[:], rows)
	if lines <= 0 {
		return shares
	}
	left := lines - 5
	for _, i := range []int{0, 2, 1} {
		most := left / 3
		if i == 1 {
			most = left - shares[0] - shares[2]
		}
		shares[i] = max(0, min(shares[i], most))
	}
	return shares
}

// topFlags are those of `top`.
type topFlags struct {
	once     bool
	by       string
	interval time.Duration
}

func (a *app) topCommand() *cobra.Command {
	f := topFlags{by: "load"}
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch which nodes, shards and keys have the most to do",
		Long: "Watch which nodes, shards and keys have the most to do, the busiest first, until Ctrl-C. Where there is no terminal, or\n" +
			"with --once or -o json, it is one look.",
		Example: `  kiloraft top
  kiloraft top --once --sort writes`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.interval < 100*time.Millisecond || f.interval > time.Hour {
				return usagef("--interval: it is %v and must be between 100ms and 1h", f.interval)
			}
			return a.top(cmd.Context(), &f)
		},
	}
	cmd.Flags().BoolVar(&f.once, "once", false, "look once")
	cmd.Flags().Var(&choice{value: &f.by, of: topSorts}, "sort", "what comes first: the most `OF` load, reads, writes or bytes, or the lowest id")
	cmd.Flags().DurationVar(&f.interval, "interval", time.Second, "look again after `DURATION`")
	return cmd
}

func (a *app) top(ctx context.Context, f *topFlags) error {
	c, err := a.dialCluster()
	if err != nil {
		return err
	}
	defer c.close()
	out, ok := a.stdout.(*os.File)
	kind, _ := a.lookupEnv("TERM")
	if ok && terminal(out) && kind != "dumb" && a.global.output == "table" && !f.once {
		return a.watchTop(ctx, c, f, out)
	}
	r, err := a.lookTop(ctx, c, f.by)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) error { return r.write(w, 0) })
}

// lookTop asks once, within --timeout.
func (a *app) lookTop(ctx context.Context, c *cluster, by string) (topRecord, error) {
	ctx, cancel := a.within(ctx)
	defer cancel()
	nodes, err := c.nodes(ctx)
	if err != nil {
		return topRecord{}, err
	}
	shards, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{})
	return topOf(nodes.GetNodes(), shards.GetShards(), by), err
}

// watchTop looks again and again, on a screen of its own, until ctx ends. What was
// seen last stays while nobody answers.
func (a *app) watchTop(ctx context.Context, c *cluster, f *topFlags, out *os.File) error {
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	fmt.Fprint(out, enter)
	defer fmt.Fprint(out, leave)
	var last topRecord
	for {
		r, err := a.lookTop(ctx, c, f.by)
		if ctx.Err() != nil {
			return nil // interrupted: nothing has failed
		}
		width, height, sizeErr := term.GetSize(int(out.Fd()))
		if sizeErr != nil || width == 0 || height == 0 {
			width, height = 100, 40
		}
		head := fmt.Sprintf("%s   by %s, every %s, Ctrl-C ends", time.Now().Format(time.TimeOnly), f.by, duration(f.interval))
		if err == nil {
			last = r
		} else {
			head += "   " + a.emphasis(out, false, "not now:") + " " + cut(a.plain(err), max(20, width-70))
		}
		var b strings.Builder
		if err := last.write(&b, height-2); err != nil {
			return err
		}
		fmt.Fprint(out, frame(head, b.String(), width, height, a.colored(out)))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.interval):
		}
	}
}

// frame is a screen's worth of text, for a cursor that goes home: every line is cut to
// the width and clears what was there, and so does the rest.
func frame(head, body string, width, height int, colored bool) string {
	lines := append([]string{head}, strings.Split(strings.TrimRight(body, "\n"), "\n")...)
	lines = lines[:min(len(lines), max(1, height-1))]
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if i > 0 {
			line = cut(line, max(2, width))
		}
		if colored && (strings.HasPrefix(line, "NODE ") || strings.HasPrefix(line, "SHARD ") || strings.HasPrefix(line, "HOT KEY ")) {
			line = "\x1b[1m" + line + "\x1b[0m"
		}
		b.WriteString(line + "\x1b[K\n")
	}
	return b.String() + "\x1b[J"
}
