package replica

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// removed puts n tombstones of keys that were removed long ago into the store.
func (h *home) removed(n int) {
	h.t.Helper()
	b := h.engine.NewBatch()
	for i := range n {
		b.PutVersion([]byte(fmt.Sprintf("\x02c%06d", i)), 1, storage.VersionHeader{Tombstone: true}, nil)
	}
	if err := h.engine.Commit(b); err != nil {
		h.t.Fatal(err)
	}
}

// A range over more tombstones than one entry may walk does not get into the log:
// its turn would take as long as that, on every replica.
func TestDeleteRangeOverManyTombstonesIsNotProposed(t *testing.T) {
	const tombstones = 100_000
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.removed(tombstones)
	h.numbers.next = 5
	h.do(g, put("\x02b", "before"))
	h.do(g, put("\x02d", "after"))

	again := deleteRange("\x02b", "\x02m", 9)
	again.Retry, again.Birth = true, 7
	for _, c := range []struct {
		c    shard.Command
		want error
	}{
		{deleteRange("\x02b", "\x02m", 9), shard.ErrRangeTooWide},
		// An earlier attempt may have been made, of a range that was not too wide.
		{again, shard.ErrUndetermined},
	} {
		a := h.send(target(7), c.c)
		a.waits(t) // the walk is a step of its own
		h.steps.run()
		if p := a.once(t); !errors.Is(p.Err, c.want) || len(g.proposals) != 0 {
			t.Errorf("%+v, %d proposals", p, len(g.proposals))
		}
	}
	// Page by page, as the client library does, it gets through.
	var deleted uint64
	pages := 0
	for start := []byte("\x02b"); start != nil; pages++ {
		q := scan(string(start), "\x02m")
		q.Limit, q.KeysOnly = shard.DeleteRangeMax, true
		page := h.read(g, q)
		if page.Err != nil {
			t.Fatal(page.Err)
		}
		if rows := page.Result.Rows; len(rows) > 0 {
			a := h.send(target(7), deleteRange(string(rows[0].Key), string(rows[len(rows)-1].Key)+"\x00", shard.DeleteRangeMax))
			h.steps.run()
			g.turn(t)
			p := a.once(t)
			if p.Err != nil || p.Result.Resume != nil {
				t.Fatalf("%+v", p)
			}
			deleted += p.Result.Count
		}
		start = page.Result.Resume
		if start != nil && bytes.Compare(start, []byte("\x02m")) >= 0 {
			break
		}
	}
	if deleted != 2 || pages < 5 {
		t.Errorf("%d keys were deleted in %d pages", deleted, pages)
	}
	h.idle()
}

// At the bound; and a later attempt is measured by what it looks at: all versions
// since its birth.
func TestHowWideARangeMayBe(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.numbers.next = 5
	h.removed(shard.RangeStepsMax - 1) // the second attempt leaves a trace
	try := func(c shard.Command) error {
		t.Helper()
		a := h.send(target(7), c)
		h.steps.run()
		g.turn(t)
		return a.once(t).Err
	}
	if err := try(deleteRange("\x02b", "\x02m", 9)); err != nil {
		t.Error(err)
	}
	again := deleteRange("\x02b", "\x02m", 9)
	again.Retry, again.Birth = true, 5
	if err := try(again); err != nil {
		t.Error(err)
	}
	h.do(g, put("\x02d", "one more"))
	if err := try(deleteRange("\x02b", "\x02m", 9)); err != shard.ErrRangeTooWide {
		t.Error(err)
	}
	if err := try(deleteRange("\x02b", "\x02d", 9)); err != nil {
		t.Error(err)
	}
	narrow := deleteRange("\x02d", "\x02e", 9)
	narrow.Retry, narrow.Birth = true, 5
	for n := 1; n < shard.RangeStepsMax; n += 1000 {
		b := h.engine.NewBatch()
		for i := range 1000 {
			b.PutVersion([]byte("\x02d"), shard.Revision(10_000+n+i), storage.VersionHeader{}, nil)
		}
		if err := h.engine.Commit(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := try(narrow); !errors.As(err, new(*shard.OutcomeLostError)) {
		t.Error(err)
	}
	narrow.Birth = 60_000 // versions of before are not looked at
	h.numbers.next = 70_000
	if err := try(narrow); err != nil {
		t.Error(err)
	}
	h.idle()
}

// What cannot be read is not proposed: nothing was done.
func TestDeleteRangeWhoseStoreCannotBeRead(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.store.openView = func() view { return broken{} }
	a := h.send(target(7), deleteRange("\x02b", "\x02m", 9))
	h.steps.run()
	if p := a.once(t); !errors.Is(p.Err, shard.ErrUnavailable) || len(g.proposals) != 0 {
		t.Errorf("%+v", p)
	}
	h.idle()
}

// One that was being walked when its term ended does not wait for what an earlier
// leadership has in the log.
func TestDeleteRangeIsWalkedWhileItsTermEnds(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	logged := h.send(target(7), put("\x02k", "in the log"))
	a := h.send(target(7), deleteRange("\x02b", "\x02m", 9))
	g.follow()
	h.steps.run()
	var notLeader *shard.NotLeaderError
	if p := a.once(t); !errors.As(p.Err, &notLeader) {
		t.Errorf("%+v", p)
	}
	logged.waits(t)
}

// One that is being walked is dropped by a newer stream like any that waits.
func TestDeleteRangeIsWalkedOnASupersededStream(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	a := h.stream(1).send(t, target(7), deleteRange("\x02b", "\x02m", 9))
	h.stream(2)
	h.steps.run()
	g.turn(t)
	if p := a.once(t); !errors.Is(p.Err, shard.ErrDropped) {
		t.Errorf("%+v", p)
	}
	h.idle()
}
