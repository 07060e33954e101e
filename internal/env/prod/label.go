package prod

import (
	"context"
	"runtime/pprof"
)

// labelled runs run with the queue's name as a profile label: a CPU profile of a
// node then splits by queue (go tool pprof -tagfocus queue=NAME).
func labelled(name string, run func()) {
	pprof.Do(context.Background(), pprof.Labels("queue", name), func(context.Context) { run() })
}
