package storage

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// importSpareBytes is what an import leaves free of the disk, for the log and for
	// flushes. A snapshot can be refused, and a write to the log cannot: were the disk
	// filled to its last byte, whichever of the two came next would fail.
	importSpareBytes = 64 << 20
	// roomCheckBytes is what an import writes between two looks at the disk.
	roomCheckBytes = 1 << 20
)

// errNoRoom is why an import is refused that would fill the disk.
var errNoRoom = errors.New("the disk has no room for a snapshot")

// checkRoom refuses what would fill the disk, with an error that wraps errNoRoom.
// n is what is about to be written.
func (i *Import) checkRoom(n int) error {
	if i.unchecked -= n; i.unchecked >= 0 {
		return nil
	}
	i.unchecked = roomCheckBytes
	usage, err := i.e.fs.GetDiskUsage(i.e.cfg.Dir)
	switch {
	case errors.Is(err, vfs.ErrUnsupported):
		return nil // in memory
	case err != nil:
		return err
	case usage.AvailBytes < importSpareBytes:
		return fmt.Errorf("%w: %d MiB are free, and %d MiB are kept for the log", errNoRoom, usage.AvailBytes>>20, importSpareBytes>>20)
	}
	return nil
}
