package lint

import (
	"slices"
	"testing"
)

// The bad house has two scenarios of three: one has no test, and one's feature has landed.
func TestScenarios(t *testing.T) {
	savedScenarios, savedFeatures := scenarios, features
	defer func() { scenarios, features = savedScenarios, savedFeatures }()
	m := loadBadHouse(t)
	scenarios = map[string]string{"ThatIsTested": "", "ThatIsNot": "", "ThatWaits": "walls", "ThatWaitsInVain": "roof", "ThatWaitedLongEnough": "roof"}
	features = map[string]feature{"walls": {files: []string{"walls.go"}}, "roof": {declares: []string{"Roof"}}}
	var got []string
	for _, f := range Scenarios(m) {
		got = append(got, f.String())
	}
	want := []string{
		"internal/lint/scenarios.go: ThatWaitedLongEnough has a test, and is said to be pending: roof (scenarios)",
		"internal/lint/scenarios.go: no test has the name of the scenario ThatIsNot (scenarios)",
		"shard/roof.go: this is of the feature roof, and its scenario ThatWaitsInVain is still pending (scenarios)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	features["roof"] = feature{files: []string{"roof.go"}}
	if again := Scenarios(m); len(again) != len(want) {
		t.Errorf("by the file's name: %q", again)
	}
}
