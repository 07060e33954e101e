package catalog

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

func (h *house) set(name, text string) (v SettingValue, err error) {
	h.t.Helper()
	h.wait(func(done func()) {
		h.SetSetting(name, text, func(got SettingValue, e error) { v, err = got, e; done() })
	})
	return v, err
}

func (h *house) listSettings() []SettingValue {
	h.t.Helper()
	var values []SettingValue
	h.wait(func(done func()) {
		h.ListSettings(func(got []SettingValue, err error) {
			if values = got; err != nil {
				h.t.Error(err)
			}
			done()
		})
	})
	return values
}

func TestSettingsAreInOrderWithinTheirBoundsAndDocumented(t *testing.T) {
	all := Settings()
	if !slices.IsSortedFunc(all, func(a, b Setting) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("settings are out of order")
	}
	for _, s := range all {
		if s.Default < s.Min || s.Default > s.Max || s.Doc == "" {
			t.Errorf("%+v", s)
		}
		for _, v := range []int64{s.Default, s.Min, s.Max} {
			if got, err := s.Parse(s.Format(v)); got != v || err != nil {
				t.Errorf("%s: %d is written %q and read as %d, %v", s.Name, v, s.Format(v), got, err)
			}
			if got, err := s.decode(s.encode(v)); got != v || err != nil {
				t.Errorf("%s: record %x of %d is read as %d, %v", s.Name, s.encode(v), v, got, err)
			}
		}
	}
}

func TestSettingValues(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       int64
		written    string
	}{
		{KVRetention, "1s", 1e9, "1s"},
		{KVRetention, "600s", 600e9, "10m"},
		{KVRetention, "90m", 5400e9, "1h30m"},
		{KVRetention, "1500ms", 1500e6, "1.5s"},
		{KVRetention, "24h", 86400e9, "1d"},
		{KVRetention, "1d12h", 36 * 3600e9, "36h"},
		{KVRetention, "30d", 30 * 86400e9, "30d"},
		{ShardCheckInterval, "0s", 0, "0s"},
		{SplitLoad, "0", 0, "0"},
		{SplitLoad, "10", 10, "10"},
		{SplitSize, "0", 0, "0"},
		{SplitSize, "0MiB", 0, "0"},
		{SplitSize, "65536", 64 << 10, "64KiB"},
		{SnapshotRate, "1048576", 1 << 20, "1MiB"},
		{SnapshotRate, "64MiB", 64 << 20, "64MiB"},
		{SnapshotRate, "1536KiB", 1536 << 10, "1536KiB"},
		{SnapshotRate, "1048577B", 1<<20 + 1, "1048577"},
		{SnapshotRate, "1TiB", 1 << 40, "1TiB"},
		{KVDropRate, "0", 0, "0"},
		{KVDropRate, "10000000", 1e7, "10000000"},
		{PlacementPaused, "true", 1, "true"},
		{PlacementPaused, "false", 0, "false"},
	} {
		s, err := FindSetting(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Parse(c.text); v != c.want || err != nil || s.Format(v) != c.written {
			t.Errorf("%s %q is %d, %v, written %q; want %d and %q", c.name, c.text, v, err, s.Format(v), c.want, c.written)
		}
	}
	for _, c := range []struct{ name, text, says string }{
		{KVRetention, "999ms", `kv.retention cannot be "999ms": it is a duration, like 90s, 10m, 12h or 7d, from 1s to 30d`},
		{KVRetention, "30d1s", "from 1s to 30d"}, {KVRetention, "-5s", "from 1s"}, {KVRetention, "0", "from 1s"}, {KVRetention, "", `cannot be ""`},
		{KVRetention, "10", "a duration"}, {KVRetention, "10 m", "a duration"}, {KVRetention, "99999999999d", "to 30d"}, {KVRetention, "-1d", "to 30d"},
		{SnapshotRate, "0", `snapshot.rate cannot be "0": it is a number of bytes, like 500KiB, 64MiB or 2GiB, from 1MiB to 1TiB`},
		{SnapshotRate, "2TiB", "to 1TiB"}, {SnapshotRate, "99999999TiB", "a number of bytes"}, {SnapshotRate, "-5MiB", "a number of bytes"},
		{SnapshotRate, "5MB", "a number of bytes"}, {SnapshotRate, "MiB", "a number of bytes"}, {SnapshotRate, "5 MiB", "a number of bytes"}, {SnapshotRate, "1.5GiB", "a number of bytes"},
		{KVRetention, "1d30h", "to 30d"}, {KVRetention, "1d-1h", "to 30d"}, {KVRetention, "d", "to 30d"}, {KVRetention, "9999999h9d", "to 30d"},
		{KVDropRate, "-1", `kv.drop_rate cannot be "-1": it is a whole number from 0 to 10000000`}, {KVDropRate, "10000001", "0 to 10000000"},
		{KVDropRate, "1e3", "a whole number"}, {KVDropRate, "1.5", "a whole number"}, {KVDropRate, "10s", "a whole number"}, {KVDropRate, "99999999999999999999", "a whole number"},
		{KVDropRate, strings.Repeat("9", 1000), "…"},
		{SplitLoad, "9", `split.load cannot be "9": it is 0 or a whole number from 10 to 10000000`}, {SplitLoad, "-1", "0 or a whole number"},
		{SplitSize, "63KiB", `split.size cannot be "63KiB": it is 0 or a number of bytes, like 500KiB, 64MiB or 2GiB, from 64KiB to 1TiB`}, {SplitSize, "-1", "0 or a number"},
		{PlacementPaused, "1", `placement.paused cannot be "1": it is false or true`}, {PlacementPaused, "", "false or true"},
		{"kv.nope", "1", `setting "kv.nope" does not exist; there are kv.drop_rate, kv.retention, placement.dead_after, placement.full_space, placement.low_space, placement.moves_max, placement.paused, placement.rebalance, shard.check_interval, snapshot.rate, split.load, split.size`}, {"", "1", "there are kv.drop_rate"},
	} {
		h := newHouse(t)
		var invalid *shard.InvalidError
		if _, err := h.set(c.name, c.text); !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 300 || h.kv.Commands != 0 {
			t.Errorf("%s %q: %v after %d commands, want an error that says %q", c.name, c.text, err, h.kv.Commands, c.says)
		}
	}
}

