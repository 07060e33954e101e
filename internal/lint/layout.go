package lint

import (
	"path"
	"slices"
	"strings"
)

// LinesMax is the longest that a file may be, unless it is generated.
const LinesMax = 900

// Layout checks that every package has a doc.go that says what it is for, and
// that no file is too long to read.
func Layout(m *Module, linesMax int) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		if f := checkDoc(p); f != nil {
			found = append(found, *f)
		}
		for _, f := range p.Files {
			if f.Lines > linesMax && !f.Generated {
				found = append(found, Finding{Path: f.Path, Rule: "layout", Text: "this file is longer than any file may be: it has more than one verb"})
			}
		}
	}
	return found
}

// checkDoc: generated packages and those of tests alone need no doc.go.
func checkDoc(p *Package) *Finding {
	if !slices.ContainsFunc(p.Files, func(f *File) bool { return !f.Test && !f.Generated }) {
		return nil
	}
	for _, f := range p.Files {
		if path.Base(f.Path) != "doc.go" {
			continue
		}
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command "
		}
		if f.Syntax.Doc == nil || !strings.HasPrefix(f.Syntax.Doc.Text(), want) {
			return &Finding{Path: f.Path, Rule: "layout", Text: "the package comment begins with \"" + want + "\" and says what the package is for"}
		}
		return nil
	}
	return &Finding{Path: p.Path, Rule: "layout", Text: "this package has no doc.go"}
}
