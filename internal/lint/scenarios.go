package lint

import (
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// feature is something that is not built yet, and that scenarios wait for. It has landed
// when a room of the house has a file by one of these names, or declares one of these.
type feature struct {
	files    []string
	declares []string
}

const (
	merges     = "merge"
	leases     = "lease"
	quiescence = "quiescence"
)

var features = map[string]feature{
	merges:     {files: []string{"merge.go", "freeze.go"}, declares: []string{"KindMerge", "KindFreeze", "KindCommitMerge"}},
	leases:     {files: []string{"lease.go", "support.go"}, declares: []string{"LeaseDuration"}},
	quiescence: {files: []string{"quiesce.go", "sleep.go"}, declares: []string{"Asleep", "Quiesced"}},
}

// scenarios are the interleavings that have a test by their name, which is
// Test<Name>, a subtest, or a scenario of the simulation; or the feature that they
// wait for, whoever builds which writes them.
var scenarios = map[string]string{
	"PausedLeaderReads":                 "",
	"ZombieReplicaVotes":                "",
	"ReaddSameNodeDelayedMessages":      "",
	"SnapshotVsConfChange":              "",
	"SnapshotStaleConfState":            "",
	"SnapshotTornOrOlderAfterNewer":     "",
	"StalePlacementLeaderStep":          "",
	"LostAckRetryAcrossMove":            "",
	"RevisionBoundSurvivesMetaFailover": "",
	"StoreFromOtherClusterRefused":      "",
	"SameStoreStartedTwiceRefused":      "",

	"SplitCrashBeforeChildHardState":    "",
	"ChildMessageBeforeSplitApply":      "",
	"SlowSplitVsRemoveReadd":            "",
	"OverlappingParentChildSnapshots":   "",
	"SplitRacesConfChange":              "",
	"OldEpochProposalAppliesAfterSplit": "",
	"ChildElectionLostVotes":            "",

	"LeaseReadDuringMergePrepare":      merges,
	"RollbackAndCommitMergeRace":       merges,
	"FailedMergeThenMerge":             merges,
	"MergeLogTruncatedAfterRestart":    merges,
	"MergeSnapshotDestroyCrash":        merges,
	"TwoSnapshotsAcrossMerge":          merges,
	"IsolatedReplicaThroughMergeSplit": merges,
	"MergeLearnedBySnapshot":           merges,
	"TransferredLeaseAfterRestart":     leases,
	"RestartGrantsNoVoteWithinSupport": leases,
	"TransferEndsLease":                leases,
	"QuiescedGroupWithLaggingFollower": quiescence,
	"WakeStormBounded":                 quiescence,
	"OneDeadNodeKeepsNobodyAwake":      quiescence,
}

// Scenarios checks that each scenario has its test, but for those whose feature has not
// landed; and that no test is left whose scenario is said to be pending.
func Scenarios(m *Module) []Finding {
	tests, landed := m.testNames(), m.landed()
	var found []Finding
	for name, pending := range scenarios { //order-free: sorted below
		switch {
		case tests[name] && pending != "":
			found = append(found, Finding{Path: "internal/lint/scenarios.go", Rule: "scenarios", Text: name + " has a test, and is said to be pending: " + pending})
		case tests[name]:
		case pending == "":
			found = append(found, Finding{Path: "internal/lint/scenarios.go", Rule: "scenarios", Text: "no test has the name of the scenario " + name})
		case landed[pending] != "":
			found = append(found, Finding{Path: landed[pending], Rule: "scenarios", Text: "this is of the feature " + pending + ", and its scenario " + name + " is still pending"})
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
	return found
}

// testNames are the names that tests, subtests and entries of tables in tests have.
func (m *Module) testNames() map[string]bool {
	names := map[string]bool{}
	for _, p := range m.Packages {
		for _, f := range p.Files {
			if !f.Test || p.Path == "internal/lint" {
				continue
			}
			for _, d := range f.Syntax.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					if name, ok := strings.CutPrefix(fn.Name.Name, "Test"); ok {
						names[name] = true
					}
				}
			}
			ast.Inspect(f.Syntax, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.KeyValueExpr: // of a table of scenarios
					names[text(n.Key)] = true
				case *ast.CallExpr: // t.Run
					if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Run" && len(n.Args) == 2 {
						names[text(n.Args[0])] = true
					}
				}
				return true
			})
		}
	}
	return names
}

// text is that of a string literal, else "".
func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

// landed tells where each feature that is there was found.
func (m *Module) landed() map[string]string {
	where := map[string]string{}
	for _, p := range m.Packages {
		if columnOf(roomOf(p.Path)) < 0 {
			continue
		}
		for _, f := range p.Files {
			if f.Test || f.Generated {
				continue
			}
			for name, feature := range features { //order-free: each has its own entry
				if slices.Contains(feature.files, path.Base(f.Path)) || slices.ContainsFunc(feature.declares, f.declares) {
					where[name] = f.Path
				}
			}
		}
	}
	return where
}

// declares tells whether a file declares a name at its top level.
func (f *File) declares(name string) bool {
	is := func(id *ast.Ident) bool { return id.Name == name }
	for _, d := range f.Syntax.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil && is(d.Name) {
				return true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					if slices.ContainsFunc(spec.Names, is) {
						return true
					}
				case *ast.TypeSpec:
					if is(spec.Name) {
						return true
					}
				}
			}
		}
	}
	return false
}
