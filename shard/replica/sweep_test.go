package replica

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

func del(key string) shard.Command {
	c := put(key, "")
	c.Kind, c.Value = shard.KindDelete, nil
	return c
}

// stored lists the versions of keys as the store has them: tombstones with "-".
func (h *home) stored(keys ...string) (all []string) {
	h.t.Helper()
	v := h.engine.NewView()
	defer v.Close()
	for _, key := range keys {
		versions, err := v.Versions([]byte(key), 1<<20)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, x := range versions {
			text := fmt.Sprintf("%s@%d", shard.FormatKey([]byte(key)), x.Revision)
			if x.Header.Tombstone {
				text += "-"
			}
			all = append(all, text)
		}
	}
	return all
}

// do carries out a write.
func (h *home) do(g *fakeGroup, c shard.Command) {
	h.t.Helper()
	a := h.send(target(g.id), c)
	g.turn(h.t)
	if p := a.once(h.t); p.Err != nil {
		h.t.Fatal(p.Err)
	}
}

// Followers drop as leaders do; nothing that is read at or above the floor changes.
func TestSweepDropsBelowTheFloor(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	for _, c := range []shard.Command{put("\x02c", "1"), put("\x02d", "2"), put("\x02c", "3"), del("\x02d"), put("\x02e", "5"), del("\x02c"), put("\x02c", "7")} {
		h.do(g, c)
	}
	h.steps.pass(2 * time.Second)
	g.turn(t) // the floor
	h.do(g, put("\x02e", "9"))
	g.follow()
	before := map[shard.Revision]string{}
	read := func(rev shard.Revision) string { return rows(h.read(g, anywhere(at(rev, scan("\x02b", "\x02m"))))) }
	for rev := shard.Revision(7); rev <= 8; rev++ {
		before[rev] = read(rev)
	}
	h.settle(5*time.Second, g)
	if got, want := h.stored("\x02c", "\x02d", "\x02e"), []string{"c@7", "e@8", "e@5"}; !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	if floor, _ := r.at(); floor != 7 {
		t.Errorf("floor %d", floor)
	}
	for rev, want := range before { //order-free: each is checked on its own
		if got := read(rev); got != want {
			t.Errorf("at %d: %s, before %s", rev, got, want)
		}
	}
	if s := h.store.Stats(); s.VersionsDropped != 5 || s.Sweeps != 1 {
		t.Errorf("%+v", s)
	}
	h.idle()
}

// A snapshot is installed between a sweep's view and its batch. It brings back what
// the tombstone in the batch hides, which was dropped here before: without it, the
// old value would be read.
func TestSnapshotBetweenASweepsViewAndItsBatch(t *testing.T) {
	for _, ended := range []bool{true, false} {
		h := newHome(t, retained(time.Second))
		r, g := h.shard(7, "\x02b", "\x02m")
		h.do(g, put("\x02k", "old"))
		h.do(g, del("\x02k"))
		h.do(g, put("\x02l", "other"))
		h.settle(3*time.Second, g) // all of it is dropped
		if got := h.stored("\x02k"); len(got) != 0 {
			t.Fatalf("left are %q", got)
		}
		b := h.engine.NewBatch()
		b.PutVersion([]byte("\x02k"), 2, storage.VersionHeader{Tombstone: true}, nil) // but for the tombstone
		if err := h.engine.Commit(b); err != nil {
			t.Fatal(err)
		}
		r.sweep.fresh.Store(true)
		h.steps.pass(200 * time.Millisecond)
		if len(g.controls) != 1 {
			t.Fatalf("%d batches wait for the group's turn", len(g.controls))
		}
		g.machine.InstallBegin()
		if !ended {
			g.drops() // a batch while the snapshot is being installed
		}
		b = h.engine.NewBatch()
		b.PutVersion([]byte("\x02k"), 1, storage.VersionHeader{}, []byte("old"))
		b.PutVersion([]byte("\x02k"), 2, storage.VersionHeader{Tombstone: true}, nil)
		if err := h.engine.Commit(b); err != nil {
			t.Fatal(err)
		}
		state, _ := r.State()
		state.Applied = g.index + 5
		g.index += 5
		g.machine.InstallEnd(&state)
		if ended {
			g.drops()
		}
		if got := rows(h.read(g, get("\x02k"))); got != "at 0:" {
			t.Fatalf("a key that was removed is back: %s", got)
		}
		if got := h.stored("\x02k"); len(got) != 2 {
			t.Errorf("stored are %q", got)
		}
		// What the snapshot brought back goes with the next sweep.
		h.settle(time.Second, g)
		if got := h.stored("\x02k"); len(got) != 0 {
			t.Errorf("left are %q", got)
		}
		if got := rows(h.read(g, get("\x02k"))); got != "at 0:" {
			t.Error(got)
		}
	}
}

