//go:build !linux

package prod

import "time"

var processStart = time.Now()

// readClock reads Go's monotonic clock, which may stand still during suspend on
// some systems.
func readClock() time.Duration { return time.Since(processStart) }
