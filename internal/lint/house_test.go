package lint

import "testing"

// TestHouse runs every rule on the whole module.
func TestHouse(t *testing.T) {
	const root = "../.."
	m, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Packages) < 3 {
		t.Fatalf("only %d packages were loaded", len(m.Packages))
	}
	words, err := Words(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, found := range map[string][]Finding{
		"Imports": Imports(m), "Steps": Steps(m), "StaleAdapters": StaleAdapters(m), "Order": Order(m),
		"Layout": Layout(m, LinesMax), "Tests": Tests(m), "Words": words, "Scenarios": Scenarios(m), "Fuzzed": Fuzzed(m),
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range found {
				t.Error(f)
			}
		})
	}
}