// A snapshot may bring back what was dropped, on a shard that nobody writes any more.
func TestSweepAfterASnapshot(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	for range 3 {
		h.write(g, "\x02k", "value")
	}
	h.settle(5*time.Second, g)
	if got := h.stored("\x02k"); len(got) != 1 {
		t.Fatalf("left are %q", got)
	}
	g.machine.InstallBegin()
	b := h.engine.NewBatch()
	b.PutVersion([]byte("\x02k"), 1, storage.VersionHeader{}, []byte("value"))
	if err := h.engine.Commit(b); err != nil {
		t.Fatal(err)
	}
	state, _ := r.State()
	g.machine.InstallEnd(&state)
	h.settle(time.Second, g)
	if got := h.stored("\x02k"); len(got) != 1 {
		t.Errorf("left are %q", got)
	}
}

// overwrite writes n versions, over some keys.
func (h *home) overwrite(g *fakeGroup, n, keys int) {
	h.t.Helper()
	var answers []*answer
	for i := range n {
		answers = append(answers, h.send(target(g.id), put(fmt.Sprintf("\x02b key %05d", i%keys), "value")))
	}
	g.turns(h.t)
	for _, a := range answers {
		if p := a.once(h.t); p.Err != nil {
			h.t.Fatal(p.Err)
		}
	}
}

// The rate bounds what is dropped; 0 pauses a sweep, and it goes on from there.
func TestDropRate(t *testing.T) {
	const rate = 1000
	h := newHome(t, retained(time.Second), func(c *Config) { c.DropRate = rate })
	_, g := h.shard(7, "\x02b", "\x02m")
	h.overwrite(g, 5100, 100)
	h.settle(1100*time.Millisecond, g)
	dropped := func() uint64 { return h.store.Stats().VersionsDropped }
	from, began := dropped(), h.steps.now
	for h.store.Stats().Sweeps == 0 {
		h.settle(100*time.Millisecond, g)
		if n, took := dropped()-from, h.steps.now-began; float64(n) > rate*took.Seconds()+2*rate*partTime.Seconds() {
			t.Fatalf("%d versions in %v", n, took)
		}
		if h.steps.now > 30*time.Second {
			t.Fatalf("only %d versions were dropped", dropped())
		}
		if dropped() > 2000 && h.store.upkeep.rate.Load() != 0 && from == 0 {
			h.store.SetDropRate(0)
			h.settle(100*time.Millisecond, g) // what is under way
			n := dropped()
			h.settle(10*time.Second, g)
			if dropped() != n {
				t.Fatalf("%d versions were dropped in a pause", dropped()-n)
			}
			h.store.SetDropRate(rate)
			from, began = n, h.steps.now
		}
	}
	if dropped() != 5000 || from == 0 {
		t.Errorf("%d versions were dropped", dropped())
	}
	// With a higher rate a part is larger.
	h.store.SetDropRate(1 << 40)
	h.overwrite(g, 5100, 100)
	h.settle(3*time.Second, g)
	if dropped() != 10_100 {
		t.Errorf("%d versions were dropped", dropped())
	}
	h.store.SetDropRate(-1)
	h.overwrite(g, 5100, 100)
	h.settle(3*time.Second, g)
	if dropped() != 10_100 {
		t.Errorf("%d versions were dropped", dropped())
	}
}

