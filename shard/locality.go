package shard

import (
	"fmt"
	"strings"
)

// Locality is where a node is: tiers like "region=eu,zone=a", the widest first; ""
// says nothing of it. Nodes whose tiers have the same keys in the same order can be
// compared; tiers that differ in their keys count as different places.
type Locality string

const (
	localityBytesMax = 512
	localityTiersMax = 8
)

// ParseLocality checks what a person has written, or returns an InvalidError.
func ParseLocality(text string) (Locality, error) {
	bad := func(format string, args ...any) (Locality, error) {
		return "", &InvalidError{Field: "locality", Reason: fmt.Sprintf(format, args...)}
	}
	if text == "" {
		return "", nil
	}
	if len(text) > localityBytesMax {
		return bad("is longer than %d bytes", localityBytesMax)
	}
	seen := map[string]bool{}
	tiers := strings.Split(text, ",")
	for _, tier := range tiers {
		key, value, found := strings.Cut(tier, "=")
		switch {
		case !found || key == "" || value == "" || strings.ContainsAny(value, "= \t\r\n") || strings.ContainsAny(key, " \t\r\n"):
			return bad("cannot have %q: a tier is KEY=VALUE without spaces, like zone=a, and commas stand between tiers", tier)
		case seen[key]:
			return bad("names %s twice", key)
		}
		seen[key] = true
	}
	if len(tiers) > localityTiersMax {
		return bad("has %d tiers, at most %d", len(tiers), localityTiersMax)
	}
	return Locality(text), nil
}

// Tiers are "key=value" each, the widest first.
func (l Locality) Tiers() []string {
	if l == "" {
		return nil
	}
	return strings.Split(string(l), ",")
}

// FarthestPlaces is what Distance gives for localities that have nothing in common.
const FarthestPlaces = 840 // whole for every number of tiers

// Distance is how far two localities are from each other: 0 for the same one, and the
// more the wider the first tier is in which they differ.
func (l Locality) Distance(other Locality) int {
	a, b := l.Tiers(), other.Tiers()
	n := max(len(a), len(b))
	for i := range n {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return FarthestPlaces * (n - i) / n
		}
	}
	return 0
}
