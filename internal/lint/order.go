package lint

import (
	"go/ast"
	"go/types"
	"regexp"
)

// orderFree is the comment that allows a loop whose order does not matter.
var orderFree = regexp.MustCompile(`^//order-free: \S`)

// unordered are functions that visit a map in random order.
var unordered = map[string]bool{
	"maps.Keys": true, "maps.Values": true, "maps.All": true, "(*sync.Map).Range": true,
}

// sorting are functions that put what they are given in order.
var sorting = map[string]bool{
	"slices.Sorted": true, "slices.SortedFunc": true, "slices.SortedStableFunc": true,
}

// Order checks that no loop of a room that a simulation drives follows the
// random order of a map: one seed must give one run. A loop over sorted keys is
// a loop over a slice; any other needs a comment `//order-free: reason` on its
// line or on the line above.
func Order(m *Module) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		if room := roomOf(p.Path); testSupport(p.Path) || !belowNode(room) && room != "node" && room != "sim" {
			continue
		}
		for _, f := range p.Files {
			if _, exempt := Adapters[f.Path]; f.Built && !f.Generated && !exempt {
				found = append(found, m.order(p, f)...)
			}
		}
	}
	return found
}

func (m *Module) order(p *Package, f *File) []Finding {
	excused := m.excusedLines(f, orderFree)
	sorted := map[ast.Node]bool{} // calls whose result is sorted at once
	var found []Finding
	report := func(n ast.Node) {
		if line := m.Fset.Position(n.Pos()).Line; !excused[line] {
			found = append(found, m.at(f, n, "order",
				"this follows a map's random order: go over sorted keys, or say why not in a comment //order-free: reason"))
		}
	}
	ast.Inspect(f.Syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.RangeStmt:
			if t := p.Info.Types[n.X].Type; t != nil && isMap(t) {
				report(n)
			}
		case *ast.CallExpr:
			name := calledFunction(p.Info, n)
			if sorting[name] {
				for _, arg := range n.Args {
					sorted[arg] = true
				}
			}
			if unordered[name] && !sorted[n] {
				report(n)
			}
		}
		return true
	})
	return found
}

// excusedLines are the lines of comments that excuse what stands there, and those
// that follow them.
func (m *Module) excusedLines(f *File, excuse *regexp.Regexp) map[int]bool {
	lines := map[int]bool{}
	for _, group := range f.Syntax.Comments {
		for _, c := range group.List {
			if excuse.MatchString(c.Text) {
				line := m.Fset.Position(c.Pos()).Line
				lines[line], lines[line+1] = true, true
			}
		}
	}
	return lines
}

// isMap tells whether ranging over t follows a map's order. A type parameter
// counts if any type that it admits is a map.
func isMap(t types.Type) bool {
	if p, ok := types.Unalias(t).(*types.TypeParam); ok {
		t = p.Constraint()
	}
	switch u := t.Underlying().(type) {
	case *types.Map:
		return true
	case *types.Interface:
		for i := range u.NumEmbeddeds() {
			if union, ok := u.EmbeddedType(i).(*types.Union); ok {
				for j := range union.Len() {
					if isMap(union.Term(j).Type()) {
						return true
					}
				}
			} else if isMap(u.EmbeddedType(i)) {
				return true
			}
		}
	}
	return false
}

// calledFunction is the full name of the function that a call calls, or "".
func calledFunction(info *types.Info, call *ast.CallExpr) string {
	fun := ast.Unparen(call.Fun)
	switch index := fun.(type) { // explicit type arguments
	case *ast.IndexExpr:
		fun = index.X
	case *ast.IndexListExpr:
		fun = index.X
	}
	switch fun := fun.(type) {
	case *ast.Ident:
		return usedFunction(info, fun)
	case *ast.SelectorExpr:
		return usedFunction(info, fun.Sel)
	}
	return ""
}
