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

// sstWriter writes the SST files of one import. The files of the data tile the
// span: each one deletes its part of the span by a range tombstone that lies
// below its own records, so that together they replace the whole span, whatever
// it held. (Records and tombstones of one ingested file get one sequence number,
// and a range tombstone deletes only what has a lower one.)
type sstWriter struct {
	e      *Engine
	prefix string // of file names
	upper  []byte // of the span
	paths  []string

	w       *sstable.Writer // of the present file, nil between files
	start   []byte          // of the present tile
	last    []byte          // prefix of the last key
	written int             // bytes of the present tile
}

func (e *Engine) newSSTWriter(id shard.ID, lower, upper []byte) (*sstWriter, error) {
	dir := e.fs.PathJoin(e.cfg.Dir, incomingDir)
	if err := e.fs.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &sstWriter{e: e, upper: upper, start: lower,
		prefix: e.fs.PathJoin(dir, fmt.Sprintf("%d-%d", id, e.imports.Add(1)))}, nil
}

// add writes the next record of the data. A file ends only between two keys, so
// that a tile's bounds are bare prefixes.
func (w *sstWriter) add(key, value []byte) error {
	prefix := key[:comparer.Split(key)]
	if w.written >= sstBytes && comparer.Compare(prefix, w.last) != 0 {
		if err := w.finishTile(prefix); err != nil {
			return err
		}
	}
	if err := w.open(); err != nil {
		return err
	}
	w.last = append(w.last[:0], prefix...)
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

// finishTile ends the present file; its tile ends at end, where the next begins.
func (w *sstWriter) finishTile(end []byte) error {
	if err := w.open(); err != nil {
		return err
	}
	if err := w.w.DeleteRange(w.start, end); err != nil {
		return err
	}
	w.start = append([]byte(nil), end...)
	return w.close()
}

// close ends the present file and syncs it.
func (w *sstWriter) close() error {
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
	var err error
	if w.w != nil {
		err = w.close()
	}
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
