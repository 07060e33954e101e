package main

import (
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

func TestLedgerFindsFault(t *testing.T) {
	fate := entry{revision: 7}
	good := client.KeyValue{Revision: 7, Value: ledgerValue(ledgerKey(0, 0), 0, 0)}
	for _, c := range []struct {
		name string
		fate entry
		held *client.KeyValue
		want string
	}{
		{"acknowledged and there", fate, &good, ""},
		{"undetermined and there", entry{undetermined: true}, &good, ""},
		{"undetermined and absent", entry{undetermined: true}, nil, ""},
		{"refused and absent", entry{}, nil, ""},
		{"acknowledged and absent", fate, nil, "is lost"},
		{"refused and there", entry{}, &good, "was refused took effect"},
		{"of another revision", fate, &client.KeyValue{Revision: 8, Value: good.Value}, "has 8"},
		{"of another value", fate, &client.KeyValue{Revision: 7, Value: good.Value[1:]}, "nobody wrote"},
	} {
		l := ledger{}
		l.entries[0] = []entry{c.fate}
		held := map[string]client.KeyValue{}
		if c.held != nil {
			held[ledgerKey(0, 0)] = *c.held
		}
		v := &verdict{say: t.Logf, stop: func() {}}
		l.compare(held, v)
		if got := strings.Join(v.wrong, ";"); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	v := &verdict{say: t.Logf, stop: func() {}}
	(&ledger{}).compare(map[string]client.KeyValue{"other": {Revision: shard.Revision(1)}}, v)
	if len(v.wrong) != 1 {
		t.Errorf("a key that nobody wrote: %q", v.wrong)
	}
}
