package lint

import (
	"strings"
	"testing"
)

func TestFuzzed(t *testing.T) {
	var got []string
	for _, f := range Fuzzed(loadBadHouse(t)) {
		got = append(got, f.String())
	}
	if len(got) != 1 || !strings.Contains(got[0], "shard/decode.go:4: no fuzz test of this package names decodeSecond") {
		t.Errorf("found %q", got)
	}
}
