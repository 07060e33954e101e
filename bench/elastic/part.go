package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// part is one measurement, and the cluster that it needs.
type part struct {
	name          string
	nodes, shards int
	measure       func(context.Context, *scene, *report) error
}

var parts = []part{
	{"churn", 4, 6, churn}, // moves need a node that a shard is not on
	{"spread", 4, 1, spread},
	{"join", 3, 16, join},
}

// task is what the command inside is told by the one outside.
type task struct {
	Part  string `json:"part"`
	Scale scale  `json:"scale"`
}

const (
	// taskVariable tells the command inside that it is the one, and what to do; commandVariable
	// tells the demo's shell where the command is, whatever there is in its path.
	taskVariable    = "ELASTIC_TASK"
	commandVariable = "ELASTIC_COMMAND"
	// partPatience bounds a part, besides its busy time; stopPatience is how long the
	// demo may take to end the cluster when it is interrupted.
	partPatience = 15 * time.Minute
	stopPatience = time.Minute
)

// inDemo has the part measured on a cluster of its own. A part that cannot be measured
// has a report that says so.
func (p *part) inDemo(ctx context.Context, cfg config) *report {
	r := &report{Part: p.name}
	fail := func(err error) *report {
		r.fail("it was not measured: %v", err)
		return r
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	text, err := json.Marshal(task{Part: p.name, Scale: cfg.scale})
	if err != nil {
		return fail(err)
	}
	cmd := exec.CommandContext(ctx, cfg.binary, "demo", "--nodes", strconv.Itoa(p.nodes), "--shards", strconv.Itoa(p.shards), "--exec", `exec "$`+commandVariable+`"`)
	cmd.Env = append(environ(), taskVariable+"="+string(text), commandVariable+"="+self)
	cmd.Stderr = os.Stderr
	// A group of its own: an interrupt is passed on once, and the demo ends in an orderly
	// way, its nodes and its folder with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopPatience
	out, err := cmd.Output()
	if err != nil {
		return fail(err)
	}
	if err := json.Unmarshal(out, r); err != nil {
		return fail(err)
	}
	return r
}

// environ is the environment without the variables that stand for flags of kiloraft.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KILORAFT_") })
}