// A sweep costs as much as there are versions: it waits until enough of them may be
// garbage, by number or by bytes. One that has nothing to gain is not made.
func TestOnlyShardsWithEnoughGarbageAreSwept(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	sweeps := func() uint64 { return h.store.Stats().Sweeps }
	h.overwrite(g, 1000, 1000)
	h.settle(3*time.Second, g)
	first := sweeps() // the first one finds out what there is
	if first < 1 || first > 2 || r.sweep.left != 1000 {
		t.Fatalf("%d sweeps, %d versions left", first, r.sweep.left)
	}
	h.settle(time.Minute, g)
	h.overwrite(g, 300, 300)
	h.busy(g, 3*time.Second)
	if sweeps() != first || len(h.stored("\x02b key 00000")) != 2 {
		t.Errorf("%d sweeps for 300 versions, before %d", sweeps(), first)
	}
	h.overwrite(g, 250, 250)
	h.busy(g, 3*time.Second)
	if dropped := h.store.Stats().VersionsDropped; sweeps() != first+1 || len(h.stored("\x02b key 00000")) != 1 || dropped < 550 || dropped > 610 {
		t.Errorf("%d sweeps for 550 versions, before %d; %d dropped", sweeps(), first, dropped)
	}
	// A few versions that are as large as half of all.
	for range 3 {
		h.do(g, put("\x02b key 00000", string(make([]byte, 8<<10))))
	}
	h.busy(g, 3*time.Second)
	if sweeps() != first+2 || len(h.stored("\x02b key 00000")) != 1 {
		t.Errorf("%d sweeps for large versions", sweeps())
	}
}

// busy lets time pass in which something is written all the time.
func (h *home) busy(g *fakeGroup, d time.Duration) {
	h.t.Helper()
	for ; d > 0; d -= 100 * time.Millisecond {
		h.do(g, put("\x02b key 00999", "value"))
		h.settle(100*time.Millisecond, g)
	}
}

// Replicas are swept in turn. One that stops, or whose store cannot be read, does
// not keep the others from being swept.
func TestReplicasAreSweptInTurn(t *testing.T) {
	h := newHome(t, retained(time.Second))
	var groups []*fakeGroup
	for i := range 4 {
		_, g := h.shard(shard.ID(7+i), fmt.Sprintf("\x02%d", i), fmt.Sprintf("\x02%d", i+1))
		for range 3 {
			h.write(g, fmt.Sprintf("\x02%dk", i), "value")
		}
		groups = append(groups, g)
	}
	h.steps.pass(1500 * time.Millisecond)
	for _, g := range groups {
		g.turn(t)
	}
	open := h.store.openView
	h.store.openView = func() view {
		h.store.openView = open
		return broken{}
	}
	h.steps.pass(100 * time.Millisecond) // of the first one the store cannot be read
	if s := h.store.Stats(); s.Sweeps != 0 {
		t.Errorf("%+v", s)
	}
	h.steps.pass(100 * time.Millisecond)
	if len(groups[1].controls) != 1 {
		t.Fatal("the second one is not swept")
	}
	groups[1].machine.Stopped(shard.ErrStopped)
	groups[1].controls[0].abandoned(shard.ErrStopped)
	groups[1].controls = nil
	h.settle(time.Second, groups...)
	for i, want := range []int{1, 3, 1, 1} {
		if got := h.stored(fmt.Sprintf("\x02%dk", i)); len(got) != want {
			t.Errorf("replica %d has %q", i, got)
		}
	}
	if s := h.store.Stats(); s.Sweeps != 3 || s.VersionsDropped != 6 {
		t.Errorf("%+v", s)
	}
}

// A change of the descriptor under a sweep costs it a part, not the sweep.
func TestSweepAcrossADescriptorChange(t *testing.T) {
	h := newHome(t, retained(time.Second))
	_, g := h.shard(7, "\x02b", "\x02m")
	h.overwrite(g, 30, 10)
	h.steps.pass(1500 * time.Millisecond)
	g.turn(t)
	h.steps.pass(100 * time.Millisecond)
	g.addLearner(t, func() { g.drops() })
	h.steps.run()
	if s := h.store.Stats(); s.VersionsDropped != 0 {
		t.Errorf("%+v", s)
	}
	g.addLearner(t, func() { h.steps.pass(300 * time.Millisecond) })
	if len(g.controls) != 0 {
		t.Error("a part was read while the descriptor was changing")
	}
	h.settle(300*time.Millisecond, g)
	if s := h.store.Stats(); s.VersionsDropped != 20 || s.Sweeps != 1 {
		t.Errorf("%+v", s)
	}
}

