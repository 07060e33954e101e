package prod

import (
	"time"

	"golang.org/x/sys/unix"
)

// readClock reads CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it goes on while the
// machine is suspended. A lease that was measured by a clock which stood still
// would be believed long after the others gave it up.
func readClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("read CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
