package node

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/driver"
)

// tuned notes what settings do to a node.
type tuned struct{ calls []string }

func (t *tuned) SetRetention(d time.Duration) { t.calls = append(t.calls, fmt.Sprint("retention ", d)) }
func (t *tuned) SetDropRate(n int64)          { t.calls = append(t.calls, fmt.Sprint("drop rate ", n)) }
func (t *tuned) SetCheckInterval(d time.Duration) {
	t.calls = append(t.calls, fmt.Sprint("check interval ", d))
}
func (t *tuned) SetSplitLoad(n int64)    { t.calls = append(t.calls, fmt.Sprint("split load ", n)) }
func (t *tuned) SetSplitSize(n int64)    { t.calls = append(t.calls, fmt.Sprint("split size ", n)) }
func (t *tuned) SetSnapshotRate(n int64) { t.calls = append(t.calls, fmt.Sprint("snapshot rate ", n)) }

// placed notes what settings do to placement.
type placed struct{ driver.Tuning }

func (p *placed) Tune(change func(*driver.Tuning)) { change(&p.Tuning) }

// follower is a node's settings before a catalog that the test plays.
type follower struct {
	*settings
	tuned
	placed placed
	log    strings.Builder
	said   []catalog.SettingValue
	err    error
	next   func()
	pause  time.Duration
}

func newFollower() *follower {
	f := &follower{}
	list := func(done func([]catalog.SettingValue, error)) { done(f.said, f.err) }
	later := func(d time.Duration, step func()) { f.next, f.pause = step, d }
	f.settings = newSettings(&f.tuned, &f.tuned, &f.placed, list, later, slog.New(slog.NewTextHandler(&f.log, nil)))
	return f
}

// look runs one look at what the catalog says, and returns what changed.
func (f *follower) look(t *testing.T, err error, said ...catalog.SettingValue) []string {
	t.Helper()
	f.said, f.err, f.calls = said, err, nil
	step := f.next
	if step == nil {
		step = f.refresh
	}
	f.next = nil
	step()
	if f.next == nil || f.pause != settingsPause {
		t.Fatalf("no next look, or after %v", f.pause)
	}
	return f.calls
}

func said(name string, value int64) catalog.SettingValue {
	s, err := catalog.FindSetting(name)
	if err != nil {
		panic(err)
	}
	return catalog.SettingValue{Setting: s, Value: value}
}

func TestEverySettingReachesTheNode(t *testing.T) {
	f := newFollower()
	for _, s := range catalog.Settings() {
		if f.apply[s.Name] == nil {
			t.Errorf("nothing follows setting %s", s.Name)
		}
	}
	if len(f.apply) != len(catalog.Settings()) {
		t.Errorf("%d settings are followed, there are %d", len(f.apply), len(catalog.Settings()))
	}
}

// Until the settings were read the longest retention holds: a node that starts
// while the meta shard does not answer must not drop what a setting keeps.
func TestNothingIsDroppedBeforeTheSettingsAreRead(t *testing.T) {
	f := newFollower()
	if want := []string{"retention 720h0m0s", "drop rate 0"}; !reflect.DeepEqual(f.calls, want) {
		t.Fatalf("at the start: %v, want %v", f.calls, want)
	}
	if got := f.look(t, errors.New("the meta shard does not answer")); got != nil {
		t.Fatalf("without an answer: %v", got)
	}
	if got, want := f.look(t, nil, said(catalog.KVRetention, int64(10*time.Minute))), []string{"retention 10m0s"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("after the first answer: %v, want %v", got, want)
	}
}

func TestSettingsAreHandedOverWhenTheyChange(t *testing.T) {
	f := newFollower()
	if got, want := f.look(t, nil, said(catalog.SnapshotRate, 1<<20)), []string{"snapshot rate 1048576"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if got, want := f.look(t, nil, said(catalog.ShardCheckInterval, int64(time.Minute))), []string{"check interval 1m0s"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if got, want := f.look(t, nil, said(catalog.SplitLoad, 0), said(catalog.SplitSize, 64<<10)), []string{"split load 0", "split size 65536"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	rate, retention := said(catalog.KVDropRate, 50_000), said(catalog.KVRetention, int64(time.Minute))
	if got, want := f.look(t, nil, rate, retention), []string{"drop rate 50000", "retention 1m0s"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if got := f.look(t, nil, rate, retention); got != nil {
		t.Fatalf("unchanged: %v", got)
	}
	rate.Value = 0
	if got, want := f.look(t, nil, rate, retention), []string{"drop rate 0"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if !strings.Contains(f.log.String(), "value=0") {
		t.Errorf("the change is not in the log:\n%s", f.log.String())
	}
}

// A record that this version cannot use leaves the setting as it is on the node.
func TestASettingThatCannotBeUsedStaysAsItIs(t *testing.T) {
	f := newFollower()
	retention := said(catalog.KVRetention, int64(time.Hour))
	f.look(t, nil, retention)
	broken := said(catalog.KVRetention, int64(10*time.Minute)) // the default, as the catalog gives it then
	broken.Err = errors.New("written by a newer version")
	for range 3 {
		if got := f.look(t, nil, broken); got != nil {
			t.Fatalf("%v", got)
		}
	}
	if n := strings.Count(f.log.String(), "newer version"); n != 1 {
		t.Errorf("the log tells it %d times:\n%s", n, f.log.String())
	}
	if got := f.look(t, nil, retention); got != nil {
		t.Fatalf("as before: %v", got)
	}
}

// Every setting there is changes something, and placement takes nobody for dead
// before it was told when.
func TestPlacementFollowsItsSettings(t *testing.T) {
	f := newFollower()
	for _, s := range catalog.Settings() {
		if f.apply[s.Name] == nil {
			t.Errorf("nobody follows %s", s.Name)
		}
	}
	if f.placed.Tuning != (driver.Tuning{}) {
		t.Errorf("%+v before the settings were read", f.placed.Tuning)
	}
	f.look(t, nil, said(catalog.PlacementDeadAfter, int64(time.Minute)), said(catalog.PlacementPaused, 1), said(catalog.PlacementRebalance, 1))
	if want := (driver.Tuning{DeadAfter: time.Minute, Paused: true, Rebalance: true}); f.placed.Tuning != want {
		t.Errorf("%+v", f.placed.Tuning)
	}
	f.look(t, nil, said(catalog.PlacementPaused, 0), said(catalog.PlacementRebalance, 0))
	if want := (driver.Tuning{DeadAfter: time.Minute}); f.placed.Tuning != want {
		t.Errorf("%+v", f.placed.Tuning)
	}
}
