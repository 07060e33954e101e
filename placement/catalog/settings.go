package catalog

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Names of settings. They are never reused for something else: they rest in the
// meta shard.
const (
	// KVRetention is how long overwritten and deleted versions can still be read.
	KVRetention = "kv.retention"
	// KVDropRate is how many versions a node drops per second.
	KVDropRate = "kv.drop_rate"
	// PlacementDeadAfter is how long a node may be silent before its replicas are
	// rebuilt elsewhere.
	PlacementDeadAfter = "placement.dead_after"
	// PlacementFullSpace is the use of a node's disk, in percent, from which on it gets no
	// replica at all.
	PlacementFullSpace = "placement.full_space"
	// PlacementLowSpace is the use from which on it gets none that can go elsewhere.
	PlacementLowSpace = "placement.low_space"
	// PlacementMovesMax is how many moves that nobody asked for a node takes part in at once.
	PlacementMovesMax = "placement.moves_max"
	// PlacementPaused: placement does only what a person asks for.
	PlacementPaused = "placement.paused"
	// PlacementRebalance: replicas move to more places, and to even out what nodes hold
	// and bear.
	PlacementRebalance = "placement.rebalance"
	// ShardCheckInterval is how often the replicas of each shard compare their content.
	ShardCheckInterval = "shard.check_interval"
	// SnapshotRate is how many bytes of large snapshots a node sends per second, and
	// receives. By default a node that missed 2 GiB is back within a minute, and
	// whoever is served meanwhile notices little.
	SnapshotRate = "snapshot.rate"
	// SplitLoad and SplitSize are how many requests per second, and how many bytes of keys
	// and values, a shard may have before it is split.
	SplitLoad = "split.load"
	SplitSize = "split.size"
)

// SettingKind is the type of a setting's value.
type SettingKind string

const (
	SettingDuration SettingKind = "duration" // in nanoseconds
	SettingInteger  SettingKind = "integer"
	SettingBytes    SettingKind = "bytes"
	SettingBoolean  SettingKind = "boolean" // 0 is false, 1 is true
)

// Setting describes a setting of the cluster: one value for all nodes, which
// follow a change without a restart.
type Setting struct {
	Name              string
	Kind              SettingKind
	Default, Min, Max int64  // of a duration in nanoseconds
	Off               bool   // 0 is admitted too: it turns off what the setting is about
	Doc               string // half a sentence: what the value is
}

// settings are all there are, in order of name. A value is admitted if it is
// within bounds; what is good beyond that the user knows better.
var settings = []Setting{
	{Name: KVDropRate, Kind: SettingInteger, Default: 50_000, Min: 0, Max: 10_000_000,
		Doc: "old versions that a node drops per second; 0 pauses"},
	{Name: KVRetention, Kind: SettingDuration, Default: int64(10 * time.Minute), Min: int64(time.Second), Max: int64(30 * day),
		Doc: "how long old versions can be read"},
	{Name: PlacementDeadAfter, Kind: SettingDuration, Default: int64(5 * time.Minute), Min: int64(5 * time.Second), Max: int64(30 * day),
		Doc: "silence after which a node is replaced"},
	{Name: PlacementFullSpace, Kind: SettingInteger, Default: 95, Min: 1, Max: 100,
		Doc: "percent of a disk's use from which on it gets no replica"},
	{Name: PlacementLowSpace, Kind: SettingInteger, Default: 80, Min: 1, Max: 100,
		Doc: "percent of a disk's use from which on replicas go elsewhere if they can"},
	{Name: PlacementMovesMax, Kind: SettingInteger, Default: 8, Min: 1, Max: 1000,
		Doc: "moves at once that even out and that one node takes part in"},
	{Name: PlacementPaused, Kind: SettingBoolean, Default: 0, Min: 0, Max: 1,
		Doc: "placement does only what it is asked for"},
	{Name: PlacementRebalance, Kind: SettingBoolean, Default: 1, Min: 0, Max: 1,
		Doc: "replicas move so that nodes hold and bear the same"},
	{Name: ShardCheckInterval, Kind: SettingDuration, Default: int64(time.Hour), Min: 0, Max: int64(30 * day),
		Doc: "how often the replicas of each shard compare their content; 0s is never"},
	{Name: SnapshotRate, Kind: SettingBytes, Default: 40 << 20, Min: 1 << 20, Max: 1 << 40,
		Doc: "bytes per second of snapshots that a node sends, and receives; small ones are not held back"},
	// A shard serves many times as much. But a split costs next to nothing, while a node can
	// take over no less than a shard: some twenty of them make even a single node's full load
	// easy to spread.
	{Name: SplitLoad, Kind: SettingInteger, Default: 2_500, Min: 10, Max: 10_000_000, Off: true,
		Doc: "requests per second, for ten seconds, from which on a shard is split where they halve; 0 is never"},
	// What a snapshot of is taken within seconds, and a few thousand of make a full disk.
	{Name: SplitSize, Kind: SettingBytes, Default: 256 << 20, Min: 64 << 10, Max: 1 << 40, Off: true,
		Doc: "bytes of keys and values from which on a shard is split in the middle; 0 is never"},
}

