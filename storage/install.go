package storage

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/kiloraft/kiloraft/shard"
)

// StageInstall stages the whole installation of a small import into b: it
// range-deletes old and the new span and the log, then writes data, replicated
// state and the log's anchor. old is the replica's span before, empty for one
// that had no state. {term, vote} and {commit} are not touched.
func (i *Import) StageInstall(b *Batch, old shard.Span) error {
	if _, err := i.Finish(); err != nil {
		return err
	}
	if !i.Small() {
		return fmt.Errorf("import into shard %d: its content is not small", i.shard)
	}
	for _, bounds := range clearedBounds(old, i.state.Descriptor.Span) {
		b.deleteRange(bounds[0], bounds[1])
	}
	lower, upper := spanBounds(i.state.Descriptor.Span)
	b.deleteRange(lower, upper)
	b.deleteRange(recordKey(i.shard, logRecords), recordKey(i.shard, afterLogRecords))
	var key []byte
	for _, r := range i.small {
		key = r.appendKey(key[:0])
		b.set(key, r.value)
	}
	b.PutReplicaState(i.shard, &i.state)
	b.putAnchor(i.shard, i.state.Applied, i.state.AppliedTerm)
	return nil
}

// Install does the same as StageInstall and a commit by ingesting SST files,
// whatever the content's size. The old content is excised, so that the new one goes to
// the bottom of the engine at once and is not written again by compactions; whoever
// reads meanwhile sees the one or the other wholly, or ErrReplaced. When it returns
// without an error, the installation is durable. It blocks on the disk: not for a
// worker. An error other than one of Finish is the engine's failure.
func (i *Import) Install(old shard.Span) error {
	if _, err := i.Finish(); err != nil {
		return err
	}
	if i.ssts == nil {
		if err := i.spill(); err != nil {
			return i.installFailed(err)
		}
		if err := i.ssts.close(); err != nil {
			return i.installFailed(err)
		}
	}
	for _, bounds := range clearedBounds(old, i.state.Descriptor.Span) {
		if err := i.ssts.clear(bounds[0], bounds[1]); err != nil {
			return i.installFailed(err)
		}
	}
	if err := i.ssts.local(i.shard, &i.state); err != nil {
		return i.installFailed(err)
	}
	// An ingest is durable when it returns, apart from the WAL's order: without
	// this sync a crash could keep the new state and lose the {term, vote} that
	// was committed before it.
	if err := i.e.syncWAL(); err != nil {
		return err
	}
	lower, upper := spanBounds(i.state.Descriptor.Span)
	end := i.e.excises.begin(keyBounds{lower, upper})
	_, err := i.e.db.IngestAndExcise(context.Background(), i.ssts.paths, nil, nil, pebble.KeyRange{Start: lower, End: upper})
	end()
	if err != nil {
		return i.installFailed(err)
	}
	if i.e.cfg.Simulated {
		i.e.quiesce() // the ingest may have rotated the memtable
	}
	return i.e.failure()
}

// installFailed: how far an installation came is not known, so nothing may go on
// as if it had not begun.
func (i *Import) installFailed(err error) error {
	i.e.fail(fmt.Errorf("installation of a snapshot of shard %d: %w", i.shard, err))
	return i.e.failure()
}

// clearedBounds are the parts of old that lie outside span, as keys of the
// store: what the replica held and does not cover any more.
func clearedBounds(old, span shard.Span) [][2][]byte {
	if len(old.Start) == 0 && len(old.End) == 0 {
		return nil
	}
	var parts [][2][]byte
	add := func(start, end []byte) {
		if bytes.Compare(start, end) < 0 {
			parts = append(parts, [2][]byte{appendDataKey(nil, start), appendDataKey(nil, end)})
		}
	}
	if !old.Overlaps(span) {
		add(old.Start, old.End)
		return parts
	}
	add(old.Start, span.Start)
	add(span.End, old.End)
	return parts
}
