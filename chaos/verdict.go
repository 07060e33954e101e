package main

import (
	"fmt"
	"sync"
)

// verdict collects what is wrong.
type verdict struct {
	say func(format string, args ...any)

	mu    sync.Mutex
	wrong []string
	quiet bool // nothing more is taken down
	stop  func()
}

// fail notes that something does not hold, and ends the run.
func (v *verdict) fail(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.quiet {
		return
	}
	text := fmt.Sprintf(format, args...)
	v.wrong = append(v.wrong, text)
	v.say("FAILED: %s", text)
	v.stop()
}

func (v *verdict) failed() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.wrong) > 0
}

// end notes why the run could not go on, unless that is because something was wrong.
func (v *verdict) end(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.quiet = true
	if len(v.wrong) == 0 {
		v.wrong = append(v.wrong, err.Error())
	}
}

// close says that what happens from now on is no part of the run.
func (v *verdict) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.quiet = true
}