const day = 24 * time.Hour

// Settings lists all settings in order of name. The slice belongs to the caller.
func Settings() []Setting { return slices.Clone(settings) }

// FindSetting finds a setting by its name, or returns an InvalidError that lists
// all names.
func FindSetting(name string) (Setting, error) {
	var names []string
	for _, s := range settings {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Setting{}, &shard.InvalidError{Field: "setting", Reason: fmt.Sprintf("%q does not exist; there are %s", shorten(name), strings.Join(names, ", "))}
}

// booleans are the values of a boolean setting, by number.
var booleans = []string{"false", "true"}

// Parse reads a value, as Format writes it or in any other unit, or returns an
// InvalidError that says what is allowed.
func (s *Setting) Parse(text string) (int64, error) {
	var v int64
	var err error
	switch s.Kind {
	case SettingDuration:
		var d time.Duration
		d, err = parseDuration(text)
		v = int64(d)
	case SettingInteger:
		v, err = strconv.ParseInt(text, 10, 64)
	case SettingBytes:
		v, err = parseBytes(text)
	case SettingBoolean:
		v = int64(slices.Index(booleans, text))
	}
	if off := s.Off && v == 0; err != nil || !off && (v < s.Min || v > s.Max) {
		return 0, &shard.InvalidError{Field: s.Name, Reason: fmt.Sprintf("cannot be %q: it is %s", shorten(text), s.Allowed())}
	}
	return v, nil
}

// Format writes a value as Parse reads it.
func (s *Setting) Format(v int64) string {
	switch {
	case s.Kind == SettingDuration:
		return formatDuration(time.Duration(v))
	case s.Kind == SettingBytes:
		return formatBytes(v)
	case s.Kind == SettingBoolean && v >= 0 && v < int64(len(booleans)):
		return booleans[v]
	}
	return strconv.FormatInt(v, 10)
}

// Allowed says in words which values are.
func (s *Setting) Allowed() string {
	if s.Kind == SettingBoolean {
		return strings.Join(booleans, " or ")
	}
	what := "a whole number"
	switch s.Kind {
	case SettingDuration:
		what = "a duration, like 90s, 10m, 12h or 7d,"
	case SettingBytes:
		what = "a number of bytes, like 500KiB, 64MiB or 2GiB,"
	}
	if s.Off {
		what = "0 or " + what
	}
	return fmt.Sprintf("%s from %s to %s", what, s.Format(s.Min), s.Format(s.Max))
}

// parseDuration reads a Go duration, with whole days in front if one likes.
func parseDuration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16) // more would overflow, and is no setting's
	if err != nil {
		return 0, err
	}
	d := time.Duration(n) * day
	if rest == "" {
		return d, nil
	}
	within, err := time.ParseDuration(rest)
	if err == nil && (within < 0 || within >= day) {
		err = fmt.Errorf("%v beside days", within)
	}
	return d + within, err
}

