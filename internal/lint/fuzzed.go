package lint

import (
	"go/ast"
	"strings"
)

// fuzzedBy are decoders that no fuzz test names, by the fuzz test of their package that
// reaches them; "": one of another package does.
var fuzzedBy = map[string]string{
	"storage.decodeEntryHead":           "FuzzEntry",
	"storage.parseMarkerFile":           "FuzzMarker",
	"raftgroup/transport.decodeRefusal": "FuzzHandshake",
	"placement/catalog.parseDuration":   "FuzzParseSetting",
	"placement/catalog.parseBytes":      "FuzzParseSetting",
	"shard/replica.decode":              "", // package shard's, and bounds
}

// Fuzzed checks that a fuzz test names each function that reads bytes or text of others:
// one called decode or parse something.
func Fuzzed(m *Module) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		tests, named := p.fuzzTests()
		for _, f := range p.Files {
			if f.Test || f.Generated || strings.HasPrefix(p.Path, "internal/lint") || strings.HasPrefix(p.Path, "tools") {
				continue
			}
			for _, d := range f.Syntax.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || fn.Recv != nil || !decodes(fn.Name.Name) || named[fn.Name.Name] {
					continue
				}
				by, exempt := fuzzedBy[p.Path+"."+fn.Name.Name]
				if !exempt || by != "" && !tests[by] {
					found = append(found, m.at(f, fn, "fuzzed", "no fuzz test of this package names %s", fn.Name.Name))
				}
			}
		}
	}
	return found
}

func decodes(name string) bool {
	name = strings.ToLower(name[:1]) + name[1:]
	return strings.HasPrefix(name, "decode") || strings.HasPrefix(name, "parse")
}

// fuzzTests are the names of a package's fuzz tests, and what these name.
func (p *Package) fuzzTests() (tests, named map[string]bool) {
	tests, named = map[string]bool{}, map[string]bool{}
	for _, f := range p.Files {
		if !f.Test {
			continue
		}
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			tests[fn.Name.Name] = true
			ast.Inspect(fn, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					named[id.Name] = true
				}
				return true
			})
		}
	}
	return tests, named
}
