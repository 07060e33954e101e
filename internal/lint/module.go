package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ModulePath is the module whose rules these are.
const ModulePath = "github.com/kiloraft/kiloraft"

// Module is a Go module as the rules see it.
type Module struct {
	Root     string // absolute
	Packages []*Package
	Fset     *token.FileSet
}

// Package is one directory with Go files.
type Package struct {
	Path  string // within the module, with slashes; "" is the module's root
	Name  string
	Files []*File
	// Info holds the types of the files that are built on this system and are
	// not tests.
	Info *types.Info
}

// File is one Go file.
type File struct {
	Path      string // within the module, with slashes
	Syntax    *ast.File
	Test      bool // its name ends in _test.go
	Built     bool // part of the package on this system: has types
	Generated bool
	Lines     int
}

// Imports lists the import paths of f, unquoted, with their positions.
func (f *File) Imports() []*ast.ImportSpec { return f.Syntax.Imports }

// Finding is one broken rule.
type Finding struct {
	Path string // of the file or folder, within the module
	Line int    // 0: the whole file or folder
	Rule string
	Text string // what is wrong, and what to do instead
}

func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s: %s (%s)", f.Path, f.Text, f.Rule)
	}
	return fmt.Sprintf("%s:%d: %s (%s)", f.Path, f.Line, f.Text, f.Rule)
}

// at makes a finding at a node of a file.
func (m *Module) at(f *File, n ast.Node, rule, format string, args ...any) Finding {
	return Finding{Path: f.Path, Line: m.Fset.Position(n.Pos()).Line, Rule: rule, Text: fmt.Sprintf(format, args...)}
}

// listed is what `go list -json` tells of a package.
type listed struct {
	Dir, ImportPath, Name, Export                                string
	DepOnly                                                      bool
	GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Error                                                        *struct{ Err string }
}

// Load reads and type-checks the module at root. Types of imported packages come
// from the build cache, so that only the module's own files are parsed.
func Load(root string) (*Module, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	own, exports, err := list(root)
	if err != nil {
		return nil, err
	}
	m := &Module{Root: root, Fset: token.NewFileSet()}
	compiled := importer.ForCompiler(m.Fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data for %s", path)
		}
		return os.Open(exports[path])
	})
	for _, l := range own {
		p, err := m.load(l, compiled)
		if err != nil {
			return nil, err
		}
		m.Packages = append(m.Packages, p)
	}
	return m, nil
}

// list asks the go command for the module's packages and for where the compiled
// types of everything that they import are.
func list(root string) (own []listed, exports map[string]string, err error) {
	cmd := exec.Command("go", "list", "-e", "-export", "-deps",
		"-json=Dir,ImportPath,Name,Export,DepOnly,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Error", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	exports = map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return own, exports, nil
		} else if err != nil {
			return nil, nil, fmt.Errorf("go list: %w", err)
		}
		exports[l.ImportPath] = l.Export
		if l.DepOnly {
			continue
		}
		if l.Error != nil {
			return nil, nil, fmt.Errorf("%s: %s", l.ImportPath, l.Error.Err)
		}
		own = append(own, l)
	}
}

func (m *Module) load(l listed, imp types.Importer) (*Package, error) {
	p := &Package{Path: strings.TrimPrefix(strings.TrimPrefix(l.ImportPath, ModulePath), "/"), Name: l.Name,
		Info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}}
	var built []*ast.File
	for _, name := range slices.Concat(l.GoFiles, l.CgoFiles, l.IgnoredGoFiles, l.TestGoFiles, l.XTestGoFiles) {
		f, err := m.parse(filepath.Join(l.Dir, name))
		if err != nil {
			return nil, err
		}
		f.Built = slices.Contains(l.GoFiles, name)
		if f.Built {
			built = append(built, f.Syntax)
		}
		p.Files = append(p.Files, f)
	}
	conf := types.Config{Importer: imp}
	if _, err := conf.Check(l.ImportPath, m.Fset, built, p.Info); err != nil {
		return nil, fmt.Errorf("%s does not compile: %w", l.ImportPath, err)
	}
	return p, nil
}

func (m *Module) parse(path string) (*File, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(m.Fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(m.Root, path)
	if err != nil {
		return nil, err
	}
	return &File{Path: filepath.ToSlash(rel), Syntax: syntax, Test: strings.HasSuffix(path, "_test.go"),
		Generated: ast.IsGenerated(syntax), Lines: bytes.Count(src, []byte("\n"))}, nil
}