// formatDuration leaves out units of zero, and writes whole days as such.
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// byteUnits are those of SettingBytes, the largest first.
var byteUnits = []struct {
	name string
	size int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// parseBytes reads a whole number with or without a unit.
func parseBytes(text string) (int64, error) {
	for _, u := range byteUnits {
		number, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err == nil && (n > math.MaxInt64/u.size || n < 0) {
			err = strconv.ErrRange
		}
		return n * u.size, err
	}
	return 0, strconv.ErrSyntax
}

// formatBytes uses the largest unit that leaves a whole number.
func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n != 0 && n%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// shorten bounds what an error repeats of its input.
func shorten(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

const (
	settingPrefix = "set/"
	// A setting's record is its format and its value's text.
	settingFormat   = 1
	settingBytesMax = 64 // of the text
)

func settingKey(name string) []byte {
	return append([]byte{shard.SystemKeyspace}, settingPrefix+name...)
}

func settingSpan() shard.Span {
	return shard.Span{Start: settingKey(""), End: append([]byte{shard.SystemKeyspace}, "set0"...)} // '0' follows '/'
}

func (s *Setting) encode(v int64) []byte {
	return append([]byte{settingFormat}, s.Format(v)...)
}

// decode reads a record. What a newer version wrote may be refused here: a
// format, or a value, that this one does not admit.
func (s *Setting) decode(b []byte) (int64, error) {
	if len(b) == 0 || b[0] != settingFormat || len(b) > 1+settingBytesMax {
		return 0, fmt.Errorf("%w: the record of setting %s, of %d bytes, is of no known format", shard.ErrMalformed, s.Name, len(b))
	}
	return s.Parse(string(b[1:]))
}

// SettingValue is a setting with its value in the cluster.
type SettingValue struct {
	Setting
	Value int64 // as Setting.Default
	Set   bool  // false: nobody has, and Value is the default
	// Err: there is a record that this version cannot use. Value is the default
	// then; whoever had a value before goes on with that.
	Err error
}

// ListSettings reads all settings that this version knows, in order of name.
// Records of others, which a newer version wrote, are passed over.
func (c *Catalog) ListSettings(done func([]SettingValue, error)) {
	values := make([]SettingValue, 0, len(settings))
	for _, s := range settings {
		values = append(values, SettingValue{Setting: s, Value: s.Default})
	}
	c.scan("listing settings", settingSpan(), func(key, value []byte) error {
		name := string(key[1+len(settingPrefix):])
		for i := range values {
			v := &values[i]
			if v.Name != name {
				continue
			}
			v.Set = true
			if read, err := v.decode(value); err != nil {
				v.Err = err
			} else {
				v.Value = read
			}
		}
		return nil
	}, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		done(values, nil)
	})
}

// SetSetting writes the value of a setting. An InvalidError names the setting,
// or says which there are, and what is allowed; nothing is written then. The
// last of several writers wins.
func (c *Catalog) SetSetting(name, text string, done func(SettingValue, error)) {
	s, err := FindSetting(name)
	var v int64
	if err == nil {
		v, err = s.Parse(text)
	}
	if err != nil {
		done(SettingValue{}, err)
		return
	}
	o := &operation{c: c, what: "writing setting " + name, end: func(err error) { done(SettingValue{}, err) }}
	o.again = func() {
		c.do(shard.Command{Kind: shard.KindPut, Key: settingKey(name), Value: s.encode(v)}, func(_ shard.Result, err error) {
			if err != nil {
				o.failed(err)
				return
			}
			done(SettingValue{Setting: s, Value: v, Set: true}, nil)
		})
	}
	o.again()
}