func TestSettingsAreDefaultsUntilSet(t *testing.T) {
	h := newHouse(t)
	h.bootstrap(3)
	for _, v := range h.listSettings() {
		if v.Set || v.Value != v.Default || v.Err != nil {
			t.Errorf("%+v", v)
		}
	}
	if v, err := h.set(KVRetention, "5s"); err != nil || v.Value != int64(5*time.Second) || !v.Set {
		t.Fatalf("%+v, %v", v, err)
	}
	got := h.listSettings()
	if len(got) != len(settings) || got[0].Set || got[1].Name != KVRetention || got[1].Value != int64(5*time.Second) || !got[1].Set || got[1].Err != nil {
		t.Fatalf("%+v", got)
	}
	if record := h.kv.Get([]byte("\x01set/kv.retention")); !bytes.Equal(record, []byte("\x015s")) {
		t.Fatalf("the record is %q: it rests on disk, and must not change", record)
	}
}

// What a newer version has written is passed over or told, and never applied as
// something else.
func TestSettingsOfAnotherVersion(t *testing.T) {
	h := newHouse(t)
	h.kv.Put(settingKey("kv.future"), []byte("\x01on"))
	h.kv.Put(settingKey(KVDropRate), []byte("\x01-7"))
	h.kv.Put(settingKey(KVRetention), []byte("\x0210m"))
	got := h.listSettings()
	var invalid *shard.InvalidError
	if len(got) != len(settings) || !errors.As(got[0].Err, &invalid) || !errors.Is(got[1].Err, shard.ErrMalformed) {
		t.Fatalf("%+v", got)
	}
	for _, v := range got {
		if v.Value != v.Default || v.Set != (v.Err != nil) {
			t.Errorf("%+v", v)
		}
	}
}

func TestSetSettingWhenAnswersAreLost(t *testing.T) {
	h := newHouse(t)
	n := 0
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if n++; n < 4 {
			return shard.ErrUndetermined, n%2 == 0
		}
		return nil, true
	}
	if v, err := h.set(KVDropRate, "7"); err != nil || v.Value != 7 {
		t.Fatalf("%+v, %v", v, err)
	}
	h.kv.Fault = func(*shard.Command) (error, bool) { return shard.ErrUnavailable, false }
	h.kv.Commands = 0
	if _, err := h.set(KVDropRate, "8"); !errors.Is(err, shard.ErrUnavailable) || h.kv.Commands != attemptsMax || !strings.Contains(err.Error(), KVDropRate) {
		t.Fatalf("%v after %d attempts", err, h.kv.Commands)
	}
}

// FuzzParseSetting: what people write is refused with what is allowed, or is within
// the bounds and read back from what is shown.
func FuzzParseSetting(f *testing.F) {
	for _, s := range settings {
		f.Add(s.Name, s.Format(s.Default))
		f.Add(s.Name, s.Format(s.Max))
	}
	for _, text := range []string{"", "-1", "1e9", "9223372036854775807TiB", "65536d", "1d25h", "true", "0x10", " 1"} {
		f.Add(KVDropRate, text)
	}
	f.Add("no.such", "1")
	f.Fuzz(func(t *testing.T, name, text string) {
		var invalid *shard.InvalidError
		s, err := FindSetting(name)
		if err != nil {
			if !errors.As(err, &invalid) {
				t.Fatal(err)
			}
			return
		}
		v, err := s.Parse(text)
		if err != nil {
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), s.Allowed()) || len(err.Error()) > 500 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if again, err := s.Parse(s.Format(v)); v < s.Min || v > s.Max || again != v || err != nil {
			t.Fatalf("%s: %q is %d, shown as %q, which is %d, %v", name, text, v, s.Format(v), again, err)
		}
	})
}

func FuzzDecodeSetting(f *testing.F) {
	for _, s := range settings {
		f.Add(s.encode(s.Default))
	}
	f.Add([]byte(nil))
	f.Add([]byte("\x0230d"))
	f.Add([]byte("\x0129d23h59m59.999999999s"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range settings {
			v, err := s.decode(b)
			if err != nil {
				continue
			}
			if v < s.Min || v > s.Max || v == math.MaxInt64 {
				t.Fatalf("%s: %q is read as %d", s.Name, b, v)
			}
			if again, err := s.decode(s.encode(v)); again != v || err != nil {
				t.Fatalf("%s: %q is read as %d, and that as %d, %v", s.Name, b, v, again, err)
			}
		}
	})
}
