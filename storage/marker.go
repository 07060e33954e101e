package storage

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The marker is a small text file that says whose directory this is. It is
// written before Pebble makes its own files and again after, so that a directory
// without it that is not empty is foreign, and one that says ready is complete.
const (
	markerName   = "KILORAFT"
	markerTemp   = "KILORAFT.tmp"
	markerPrefix = "kiloraft store, format "
	storeFormat  = 1
	// markerBytesMax bounds what is read of a file by this name.
	markerBytesMax = 256
)

type markerStage int

const (
	markerNone     markerStage = iota // an empty directory, or none
	markerCreating                    // Pebble's first files may be incomplete
	markerReady
)

var markerWords = [...]string{markerCreating: "creating", markerReady: "ready"}

func formatMarker(stage markerStage) string {
	return fmt.Sprintf("%s%d, %s\n", markerPrefix, storeFormat, markerWords[stage])
}

// readMarker looks at dir and changes nothing in it.
func readMarker(fs vfs.FS, dir string) (markerStage, error) {
	names, err := fs.List(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return markerNone, nil
	}
	if err != nil {
		return markerNone, fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
	}
	foreign := ""
	for _, name := range names {
		switch name {
		case markerName:
			return parseMarkerFile(fs, dir)
		case markerTemp, "LOCK", "lost+found":
			// A start that ended between the lock and the marker leaves the first
			// two; the third is a mounted file system's.
		default:
			foreign = name
		}
	}
	if foreign != "" {
		return markerNone, fmt.Errorf("%w: %s has no file %s but others, among them %s; use an empty directory",
			ErrForeign, dir, markerName, foreign)
	}
	return markerNone, nil
}

func parseMarkerFile(fs vfs.FS, dir string) (markerStage, error) {
	f, err := fs.Open(fs.PathJoin(dir, markerName))
	if err != nil {
		return markerNone, fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, markerBytesMax))
	if err != nil {
		return markerNone, fmt.Errorf("%w: %s: %w", ErrUnusable, dir, err)
	}
	stage, err := parseMarker(string(b))
	if err != nil {
		return markerNone, fmt.Errorf("%w (%s)", err, dir)
	}
	return stage, nil
}

func parseMarker(text string) (markerStage, error) {
	rest, ok := strings.CutPrefix(text, markerPrefix)
	if !ok {
		return markerNone, fmt.Errorf("%w: its file %s is something else", ErrForeign, markerName)
	}
	var version int
	var word string
	if n, _ := fmt.Sscanf(rest, "%d, %s", &version, &word); n >= 1 && version > storeFormat {
		return markerNone, fmt.Errorf("%w: format %d, this version reads up to %d", ErrNewer, version, storeFormat)
	}
	for stage := markerCreating; stage <= markerReady; stage++ {
		if text == formatMarker(stage) {
			return stage, nil
		}
	}
	return markerNone, fmt.Errorf("%w: its file %s is malformed", ErrDamaged, markerName)
}

// writeMarker replaces the marker atomically and durably.
func writeMarker(fs vfs.FS, dir string, stage markerStage) error {
	temp := fs.PathJoin(dir, markerTemp)
	f, err := fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(formatMarker(stage)))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(temp, fs.PathJoin(dir, markerName)); err != nil {
		return err
	}
	return syncDirectory(fs, dir)
}
