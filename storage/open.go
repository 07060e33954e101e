package storage

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What Open refuses. In each case nothing in the directory was changed.
var (
	// ErrLocked: another process (or engine of this one) has the store open.
	// Stop it, or use another directory.
	ErrLocked = errors.New("the store is in use by another process")
	// ErrForeign: the directory holds files that are not a Kiloraft store.
	// Use an empty directory.
	ErrForeign = errors.New("the directory is not a Kiloraft store")
	// ErrNewer: the store was written by a newer version of Kiloraft. Use that.
	ErrNewer = errors.New("the store was written by a newer version of Kiloraft")
	// ErrUnusable: the directory cannot be made, read or written.
	ErrUnusable = errors.New("the store's directory cannot be used")
	// ErrDamaged: files of the store are missing or corrupt. Restore the
	// directory, or start the node anew with an empty one.
	ErrDamaged = errors.New("the store is damaged")
)

// Open opens the store in cfg.Dir, and makes one if the directory is missing or
// empty. Errors wrap one of ErrLocked, ErrForeign, ErrNewer, ErrUnusable and
// ErrDamaged.
func Open(cfg Config) (*Engine, error) {
	cfg.setDefaults()
	e := newEngine(cfg)

	// Before anything is made: a foreign directory stays as it is.
	if _, err := readMarker(cfg.FS, cfg.Dir); err != nil {
		return nil, err
	}
	if err := makeDirectory(cfg.FS, cfg.Dir); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnusable, cfg.Dir, err)
	}
	if info, err := cfg.FS.Stat(cfg.Dir); err == nil && info.Mode().Perm()&0o077 != 0 {
		cfg.Logger.Warn("storage: others may read the store's directory; its mode should be 0700",
			slog.String("directory", cfg.Dir), slog.String("mode", info.Mode().Perm().String()))
	}
	lock, err := lockDirectory(cfg.FS, cfg.Dir)
	if err != nil {
		return nil, err
	}
	e.lock = lock
	stage, err := readMarker(cfg.FS, cfg.Dir)
	if err == nil { // again: another process may have been faster
		err = e.openLocked(stage)
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return e, nil
}

// openLocked opens Pebble between the two stages of the marker. A store whose
// marker says ready must have its Pebble files: opening it must never make a new,
// empty database in place of one that was lost.
func (e *Engine) openLocked(stage markerStage) error {
	fs, dir := e.cfg.FS, e.cfg.Dir
	if stage == markerNone {
		if err := writeMarker(fs, dir, markerCreating); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
		}
	}
	if stage == markerReady {
		if err := checkPebbleFormat(fs, dir); err != nil {
			return err
		}
		if err := checkManifest(fs, dir); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, dir, err)
		}
	}
	opts := e.options()
	opts.ErrorIfNotExists = stage == markerReady
	opts.Lock = e.lock
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", openErrorKind(err), dir, err)
	}
	e.db = db
	opts.EnsureDefaults()
	e.sstOptions = opts
	if stage != markerReady {
		if err := writeMarker(fs, dir, markerReady); err != nil {
			db.Close()
			return fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
		}
	}
	if err := e.removeIncoming(); err != nil {
		db.Close()
		return fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
	}
	e.startWaiters()
	return nil
}

// checkPebbleFormat refuses a database that a newer Pebble has written, before
// pebble.Open touches it.
func checkPebbleFormat(fs vfs.FS, dir string) error {
	_, err := pebble.Peek(dir, fs)
	var path *iofs.PathError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &path):
		return fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
	default:
		return fmt.Errorf("%w: %s: %w", ErrNewer, dir, err)
	}
}

func openErrorKind(err error) error {
	if pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrDBDoesNotExist) || errors.Is(err, pebble.ErrDBNotPristine) {
		return ErrDamaged
	}
	return ErrUnusable
}

// makeDirectory makes dir and its missing parents, durably.
func makeDirectory(fs vfs.FS, dir string) error {
	if info, err := fs.Stat(dir); err == nil {
		if !info.IsDir() {
			return errors.New("it is a file")
		}
		return nil
	}
	var parents []string
	for d := fs.PathDir(dir); ; d = fs.PathDir(d) {
		parents = append(parents, d)
		if _, err := fs.Stat(d); err == nil || fs.PathDir(d) == d {
			break
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range parents {
		if err := syncDirectory(fs, d); err != nil {
			return err
		}
	}
	return nil
}

func syncDirectory(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDirectory tells a lock that is taken from a lock file that cannot be
// made: the latter fails with the path in its error.
func lockDirectory(fs vfs.FS, dir string) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(dir, fs)
	if err == nil {
		return lock, nil
	}
	var path *iofs.PathError
	if errors.As(err, &path) {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrLocked, dir, err)
}
