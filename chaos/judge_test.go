package main

import (
	"strings"
	"testing"
)

func TestGapsAndOverlapsOfShards(t *testing.T) {
	user := func(id uint64, start, end string) shardRecord {
		return shardRecord{ID: id, Keyspace: "user", Start: start, End: end}
	}
	system := shardRecord{ID: 1, Keyspace: "system"}
	for name, c := range map[string]struct {
		all  []shardRecord
		want string
	}{
		"one shard":        {[]shardRecord{system, user(2, "", "")}, ""},
		"three, unordered": {[]shardRecord{user(4, "m", ""), system, user(2, "", "g"), user(3, "g", "m")}, ""},
		"a gap":            {[]shardRecord{user(2, "", "g"), user(3, "h", "")}, `no shard begins at "g"`},
		"one twice":        {[]shardRecord{user(2, "", "g"), user(3, "g", ""), user(4, "g", "")}, "both begin"},
		"an overlap":       {[]shardRecord{user(2, "", "g"), user(3, "g", ""), user(4, "k", "m")}, "overlap"},
		"a circle":         {[]shardRecord{user(2, "", "g"), user(3, "g", "k"), user(4, "k", "g")}, "no shard begins"},
		"no end":           {[]shardRecord{user(2, "", "g")}, "no shard begins"},
	} {
		if got := gapOrOverlap(c.all); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
