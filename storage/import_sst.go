package storage

import (
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/cockroachdb/pebble/v2/cockroachkvs"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/kiloraft/kiloraft/shard"
)

var comparer = &cockroachkvs.Comparer

// incomingDir, in the store's directory, holds SST files of imports.
const incomingDir = "incoming"

// sstBytes is the content after which an import starts its next file.
const sstBytes = 32 << 20

// incomingBytesPerSync paces the writing: an fsync of the WAL may have to wait
// for whatever else is dirty.
const incomingBytesPerSync = 512 << 10

// sstWriter writes the SST files of one import, one after the other. Those of the data
// hold its records and no tombstones: a file with tombstones would be compacted again for
// their sake. That the files replace what the span held is the excise's doing.
type sstWriter struct {
	e      *Engine
	prefix string // of file names
	paths  []string

	w       *sstable.Writer // of the present file, nil between files
	written int             // bytes of the present file
}

func (e *Engine) newSSTWriter(id shard.ID) (*sstWriter, error) {
	dir := e.fs.PathJoin(e.cfg.Dir, incomingDir)
	if err := e.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &sstWriter{e: e, prefix: e.fs.PathJoin(dir, fmt.Sprintf("%d-%d", id, e.imports.Add(1)))}, nil
}

// add writes the next record of the data.
func (w *sstWriter) add(key, value []byte) error {
	if w.written >= sstBytes {
		if err := w.close(); err != nil {
			return err
		}
	}
	if err := w.open(); err != nil {
		return err
	}
	w.written += len(key) + len(value)
	return w.w.Set(key, value)
}

func (w *sstWriter) open() error {
	if w.w != nil {
		return nil
	}
	path := fmt.Sprintf("%s-%d.sst", w.prefix, len(w.paths))
	f, err := w.e.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	w.paths = append(w.paths, path)
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: incomingBytesPerSync})
	w.w = sstable.NewWriter(objstorageprovider.NewFileWritable(f), w.e.writerOptions())
	return nil
}

// close ends the present file, if there is one, and syncs it.
func (w *sstWriter) close() error {
	if w.w == nil {
		return nil
	}
	sst := w.w
	w.w, w.written = nil, 0
	return sst.Close()
}

// clear writes a file that deletes [lower, upper) and holds nothing.
func (w *sstWriter) clear(lower, upper []byte) error {
	if err := w.open(); err != nil {
		return err
	}
	if err := w.w.DeleteRange(lower, upper); err != nil {
		return err
	}
	return w.close()
}

// local writes the file with the replica's records: the state, and a log that
// begins behind it.
func (w *sstWriter) local(id shard.ID, state *ReplicaState) error {
	if err := w.open(); err != nil {
		return err
	}
	return errors.Join(
		w.w.DeleteRange(recordKey(id, logRecords), recordKey(id, afterLogRecords)),
		w.w.Set(recordKey(id, stateRecord), appendReplicaState(nil, state)),
		w.w.Set(logKey(id, state.Applied), appendAnchor(nil, state.AppliedTerm)),
		w.close())
}

// abandon removes all files that the engine has not taken.
func (w *sstWriter) abandon() error {
	err := w.close()
	for _, path := range w.paths {
		if e := w.e.fs.Remove(path); e != nil && !errors.Is(e, iofs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	w.paths = nil
	return err
}

func (e *Engine) writerOptions() sstable.WriterOptions {
	return e.sstOptions.MakeWriterOptions(0, e.db.TableFormat())
}

// removeIncoming removes what imports left that a crash cut short.
func (e *Engine) removeIncoming() error {
	dir := e.fs.PathJoin(e.cfg.Dir, incomingDir)
	names, err := e.fs.List(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		err = errors.Join(err, e.fs.Remove(e.fs.PathJoin(dir, name)))
	}
	return err
}
