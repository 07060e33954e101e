// Command fuzz runs every fuzz test of the module that it is started in, one after
// the other, for a share of the given time each. It ends with one line of figures,
// and with exit code 0 only if nothing was found.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// eachMin is the least that a target gets: below, not even its seeds are through.
const eachMin = time.Second

func main() {
	duration := flag.Duration("duration", 0, "time of all targets together")
	each := flag.Duration("each", 10*time.Second, "time of each target, unless -duration is given")
	only := flag.String("run", "", "run only the targets whose package and name match this regular expression")
	keep := flag.Int("keep", 0, "keep up to so many of a target's smallest inputs in its folder of seeds")
	flag.Parse()
	if err := run(*duration, *each, *only, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one fuzz test.
type target struct {
	pkg, dir, name string
}

// result is what one run has seen.
type result struct {
	executions, interesting int
	failed                  bool
	output                  []byte
}

func run(duration, each time.Duration, only string, keep int) error {
	match, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	targets, err := list(match)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return errors.New("there are no such targets")
	}
	if duration > 0 {
		each = max(duration/time.Duration(len(targets)), eachMin)
	}
	var all result
	crashes := 0
	for _, t := range targets {
		r, err := t.fuzz(each)
		if err != nil {
			return err
		}
		fmt.Printf("%-70s %10d executions %5d new\n", t.pkg+" "+t.name, r.executions, r.interesting)
		all.executions += r.executions
		all.interesting += r.interesting
		if r.failed {
			crashes++
			fmt.Printf("%s\n", r.output)
		}
		if keep > 0 && !r.failed {
			if err := t.keep(keep); err != nil {
				return err
			}
		}
	}
	verdict := "ok"
	if crashes > 0 {
		verdict = "FAILED"
	}
	fmt.Printf("fuzz: targets=%d executions=%d new=%d crashes=%d %s\n", len(targets), all.executions, all.interesting, crashes, verdict)
	if crashes > 0 {
		return fmt.Errorf("%d targets failed; each has written its input into its folder of seeds, and fails by it from now on", crashes)
	}
	return nil
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(\w+ \*testing\.F\)`)

// list finds the targets in the test files of all packages.
func list(match *regexp.Regexp) ([]target, error) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{range .TestGoFiles}}{{.}} {{end}}{{range .XTestGoFiles}}{{.}} {{end}}", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var found []target
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		for _, file := range strings.Fields(fields[2]) {
			text, err := os.ReadFile(filepath.Join(fields[1], file))
			if err != nil {
				return nil, err
			}
			for _, m := range declaration.FindAllSubmatch(text, -1) {
				t := target{pkg: fields[0], dir: fields[1], name: string(m[1])}
				if match.MatchString(t.pkg + " " + t.name) {
					found = append(found, t)
				}
			}
		}
	}
	return found, nil
}

// status is the line that go test prints from time to time.
var status = regexp.MustCompile(`execs: (\d+) \(.*new interesting: (\d+)`)

func (t *target) fuzz(d time.Duration) (r result, err error) {
	cmd := exec.Command("go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", d.String(), t.pkg)
	r.output, err = cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return r, err
	}
	r.failed = err != nil
	for lines := bufio.NewScanner(bytes.NewReader(r.output)); lines.Scan(); {
		if m := status.FindStringSubmatch(lines.Text()); m != nil {
			r.executions, _ = strconv.Atoi(m[1])
			r.interesting, _ = strconv.Atoi(m[2])
		}
	}
	return r, nil
}

// keptBytesMax bounds an input that is kept.
const keptBytesMax = 512

// keep copies the smallest inputs that were found to the seeds beside the test.
func (t *target) keep(most int) error {
	cache, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return err
	}
	seeds := filepath.Join(t.dir, "testdata", "fuzz", t.name)
	kept, err := os.ReadDir(seeds)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	type input struct {
		name string
		text []byte
	}
	var found []input
	dir := filepath.Join(strings.TrimSpace(string(cache)), "fuzz", filepath.FromSlash(t.pkg), t.name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if len(text) <= keptBytesMax && !slices.ContainsFunc(kept, func(k os.DirEntry) bool { return k.Name() == e.Name() }) {
			found = append(found, input{e.Name(), text})
		}
	}
	slices.SortFunc(found, func(a, b input) int {
		return cmp.Or(cmp.Compare(len(a.text), len(b.text)), strings.Compare(a.name, b.name))
	})
	for _, in := range found[:min(len(found), max(0, most-len(kept)))] {
		if err := os.MkdirAll(seeds, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(seeds, in.name), in.text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