func TestEstimate(t *testing.T) {
	h := newHome(t, retained(time.Second))
	r, g := h.shard(7, "\x02b", "\x02m")
	size := uint64(len("\x02b key 00000") + len("value"))
	check := func(what string, want, tolerance uint64) {
		t.Helper()
		keys, bytes := r.Estimate()
		off := func(got, want, tolerance uint64) bool { return got+tolerance < want || got > want+tolerance }
		if off(keys, want, tolerance) || off(bytes, want*size, tolerance*size) {
			t.Errorf("%s: %d keys, %d bytes; want %d and %d", what, keys, bytes, want, want*size)
		}
	}
	check("empty", 0, 0)
	h.overwrite(g, 400, 400)
	check("before the first sweep", 400, 0)
	h.overwrite(g, 400, 400)
	check("overwritten before the first sweep", 800, 0)
	h.settle(3*time.Second, g)
	check("swept", 400, 0)
	h.overwrite(g, 100, 100)
	check("overwritten in part", 400, 50)
	h.overwrite(g, 400, 400)
	h.settle(3*time.Second, g)
	check("swept again", 400, 0)
	h.overwrite(g, 390, 390)
	check("overwritten", 400, 0)
	for i := range 10 {
		h.do(g, del(fmt.Sprintf("\x02b key %05d", i)))
	}
	h.settle(3*time.Second, g)
	check("some are removed", 390, 0)
	if e := (*estimate)(nil).next(0, 0, &storage.ReplicaState{}); e.keysPerVersion != 0 {
		t.Errorf("%+v", e)
	}
}

func TestInspectKey(t *testing.T) {
	h := newHome(t)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k", "one")
	h.write(g, "\x02k", "three")
	h.do(g, del("\x02k"))
	g.floor(t, 2)
	i, err := h.store.InspectKey([]byte("\x02k"))
	if err != nil || i.Shard != 7 || i.Replica != 1 || !i.Leading || i.Floor != 2 || i.LastRevision != 3 || i.Applied != 14 {
		t.Errorf("%+v, %v", i, err)
	}
	want := []storage.Version{
		{Revision: 3, Header: storage.VersionHeader{Op: shard.OpID{Session: 1, Sequence: 1}, Tombstone: true}},
		{Revision: 2, Header: storage.VersionHeader{Op: shard.OpID{Session: 1, Sequence: 1}}, Bytes: 5},
		{Revision: 1, Header: storage.VersionHeader{Op: shard.OpID{Session: 1, Sequence: 1}}, Bytes: 3},
	}
	if !slices.Equal(i.Versions, want) {
		t.Errorf("%+v", i.Versions)
	}
	g.follow()
	if i, err := h.store.InspectKey([]byte("\x02l")); err != nil || i.Leading || len(i.Versions) != 0 {
		t.Errorf("%+v, %v", i, err)
	}
	for key, want := range map[string]string{ //order-free: each is checked on its own
		"": "invalid key", "\x02": "invalid key", "\x01k": "invalid key", "\x02z": "wrong shard 0 []",
	} {
		if _, err := h.store.InspectKey([]byte(key)); describe(err) != want {
			t.Errorf("%q: %v", key, err)
		}
	}
	g.machine.InstallBegin()
	if _, err := h.store.InspectKey([]byte("\x02k")); !errors.Is(err, shard.ErrUnavailable) {
		t.Error(err)
	}
	g.machine.InstallEnd(nil)
	h.store.openView = func() view { return broken{} }
	var internal *shard.InternalError
	if _, err := h.store.InspectKey([]byte("\x02k")); !errors.As(err, &internal) {
		t.Error(err)
	}
}
