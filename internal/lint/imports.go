package lint

import (
	"slices"
	"strconv"
	"strings"
)

// Imports checks the import directions between rooms, that shard and
// internal/env rest on the standard library alone, that raft's protobuf types
// stay where the log is, and that production code does not import testing.
// Directions hold for production code: a test may look to its right.
func Imports(m *Module) []Finding {
	var found []Finding
	for _, p := range m.Packages {
		room := roomOf(p.Path)
		if room == "" {
			found = append(found, Finding{Path: p.Path, Rule: "rooms", Text: "this package belongs to no room; give it a place in internal/lint/rooms.go"})
			continue
		}
		for _, f := range p.Files {
			for _, spec := range f.Imports() {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					panic(err) // the parser has accepted it
				}
				if text := checkImport(p, room, f, path); text != "" {
					found = append(found, m.at(f, spec, "imports", "%s", text))
				}
			}
		}
	}
	return found
}

// checkImport says what is wrong with one import, or nothing.
func checkImport(p *Package, room string, f *File, path string) string {
	if strings.HasPrefix(path, "go.etcd.io/raft/v3/raftpb") && !mayUseRaftpb(room) {
		return "raftpb stays inside raftgroup and storage, so that a later raft is a small change"
	}
	if f.Test {
		return ""
	}
	own, inside := strings.CutPrefix(path, ModulePath+"/")
	switch {
	case path == "testing" || strings.HasPrefix(path, "testing/"):
		if !testSupport(p.Path) {
			return "production code does not import " + path
		}
	case inside:
		return checkDirection(p.Path, room, f.Path, own)
	case (room == "shard" || room == "internal/env") && !standardLibrary(path):
		return room + " imports the standard library only, not " + path
	}
	return ""
}

func checkDirection(importer, room, file, imported string) string {
	to := roomOf(imported)
	switch {
	case to == "":
		return imported + " belongs to no room; give it a place in internal/lint/rooms.go"
	case testSupport(imported) && !testSupport(importer):
		return imported + " is test support; production code does not import it"
	case to == room:
		return ""
	}
	if rule, ok := outside[to]; ok {
		if !slices.Contains(rule.importers, room) || room == "client" && !reachesOut(file, to) {
			return to + " is not for " + file
		}
		return ""
	}
	if rule, ok := outside[room]; ok {
		if !slices.Contains(rule.imports, to) {
			return room + " does not import " + to
		}
		return ""
	}
	if columnOf(to) >= columnOf(room) {
		return "room " + room + " imports only rooms to its left, and " + to + " is not one"
	}
	return ""
}

// mayUseRaftpb: the rooms of the log.
func mayUseRaftpb(room string) bool {
	return room == "raftgroup" || room == "raftgroup/transport" || room == "storage"
}

// testSupport tells whether a package is for tests only: its name ends in "test".
func testSupport(pkg string) bool { return strings.HasSuffix(pkg, "test") }

// standardLibrary: its first path element has no dot.
func standardLibrary(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
