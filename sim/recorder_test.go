package sim

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// What a recorder writes down of errors decides what it finds fault with.
func TestRecorderVerdicts(t *testing.T) {
	write := func(r *Recorder, rev shard.Revision, err error) {
		o := r.Begin(&Op{Kind: shard.KindPut, Key: "a", Value: "1"})
		o.Rev = rev
		r.End(o, err)
	}
	read := func(r *Recorder, value string, rev shard.Revision, err error) {
		o := r.Begin(&Op{Kind: shard.KindGet, Key: "a"})
		o.Found, o.Value, o.Rev = rev != 0, value, rev
		r.End(o, err)
	}
	swap := func(r *Recorder, held bool, rev shard.Revision, err error) {
		key := []byte("a")
		c := r.BeginCall(&Call{Command: shard.Command{Kind: shard.KindBatch, Compares: []shard.Compare{{Kind: shard.CompareAbsent, Key: key}},
			Then: []shard.BatchOp{{Kind: shard.KindPut, Key: key, Value: []byte("2")}}, Else: []shard.BatchOp{{Kind: shard.KindGet, Key: key}}}})
		if err == nil {
			c.Result = shard.Result{Found: held, Revision: rev, Rows: []shard.Row{{Key: key, Revision: rev}}}
		}
		r.EndCall(c, err)
	}
	for _, c := range []struct {
		name string
		run  func(r *Recorder)
		want string
	}{
		{"read what was written", func(r *Recorder) { write(r, 1, nil); read(r, "1", 1, nil) }, ""},
		{"read nothing of what was written", func(r *Recorder) { write(r, 1, nil); read(r, "", 0, client.ErrNotFound) }, "not linearizable"},
		{"a read that failed", func(r *Recorder) { write(r, 1, nil); read(r, "", 0, shard.ErrUnavailable) }, ""},
		{"an undetermined write", func(r *Recorder) {
			write(r, 0, shard.ErrUndetermined)
			read(r, "", 0, client.ErrNotFound)
			read(r, "1", 5, nil)
		}, ""},
		{"a refused write that shows", func(r *Recorder) { write(r, 0, shard.ErrBusy); read(r, "1", 5, nil) }, "was refused took effect"},
		{"an unknown error of a write", func(r *Recorder) { write(r, 0, errors.New("odd")); read(r, "1", 5, nil) }, ""},
		{"a swap that should not have been made", func(r *Recorder) { write(r, 1, nil); swap(r, true, 2, nil) }, "not linearizable"},
		{"a swap of unknown outcome", func(r *Recorder) { swap(r, true, 0, shard.ErrUndetermined); read(r, "2", 4, nil) }, ""},
		{"a look that misses a write", func(r *Recorder) { write(r, 3, nil); r.Saw(&Snapshot{At: 4, Key: "a"}) }, "missed a write"},
		{"a look of before", func(r *Recorder) { write(r, 3, nil); r.Saw(&Snapshot{At: 2, Key: "a"}) }, ""},
		{"an operation that never returned", func(r *Recorder) {
			r.Begin(&Op{Kind: shard.KindPut, Key: "a", Value: "1"})
			read(r, "1", 5, nil)
		}, ""},
	} {
		var r Recorder
		c.run(&r)
		err := r.Check(time.Minute)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if r.Keys() != 1 {
			t.Errorf("%s: %d keys", c.name, r.Keys())
		}
	}
}
