package lint

import (
	"go/ast"
	"regexp"
	"slices"
)

// lacking is the comment that allows a test to skip itself.
var lacking = regexp.MustCompile(`^//lacking: \S`)

// Tests checks that no test skips itself: a test that may not run shows nothing. Where
// the machine may lack what a test is about, a comment `//lacking: what` on the line or
// on the line above says so.
func Tests(m *Module) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		for _, f := range p.Files {
			if !f.Test {
				continue
			}
			excused := m.excusedLines(f, lacking)
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) && !excused[m.Fset.Position(call.Pos()).Line] {
					found = append(found, m.at(f, call, "tests", "a test does not skip itself"))
				}
				return true
			})
		}
	}
	return found
}
