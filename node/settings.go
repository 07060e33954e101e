package node

import (
	"log/slog"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/driver"
)

// settingsPause is between looks at the cluster's settings: how long a change
// takes to reach a node, but for the time of one read.
const settingsPause = time.Second

// tunable is what settings change on a node; *replica.Store is it. A change
// takes effect at once.
type tunable interface {
	SetRetention(d time.Duration)
	SetDropRate(versionsPerSecond int64)
	SetCheckInterval(d time.Duration)
	SetSplitLoad(requestsPerSecond int64)
	SetSplitSize(bytes int64)
}

// pacedTransport is what settings change of a node's transport.
type pacedTransport interface{ SetSnapshotRate(bytesPerSecond int64) }

// steered is what settings change about placement; *driver.Driver is it.
type steered interface {
	Tune(change func(*driver.Tuning))
}

// settings follow the cluster's: they look again and again, and hand over what
// has changed. Its steps run one at a time.
type settings struct {
	list  func(done func([]catalog.SettingValue, error))
	later func(d time.Duration, step func())
	log   *slog.Logger

	apply   map[string]func(int64) // by name of the setting
	applied map[string]int64
	bad     map[string]string // what was wrong with a record, once it has been logged
}

// newSettings has nothing dropped until the settings were read: the retention
// may be longer than its default, and what is below the floor is lost. Placement
// takes nobody for dead until then.
func newSettings(t tunable, peers pacedTransport, p steered, list func(func([]catalog.SettingValue, error)), later func(time.Duration, func()), log *slog.Logger) *settings {
	retention, err := catalog.FindSetting(catalog.KVRetention)
	if err != nil {
		panic(err)
	}
	t.SetRetention(time.Duration(retention.Max))
	t.SetDropRate(0) // what is below a floor that was reached before, too
	return &settings{
		list: list, later: later, log: log,
		apply: map[string]func(int64){
			catalog.KVRetention:  func(v int64) { t.SetRetention(time.Duration(v)) },
			catalog.KVDropRate:   t.SetDropRate,
			catalog.SnapshotRate: peers.SetSnapshotRate,
			catalog.PlacementDeadAfter: func(v int64) {
				p.Tune(func(now *driver.Tuning) { now.DeadAfter = time.Duration(v) })
			},
			catalog.PlacementPaused:    func(v int64) { p.Tune(func(now *driver.Tuning) { now.Paused = v != 0 }) },
			catalog.PlacementRebalance: func(v int64) { p.Tune(func(now *driver.Tuning) { now.Rebalance = v != 0 }) },
			catalog.PlacementLowSpace:  func(v int64) { p.Tune(func(now *driver.Tuning) { now.LowSpace = int(v) }) },
			catalog.PlacementFullSpace: func(v int64) { p.Tune(func(now *driver.Tuning) { now.FullSpace = int(v) }) },
			catalog.PlacementMovesMax:  func(v int64) { p.Tune(func(now *driver.Tuning) { now.MovesMax = int(v) }) },
			catalog.ShardCheckInterval: func(v int64) { t.SetCheckInterval(time.Duration(v)) },
			catalog.SplitLoad:          t.SetSplitLoad,
			catalog.SplitSize:          t.SetSplitSize,
		},
		applied: make(map[string]int64),
		bad:     make(map[string]string),
	}
}

// refresh looks once, and then after a pause again, whether or not the meta
// shard answered.
func (s *settings) refresh() {
	s.list(func(values []catalog.SettingValue, err error) {
		if err != nil {
			s.log.Debug("settings not read", "err", err)
		}
		for i := range values {
			s.follow(&values[i])
		}
		s.later(settingsPause, s.refresh)
	})
}

func (s *settings) follow(v *catalog.SettingValue) {
	if v.Err != nil {
		if s.bad[v.Name] != v.Err.Error() {
			s.bad[v.Name] = v.Err.Error()
			s.log.Error("a setting cannot be used; it stays as it is on this node", "setting", v.Name, "err", v.Err)
		}
		return
	}
	delete(s.bad, v.Name)
	if now, known := s.applied[v.Name]; known && now == v.Value {
		return
	}
	s.apply[v.Name](v.Value)
	s.applied[v.Name] = v.Value
	s.log.Info("setting", "name", v.Name, "value", v.Format(v.Value))
}
