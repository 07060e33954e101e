package sim

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestStoryTellsWhatMatters(t *testing.T) {
	tr := NewTrace(nil)
	at := func(i int) time.Duration { return time.Duration(i) * time.Millisecond }
	tr.Event(at(1), "nemesis", "crash n1")
	for i := range 5 {
		tr.Detail(at(10+2*i), "n1", "shard 2 replica 1 applied %d/3 revision %d", 11+i, 100+i)
		tr.Detail(at(11+2*i), "n2", "shard 3 replica 1 applied %d/3 revision %d", 11+i, 200+i)
	}
	tr.Event(at(30), "n1", "shard 2 replica 1 term 4 leader 2 leading=false")
	tr.Event(at(31), "n1", "shard 22 replica 1 term 4 leader 2 leading=false")
	tr.Detail(at(32), "n1", "shard 2 replica 1 applied 16/4 revision 105")
	tr.Detail(at(33), "c1", `put "mine" revision 7`)
	tr.Detail(at(34), "c1", `put "other" revision 70`)
	for i := range 9 {
		tr.Event(at(40+i), "n2", "WARN: again")
	}
	story := tr.Story(`shard 2 lost "mine" of revision 7` + "\nshard 3 follows")
	for text, times := range map[string]int{
		"crash n1":                    1,
		"applied 11/3 revision 100 …": 1, "… 15/3 revision 104": 1, "12/3": 0, "applied 16/4": 1, "revision 200": 0,
		"shard 2 replica 1 term 4": 1, "shard 22": 0,
		`"mine"`: 1, `"other"`: 0,
		"WARN: again": warnedMax,
	} {
		if n := strings.Count(story, text); n != times {
			t.Errorf("%q is told %d times, want %d:\n%s", text, n, times, story)
		}
	}
	if of := tr.Story(""); strings.Contains(of, "applied") || strings.Contains(of, "put") || !strings.Contains(of, "shard 22") {
		t.Errorf("about nothing in particular:\n%s", of)
	}
	for i := range 1000 {
		tr.Event(at(100+i), "n1", "event %d", i)
	}
	long := tr.Story("")
	if n := strings.Count(long, "\n"); n != storyLines+1 || !strings.Contains(long, "event 999\n") || strings.Contains(long, "event 1\n") {
		t.Errorf("%d lines:\n%s", n, long)
	}
	tr.Event(at(2000), "n1", "%s", strings.Repeat("x", 5000))
	if n := len(tr.Story("")) - len(long); n > storyLineBytes {
		t.Error(fmt.Sprint("a line of ", n, " bytes"))
	}
}
