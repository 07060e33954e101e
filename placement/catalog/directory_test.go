package catalog

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// entry describes a shard over the whole user keyspace at epoch version.conf,
// with conf voters, led by replica 1 in term.
func entry(id shard.ID, version, conf, term uint64) router.Entry {
	d := shard.Descriptor{ID: id, Span: shard.UserSpan(), Epoch: shard.Epoch{Version: version, ConfVersion: conf}, NextReplica: shard.ReplicaID(conf + 1)}
	for i := uint64(1); i <= conf; i++ {
		d.Replicas = append(d.Replicas, shard.Replica{ID: shard.ReplicaID(i), Node: shard.NodeID(i), Role: shard.Voter})
	}
	return router.Entry{Descriptor: d, Leader: shard.LeaderHint{Replica: 1, Node: shard.NodeID(term), Term: term}}
}

func TestUpdateDirectoryMovesForwardOnly(t *testing.T) {
	for _, c := range []struct {
		name        string
		there, told router.Entry
		epoch       shard.Epoch
		id          shard.ID
		term        uint64
		written     bool
	}{
		{name: "newer configuration", there: entry(2, 1, 1, 3), told: entry(2, 1, 2, 3), id: 2, epoch: shard.Epoch{Version: 1, ConfVersion: 2}, term: 3, written: true},
		{name: "newer term", there: entry(2, 1, 2, 3), told: entry(2, 1, 2, 4), id: 2, epoch: shard.Epoch{Version: 1, ConfVersion: 2}, term: 4, written: true},
		{name: "equal", there: entry(2, 1, 2, 3), told: entry(2, 1, 2, 3), id: 2, epoch: shard.Epoch{Version: 1, ConfVersion: 2}, term: 3},
		{name: "older", there: entry(2, 2, 2, 3), told: entry(2, 1, 3, 2), id: 2, epoch: shard.Epoch{Version: 2, ConfVersion: 2}, term: 3},
		{name: "newer epoch in an older term keeps the leader", there: entry(2, 1, 1, 5), told: entry(2, 1, 2, 4), id: 2, epoch: shard.Epoch{Version: 1, ConfVersion: 2}, term: 5, written: true},
		{name: "older epoch in a newer term keeps the descriptor", there: entry(2, 1, 2, 4), told: entry(2, 1, 1, 5), id: 2, epoch: shard.Epoch{Version: 1, ConfVersion: 2}, term: 5, written: true},
		{name: "a shard that follows another", there: entry(2, 1, 7, 9), told: entry(3, 2, 1, 1), id: 3, epoch: shard.Epoch{Version: 2, ConfVersion: 1}, term: 1, written: true},
		{name: "a shard that is gone", there: entry(3, 2, 1, 1), told: entry(2, 1, 7, 9), id: 3, epoch: shard.Epoch{Version: 2, ConfVersion: 1}, term: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			key := router.DirectoryKey(c.there.Descriptor.Span.Start)
			before := router.AppendEntry(nil, &c.there)
			h.kv.Put(key, before)
			now, err := h.update(c.told, nil)
			if err != nil || !bytes.Equal(now, h.kv.Get(key)) {
				t.Fatalf("%x, %v; the record is %x", now, err, h.kv.Get(key))
			}
			e, err := router.DecodeEntry(now)
			if err != nil || e.Descriptor.ID != c.id || e.Descriptor.Epoch != c.epoch || e.Leader.Term != c.term {
				t.Fatalf("%+v, %v", e, err)
			}
			if (h.kv.Writes == 1) != c.written || h.kv.Reads != 1 {
				t.Fatalf("%d writes, %d reads", h.kv.Writes, h.kv.Reads)
			}
			if UpToDate(before, c.told) == c.written || !UpToDate(now, c.told) {
				t.Fatal("UpToDate disagrees")
			}
			// Again, with what is known: no read, no write.
			if _, err := h.update(c.told, now); err != nil || h.kv.Commands > 2 {
				t.Fatalf("%v after %d commands", err, h.kv.Commands)
			}
		})
	}
}

func TestUpdateDirectoryAgreesInAnyOrder(t *testing.T) {
	es := []router.Entry{entry(2, 1, 1, 3), entry(2, 1, 2, 3), entry(2, 1, 2, 5), entry(2, 2, 2, 4), entry(2, 2, 3, 4)}
	want := router.Entry{Descriptor: es[4].Descriptor, Leader: es[2].Leader}
	var permute func(rest []router.Entry, at *router.Entry)
	permute = func(rest []router.Entry, at *router.Entry) {
		if len(rest) == 0 && !reflect.DeepEqual(*at, want) {
			t.Fatalf("%+v", *at)
		}
		for i := range rest {
			left := append(append([]router.Entry(nil), rest[:i]...), rest[i+1:]...)
			next := rest[i]
			if at != nil {
				next, _ = forward(*at, rest[i])
			}
			permute(left, &next)
		}
	}
	permute(es, nil)
}

func TestUpdateDirectoryUsesTheAnswerOfALostRace(t *testing.T) {
	h := newHouse(t)
	old, between, told := entry(2, 1, 1, 1), entry(2, 1, 1, 4), entry(2, 1, 3, 2)
	key := router.DirectoryKey(old.Descriptor.Span.Start)
	h.kv.Put(key, router.AppendEntry(nil, &between))
	now, err := h.update(told, router.AppendEntry(nil, &old))
	if err != nil || h.kv.Reads != 0 || h.kv.Writes != 2 {
		t.Fatalf("%v after %d reads and %d writes", err, h.kv.Reads, h.kv.Writes)
	}
	e, err := router.DecodeEntry(now)
	if err != nil || e.Descriptor.Epoch != told.Descriptor.Epoch || e.Leader.Term != 4 {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestUpdateDirectoryGivesUpAgainstEndlessRivals(t *testing.T) {
	h := newHouse(t)
	term := uint64(10)
	h.kv.Meanwhile = func(cmd *shard.Command) {
		if cmd.Kind == shard.KindCompareAndPut {
			term++
			e := entry(2, 1, 1, term)
			h.kv.Put(cmd.Key, router.AppendEntry(nil, &e))
		}
	}
	if _, err := h.update(entry(2, 1, 2, 1), nil); !errors.Is(err, shard.ErrBusy) {
		t.Fatal(err)
	}
}

func TestUpdateDirectoryNeverOverwritesWhatItCannotRead(t *testing.T) {
	h := newHouse(t)
	e := entry(2, 1, 2, 1)
	key := router.DirectoryKey(e.Descriptor.Span.Start)
	foreign := []byte{0xee, 1, 2, 3}
	h.kv.Put(key, foreign)
	if _, err := h.update(e, nil); !errors.Is(err, shard.ErrMalformed) || !bytes.Equal(h.kv.Get(key), foreign) {
		t.Fatalf("%v, record %x", err, h.kv.Get(key))
	}
	if UpToDate(foreign, e) {
		t.Fatal("foreign bytes are up to date")
	}
}

func TestUpdateDirectoryWhenAnswersAreLost(t *testing.T) {
	h := newHouse(t)
	n := 0
	h.kv.Fault = func(cmd *shard.Command) (error, bool) {
		if n++; n < 6 {
			return shard.ErrUndetermined, n%2 == 0
		}
		return nil, true
	}
	e := entry(2, 1, 2, 3)
	now, err := h.update(e, nil)
	if err != nil || !bytes.Equal(now, router.AppendEntry(nil, &e)) {
		t.Fatalf("%x, %v", now, err)
	}
}
