package lint

import (
	"go/ast"
	"slices"
)

// Tests checks that no test skips itself: a test that may not run shows nothing.
func Tests(m *Module) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		for _, f := range p.Files {
			if !f.Test {
				continue
			}
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
					found = append(found, m.at(f, call, "tests", "a test does not skip itself"))
				}
				return true
			})
		}
	}
	return found
}
