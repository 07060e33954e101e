package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func settingsServer(t *testing.T) string {
	dropRate := &kiloraftpb.Setting{Name: "kv.drop_rate", Kind: "integer", Value: "50000", Default: "50000", Min: "0", Max: "10000000",
		Doc: "old versions that a node drops per second; 0 pauses"}
	retention := &kiloraftpb.Setting{Name: "kv.retention", Kind: "duration", Value: "5s", Default: "10m", Min: "1s", Max: "30d", Set: true,
		Doc: "how long old versions can be read"}
	return serveFake(t, &fakeCluster{
		settings: func() (*kiloraftpb.ListSettingsResponse, error) {
			return &kiloraftpb.ListSettingsResponse{Settings: []*kiloraftpb.Setting{dropRate, retention}}, nil
		},
		setSetting: func(q *kiloraftpb.SetSettingRequest) (*kiloraftpb.SetSettingResponse, error) {
			switch q.GetName() {
			case "kv.retention":
				return nil, &shard.InvalidError{Field: "kv.retention", Reason: `cannot be "` + q.GetValue() + `": it is a duration from 1s to 30d`}
			case "kv.drop_rate":
				dropRate.Value, dropRate.Set = q.GetValue(), true
				return &kiloraftpb.SetSettingResponse{Setting: dropRate}, nil
			}
			return nil, errors.New("broken")
		},
	})
}

func TestSettingsList(t *testing.T) {
	address := settingsServer(t)
	var list []map[string]any
	decode(t, command{}.run(t, "settings", "list", "-o", "json", "--endpoints", address), &list)
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	for i, want := range []map[string]any{
		{"name": "kv.drop_rate", "value": 50000.0, "default": 50000.0, "min": 0.0, "max": 1e7, "kind": "integer", "set": false, "description": "old versions that a node drops per second; 0 pauses"},
		{"name": "kv.retention", "value": "5s", "default": "10m", "min": "1s", "max": "30d", "kind": "duration", "set": true, "description": "how long old versions can be read"},
	} {
		for field, value := range want {
			if list[i][field] != value {
				t.Errorf("%s of %s is %v, want %v", field, want["name"], list[i][field], value)
			}
		}
		if len(list[i]) != len(want) {
			t.Errorf("%v", list[i])
		}
	}
	r := command{}.run(t, "settings", "list", "--endpoints", address)
	want := `SETTING       VALUE   DEFAULT  ALLOWED          WHAT IT IS
kv.drop_rate  50,000  50,000   0 to 10,000,000  old versions that a node drops per second; 0 pauses
kv.retention  5s      10m      1s to 30d        how long old versions can be read
`
	if r.stdout != want {
		t.Errorf("settings list:\n%s\nwant\n%s", r.stdout, want)
	}
	for line := range strings.Lines(r.stdout) {
		if len(line) > 101 {
			t.Errorf("a line of %d columns: %s", len(line)-1, line)
		}
	}
}

func TestSettingsListTellsOfARecordThatCannotBeUsed(t *testing.T) {
	address := serveFake(t, &fakeCluster{settings: func() (*kiloraftpb.ListSettingsResponse, error) {
		return &kiloraftpb.ListSettingsResponse{Settings: []*kiloraftpb.Setting{{Name: "kv.retention", Kind: "duration", Value: "10m", Problem: "no known format"}}}, nil
	}})
	if r := (command{}).run(t, "settings", "list", "--endpoints", address); r.code != exitDone || !strings.Contains(r.stdout, "kv.retention: its record cannot be used, nodes keep what they had; set it again: no known format\n") {
		t.Errorf("settings list: %+v", r)
	}
}

func TestSettingsSet(t *testing.T) {
	address := settingsServer(t)
	if r := (command{}).run(t, "settings", "set", "kv.drop_rate", "100000", "--endpoints", address); r.code != exitDone || r.stdout != "kv.drop_rate is 100,000; every node follows within seconds\n" {
		t.Errorf("settings set: %+v", r)
	}
	var got map[string]any
	decode(t, command{}.run(t, "settings", "set", "kv.drop_rate", "7", "-o", "json", "--endpoints", address), &got)
	if got["name"] != "kv.drop_rate" || got["value"] != 7.0 || got["set"] != true {
		t.Errorf("settings set -o json: %v", got)
	}
	r := command{}.run(t, "settings", "set", "kv.retention", "0s", "--endpoints", address)
	if r.code != exitUsage || !strings.HasPrefix(r.stderr, `kiloraft: settings set: kv.retention cannot be "0s": it is a duration from 1s to 30d`) {
		t.Errorf("a value out of bounds: %+v", r)
	}
	if r := (command{}).run(t, "settings", "set", "kv.odd", "1", "--endpoints", address); r.code != exitFailed || !strings.HasPrefix(r.stderr, "kiloraft: settings set: ") || !strings.Contains(r.stderr, "broken") {
		t.Errorf("a failure: %+v", r)
	}
}
