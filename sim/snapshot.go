package sim

import (
	"fmt"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Snapshot is what a read at a revision said of one key: a get at a revision, or a
// page of a scan, which says something of every key that it covers. A scan of the
// latest state is one too: its answer names the revision at which it was read.
type Snapshot struct {
	At     shard.Revision
	Shard  shard.ID
	Key    string
	Found  bool
	Value  string
	Rev    shard.Revision // of the version that was found
	Asked  bool           // the client chose the revision
	Client int
	Call   int64 // logical times
	Return int64
	Time   time.Duration // virtual time of the call
}

func (s *Snapshot) String() string {
	return fmt.Sprintf("[%d,%d] client %d read %q at revision %d, asked for: %v: found=%v %q rev=%d at=%v", s.Call, s.Return, s.Client, s.Key, s.At, s.Asked, s.Found, short(s.Value), s.Rev, s.Time)
}

// version is what was found, as the model says it: a key without a value is the
// zero version.
func (s *Snapshot) version() version { return version{rev: s.Rev, found: s.Found, value: s.Value} }

// checkSnapshots refuses two answers of one question: what a key held at a
// revision is the same whenever and wherever it is asked. And it refuses an
// answer without a write that was acknowledged at or below that revision.
func (h *History) checkSnapshots(ops []*Op) error {
	type question struct {
		key string
		at  shard.Revision
	}
	answers := make(map[question]*Snapshot)
	writes := make(map[string][]*Op)
	unknown := make(map[string]bool) // keys with deletes of which nobody knows the revision
	for _, o := range ops {
		switch {
		case o.Kind != shard.KindPut && o.Kind != shard.KindDelete || o.Outcome == refused:
		case o.Rev != 0:
			writes[o.Key] = append(writes[o.Key], o)
		case o.Kind == shard.KindDelete:
			unknown[o.Key] = true
		}
	}
	for _, s := range h.snapshots {
		q := question{s.Key, s.At}
		if first := answers[q]; first != nil && first.version() != s.version() {
			return fmt.Errorf("a read at a revision was repeated and gave something else: %v, then %v", first, s)
		}
		answers[q] = s
		if s.Found && s.Rev > s.At {
			return fmt.Errorf("a read at a revision found a newer one: %v", s)
		}
		var newest *Op
		for _, o := range writes[s.Key] {
			if o.Rev <= s.At && (newest == nil || newest.Rev < o.Rev) {
				newest = o
			}
		}
		if newest == nil {
			continue
		}
		switch {
		case s.Found && s.Rev < newest.Rev,
			!s.Found && newest.Kind == shard.KindPut && !unknown[s.Key],
			s.Found && s.Rev == newest.Rev && newest.Kind == shard.KindDelete:
			return fmt.Errorf("a read at a revision missed a write at or below it: %v missed %v", s, newest)
		}
	}
	return nil
}
