package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The module in testdata/house breaks every rule. Its files say on which lines,
// and by which text: `want "text"`.
func loadBadHouse(t *testing.T) *Module {
	t.Helper()
	m, err := Load("testdata/house")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var wantPattern = regexp.MustCompile(`want (imports|steps|order|tests) "([^"]+)"`)

func TestRulesFindWhatIsMarkedAndNothingElse(t *testing.T) {
	saved := Adapters
	defer func() { Adapters = saved }()
	Adapters = map[string]string{"storage/adapter.go": "a test", "storage/needless.go": "a test"}

	m := loadBadHouse(t)
	got := map[string][]string{}
	for _, f := range slices.Concat(Imports(m), Steps(m), Order(m), Tests(m)) {
		if f.Line == 0 {
			continue // of a whole package; see the other tests
		}
		at := fmt.Sprintf("%s:%d %s", f.Path, f.Line, f.Rule)
		got[at] = append(got[at], f.Text)
	}
	wants := 0
	for _, p := range m.Packages {
		for _, file := range p.Files {
			src, err := os.ReadFile(filepath.Join(m.Root, file.Path))
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(src), "\n") {
				for _, want := range wantPattern.FindAllStringSubmatch(line, -1) {
					wants++
					at := fmt.Sprintf("%s:%d %s", file.Path, i+1, want[1])
					k := slices.IndexFunc(got[at], func(text string) bool { return strings.Contains(text, want[2]) })
					if k < 0 {
						t.Errorf("%s: not found: %q", at, want[2])
						continue
					}
					got[at] = slices.Delete(got[at], k, k+1)
				}
			}
		}
	}
	for at, texts := range got {
		for _, text := range texts {
			t.Errorf("%s: found, and should not be: %s", at, text)
		}
	}
	if wants < 30 {
		t.Errorf("only %d marks were read", wants)
	}
}

func TestStaleAdapters(t *testing.T) {
	saved := Adapters
	defer func() { Adapters = saved }()
	Adapters = map[string]string{"storage/adapter.go": "a test", "storage/needless.go": "a test", "storage/gone.go": "a test"}
	var got []string
	for _, f := range StaleAdapters(loadBadHouse(t)) {
		got = append(got, f.Path)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"storage/gone.go", "storage/needless.go"}) {
		t.Errorf("stale: %v", got)
	}
}

func TestPackagesWithoutARoom(t *testing.T) {
	var got []string
	for _, f := range Imports(loadBadHouse(t)) {
		if f.Line == 0 {
			got = append(got, f.String())
		}
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], "attic: this package belongs to no room") {
		t.Errorf("found %q", got)
	}
}

func TestLayout(t *testing.T) {
	var got []string
	for _, f := range Layout(loadBadHouse(t), 60) {
		got = append(got, f.String())
	}
	slices.Sort(got)
	want := []string{
		"attic/doc.go: the package comment begins with",
		"raftgroup: this package has no doc.go",
		"shard/long.go: this file is longer than any file may be",
	}
	if len(got) != len(want) {
		t.Fatalf("found %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("found %q, want %q", got[i], want[i])
		}
	}
}

func TestWords(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Makefile":       "all:\n\tGOPROXY=https://proxy.golang" + ".org go build\n",
		"a/b.go":         "package b\n\n// TO" + "DO: later\n",
		"good.md":        "nothing is wrong here; a TO" + "DO list is fine in prose\n",
		"image.bin":      "\x00/ro" + "ot/\n",
		"c/notes.txt":    "see /ho" + "me/somebody\n",
		".git/config":    "/ro" + "ot/\n",
		"bin/kiloraft":   "/ro" + "ot/\n",
		".ci/run":        "cd /work" + "/main\n",
		"deep/er/bin/ok": "fine\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Words(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s:%d", f.Path, f.Line))
	}
	slices.Sort(got)
	if want := []string{".ci/run:1", "Makefile:2", "a/b.go:3", "c/notes.txt:1"}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

func TestRoomOf(t *testing.T) {
	for pkg, want := range map[string]string{
		"shard": "shard", "shard/machine": "shard/machine", "shard/machine/x": "shard/machine", "shardy": "",
		"api/kiloraftpb": "api", "internal/env": "internal/env", "internal/env/prod": "internal/env/prod",
		"internal/other": "", "cmd/kiloraft": "cmd", "": "",
	} {
		if got := roomOf(pkg); got != want {
			t.Errorf("package %q is in room %q, want %q", pkg, got, want)
		}
	}
}

func TestLoadReportsWhatDoesNotCompile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module " + ModulePath + "\n\ngo 1.26\n",
		"shard/bad.go": "package shard\n\nvar x int = \"text\"\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); err == nil {
		t.Error("a module that does not compile was loaded")
	}
}
