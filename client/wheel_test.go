package client

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheelAgreesWithAList: alarms come at their time or up to a tick late, never
// early, and next never lies beyond the earliest.
func TestWheelAgreesWithAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w wheel
		var set []*alarm
		from := map[*alarm]time.Duration{} // when an alarm can come at the earliest
		now := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start"))
		w.due(now, nil)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				a := &alarm{}
				w.put(a, now+time.Duration(rapid.Int64Range(-int64(tick), int64(6*time.Second)).Draw(t, "after")))
				set = append(set, a)
				from[a] = max(a.at, now)
			},
			"clear": func(t *rapid.T) {
				if len(set) > 0 {
					i := rapid.IntRange(0, len(set)-1).Draw(t, "which")
					w.clear(set[i])
					w.clear(set[i])
					set = slices.Delete(set, i, i+1)
				}
			},
			"due": func(t *rapid.T) {
				now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "passes"))
				for _, a := range w.due(now, nil) {
					i := slices.Index(set, a)
					if i < 0 || a.at > now || a.set {
						t.Fatalf("alarm of %v came at %v", a.at, now)
					}
					set = slices.Delete(set, i, i+1)
				}
				for _, a := range set {
					if from[a]+tick <= now && from[a] < now {
						t.Fatalf("alarm of %v did not come at %v", a.at, now)
					}
				}
			},
			"": func(t *rapid.T) {
				at, ok := w.next()
				if ok != (len(set) > 0) || w.count != len(set) {
					t.Fatalf("%d alarms, next %v %v, count %d", len(set), at, ok, w.count)
				}
				for _, a := range set {
					if at > from[a]+tick && at > now {
						t.Fatalf("next look at %v, an alarm is due at %v", at, a.at)
					}
				}
				if ok && at <= now-tick {
					t.Fatalf("next look at %v, it is %v", at, now)
				}
			},
		})
	})
}

func BenchmarkAlarm(b *testing.B) {
	var w wheel
	as := make([]alarm, 256)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		a := &as[i%len(as)]
		w.clear(a)
		w.put(a, time.Duration(i)*time.Microsecond+10*time.Second)
		w.due(time.Duration(i)*time.Microsecond, nil)
		i++
	}
}
