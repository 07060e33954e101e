package shard

import (
	"errors"
	"strings"
	"testing"
)

func TestLocalityIsChecked(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"zone=a":                              "",
		"region=eu,zone=a,rack=7":             "",
		"zone":                                `"zone"`,
		"zone=":                               `"zone="`,
		"=a":                                  `"=a"`,
		"zone=a,":                             `""`,
		"zone=a b":                            `"zone=a b"`,
		"zone=a=b":                            `"zone=a=b"`,
		"zone=a,zone=b":                       "zone twice",
		"a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1": "9 tiers",
		"zone=" + strings.Repeat("a", localityBytesMax): "longer",
	} {
		l, err := ParseLocality(text)
		var invalid *InvalidError
		switch {
		case want == "" && (err != nil || string(l) != text):
			t.Errorf("%q: %q, %v", text, l, err)
		case want != "" && (!errors.As(err, &invalid) || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want one about %s", text, err, want)
		}
	}
}

func FuzzParseLocality(f *testing.F) {
	for _, text := range []string{"", "zone=a", "region=eu,zone=a", "=,=", "a=1,a=1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLocality(text)
		if err != nil {
			return
		}
		if strings.Join(l.Tiers(), ",") != text || l.Distance(l) != 0 {
			t.Fatalf("%q: %q", text, l.Tiers())
		}
		if d := l.Distance("zone=a"); d != Locality("zone=a").Distance(l) || d < 0 || d > FarthestPlaces {
			t.Fatalf("%q: %d", text, d)
		}
	})
}

func TestLocalitiesAreTheFartherTheWiderTheyDiffer(t *testing.T) {
	for _, c := range []struct {
		a, b Locality
		want int
	}{
		{"", "", 0},
		{"zone=a", "zone=a", 0},
		{"zone=a", "zone=b", FarthestPlaces},
		{"zone=a", "", FarthestPlaces},
		{"zone=a", "rack=a", FarthestPlaces},
		{"region=eu,zone=a", "region=eu,zone=b", FarthestPlaces / 2},
		{"region=eu,zone=a", "region=us,zone=a", FarthestPlaces},
		{"region=eu,zone=a,rack=1", "region=eu,zone=a,rack=2", FarthestPlaces / 3},
		{"region=eu,zone=a,rack=1", "region=eu,zone=a", FarthestPlaces / 3},
	} {
		if got, back := c.a.Distance(c.b), c.b.Distance(c.a); got != c.want || back != got {
			t.Errorf("from %q to %q: %d, and %d back; want %d", c.a, c.b, got, back, c.want)
		}
	}
}
