package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// Only the word, typed whole, lets a recovery go on.
func TestRecoveryIsConfirmedByAWord(t *testing.T) {
	for typed, want := range map[string]bool{"recover\n": true, " recover \n": true, "recover": true, "": false, "y\n": false, "yes\n": false, "Recover\n": false, "recover 1\n": false} {
		var asked bytes.Buffer
		a := &app{stdin: strings.NewReader(typed), stderr: &asked}
		if got := a.confirmed(); got != want || !strings.Contains(asked.String(), `Type "recover"`) {
			t.Errorf("%q: %v, asked %q", typed, got, asked.String())
		}
	}
}

// What may be lost is said before anything is done.
func TestRecoverySaysWhatMayBeLost(t *testing.T) {
	d := shard.Descriptor{ID: shard.MetaID, Span: shard.SystemSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 7}, NextReplica: 9}
	after := d
	after.Epoch.ConfVersion = 2000
	p := node.Recovery{Before: d, After: after, Old: shard.Replica{ID: 3, Node: 3, Role: shard.Voter}, New: 1234, Applied: 90, AppliedTerm: 4,
		Committed: 95, Last: 100, LastTerm: 5, LastRevision: 77, Majority: true,
		Gone: []shard.Replica{{ID: 1, Node: 1, Role: shard.Voter}}, Others: []shard.Replica{{ID: 2, Node: 8, Role: shard.Learner}}}
	r := recoveryOf(&p)
	if r.NotCommitted != 5 || r.NewReplica != 1234 || r.NewEpoch.ConfVersion != 2000 || r.Keyspace != "system" || r.Recovered || len(r.Lost) != 1 || len(r.Others) != 1 {
		t.Errorf("%+v", r)
	}
	var out bytes.Buffer
	writeRecovery(&out, 3, []recoveryRecord{r})
	for _, want := range []string{"node 3 becomes the only voter of 1 shard", "above LAST INDEX is lost", "delete their data if they ever come back",
		"NOT KNOWN COMMITTED", "1 on node 1", "2 on node 8", "the meta shard", "8 learner", "MAY STILL HAVE A MAJORITY"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// A shard whose log holds a split that is not applied is shown with the reason, refused,
// and keeps the others from being recovered unless these are named.
func TestRecoverySaysWhatWaitsInTheLog(t *testing.T) {
	d := shard.Descriptor{ID: 5, Span: shard.UserSpan(), Epoch: shard.Epoch{Version: 3, ConfVersion: 7}, NextReplica: 4}
	split := &node.UnappliedSplit{Split: shard.Split{Shard: 5, Epoch: d.Epoch, Key: shard.UserKey([]byte("m")), Right: 9}, Index: 97}
	own := shard.Replica{ID: 3, Node: 3, Role: shard.Voter}
	other := d
	other.ID = 6
	plans := []node.Recovery{{Before: d, After: d, Old: own, Committed: 95, Last: 100, Unapplied: split}, {Before: other, After: other, Old: own}}
	var records []recoveryRecord
	for i := range plans {
		records = append(records, recoveryOf(&plans[i]))
	}
	reason := "shard 5 cannot be recovered from this store: entry 97 of its log splits it at m, from where on shard 9 begins"
	for _, c := range []struct {
		records []recoveryRecord
		text    []string // of what is written
		err     []string
	}{
		{records, []string{"only voter of 1 shard.", "3.7", "NOT FROM THIS STORE: " + reason}, []string{"nothing was done", reason, "version 4 or a higher one", "--shard 6"}},
		{records[:1], []string{"NOT FROM THIS STORE: " + reason}, []string{"nothing was done", reason}},
		{records[1:], []string{"only voter of 1 shard."}, nil},
	} {
		var out bytes.Buffer
		writeRecovery(&out, 3, c.records)
		for _, want := range c.text {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
		err := refused(c.records)
		if (err == nil) != (c.err == nil) {
			t.Errorf("%d shards: %v", len(c.records), err)
		}
		for _, want := range c.err {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("no %q in\n%v", want, err)
			}
		}
	}
	if u := records[0].UnappliedSplit; u == nil || *u != (splitEntryRecord{97, "m", 9}) || records[1].UnappliedSplit != nil {
		t.Errorf("%+v", records)
	}
}

func TestRecoverRefuses(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--lost", "1"}, exitUsage, "--store is missing"},
		{[]string{"--store", empty}, exitUsage, "--lost is missing"},
		{[]string{"--store", empty, "--lost", "x"}, exitUsage, "--lost"},
		{[]string{"--store", empty, "--lost", "1", "--force"}, exitUsage, "--force needs --shard"},
		{[]string{"--store", empty, "--lost", "1"}, exitFailed, "the folder is empty"},
		{[]string{"--store", filepath.Join(empty, "nowhere"), "--lost", "1"}, exitFailed, "nowhere"},
	} {
		r := command{}.run(t, append([]string{"debug", "recover"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.says) || r.stdout != "" {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
}
