package lint

import (
	"go/ast"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// Adapters are the files below package node that touch the world on behalf of
// steps, each behind an interface with a simulated twin, by the reason why they
// must. They are exempt from Steps and Order.
var Adapters = map[string]string{
	"client/facade.go":                     "the blocking facade: callers wait in it",
	"client/facade_wait.go":                "the blocking facade: callers wait in it",
	"client/grpc.go":                       "the gRPC client connection",
	"raftgroup/transport/grpc.go":          "the gRPC peer transport",
	"raftgroup/transport/grpc_accept.go":   "the gRPC peer transport",
	"raftgroup/transport/grpc_peer.go":     "the gRPC peer transport",
	"raftgroup/transport/grpc_snapshot.go": "the gRPC peer transport",
	"storage/sync_wait.go":                 "Pebble: somebody waits for a shared sync",
}

// forbiddenCalls are the functions that a step must not use, by what to use
// instead. Names are as go/types writes them.
var forbiddenCalls = map[string]string{
	"time.Now":                  "use env.Env.Now",
	"time.Since":                "use env.Env.Now",
	"time.Until":                "use env.Env.Now",
	"time.Sleep":                "use env.Env.AfterFunc",
	"time.After":                "use env.Env.AfterFunc",
	"time.AfterFunc":            "use env.Env.AfterFunc",
	"time.NewTimer":             "use env.Env.AfterFunc",
	"time.NewTicker":            "use env.Env.AfterFunc",
	"time.Tick":                 "use env.Env.AfterFunc",
	"context.WithTimeout":       "use env.Env.AfterFunc",
	"context.WithTimeoutCause":  "use env.Env.AfterFunc",
	"context.WithDeadline":      "use env.Env.AfterFunc",
	"context.WithDeadlineCause": "use env.Env.AfterFunc",
	"context.AfterFunc":         "it starts a goroutine; submit a step instead",
	"(*sync.WaitGroup).Go":      "it starts a goroutine; submit a step instead",
	"runtime.Gosched":           "a step does not wait for another goroutine",
}

// forbiddenImports are packages that code below node does not import, whole
// trees of them, by what to use instead.
var forbiddenImports = map[string]string{
	"math/rand":   "use env.Env.Uint64",
	"crypto/rand": "use env.Env.Uint64; secrets are made by package server or cmd",
	"net":         "reach the network through the room's own interface",
	"os":          "reach files through vfs.FS",
	"syscall":     "reach the system through internal/env and vfs.FS",
	"io/ioutil":   "reach files through vfs.FS",
}

// Steps checks that code below package node consists of steps: no go statement,
// no select, no clock, timer, randomness, network or file of the real world.
// Tests and Adapters are free.
func Steps(m *Module) []Finding {
	var found []Finding
	m.eachStepFile(func(p *Package, f *File) {
		if _, exempt := Adapters[f.Path]; !exempt {
			found = append(found, m.steps(p, f)...)
		}
	})
	return found
}

// StaleAdapters finds entries of Adapters that no file needs any more.
func StaleAdapters(m *Module) []Finding {
	needed := map[string]bool{}
	m.eachStepFile(func(p *Package, f *File) {
		needed[f.Path] = len(m.steps(p, f)) > 0
	})
	var found []Finding
	for path := range Adapters {
		if !needed[path] {
			found = append(found, Finding{Path: path, Rule: "steps", Text: "this file needs no exemption; take it out of the table of adapters"})
		}
	}
	return found
}

// eachStepFile visits the production files of rooms below node.
func (m *Module) eachStepFile(visit func(*Package, *File)) {
	for _, p := range m.Packages {
		if !belowNode(roomOf(p.Path)) || testSupport(p.Path) {
			continue
		}
		for _, f := range p.Files {
			if !f.Test && !f.Generated {
				visit(p, f)
			}
		}
	}
}

func (m *Module) steps(p *Package, f *File) []Finding {
	var found []Finding
	report := func(n ast.Node, format string, args ...any) {
		found = append(found, m.at(f, n, "steps", format, args...))
	}
	for _, spec := range f.Imports() {
		path, _ := strconv.Unquote(spec.Path.Value)
		for tree, instead := range forbiddenImports {
			if path == tree || strings.HasPrefix(path, tree+"/") {
				report(spec, "code below node does not import %s: %s", path, instead)
			}
		}
	}
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "code below node starts no goroutine: submit a step to a queue")
		case *ast.SelectStmt:
			report(n, "code below node does not wait in a select: report by a callback")
		case *ast.Ident:
			if name := usedFunction(p.Info, n); name != "" {
				if instead, ok := forbiddenCalls[name]; ok {
					report(n, "code below node does not use %s: %s", name, instead)
				}
			}
		}
		return true
	})
	slices.SortStableFunc(found, func(a, b Finding) int { return a.Line - b.Line })
	return found
}

// usedFunction is the full name of the function or method that an identifier
// stands for, whatever its package is called in the file; or "".
func usedFunction(info *types.Info, id *ast.Ident) string {
	if f, ok := info.Uses[id].(*types.Func); ok {
		return f.FullName()
	}
	return ""
}
