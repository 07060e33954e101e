package driver

import (
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/placement/internal/fake"
	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// fed is a feeder of node 1 over a directory in memory.
type fed struct {
	t   *testing.T
	env *fake.Env
	kv  *fake.KV
	*Feeder
	ds []shard.Descriptor
}

func newFed(t *testing.T, users int) *fed {
	e := fake.NewEnv(3)
	kv := fake.NewKV(e, 4*time.Millisecond)
	c := catalog.New(kv, e, e.NewQueue("catalog"))
	ds, err := catalog.InitialDescriptors(1, users)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range catalog.BootstrapRecords(router.Node{ID: 1, Incarnation: 1}, ds) {
		kv.Put(w.Key, w.Value)
	}
	return &fed{t: t, env: e, kv: kv, ds: ds, Feeder: NewFeeder(FeederConfig{Node: 1, Env: e, Directory: c})}
}

// changed is shard i's descriptor after conf changes of its configuration.
func (f *fed) changed(i int, conf uint64) shard.Descriptor {
	d := f.ds[i].Clone()
	d.Epoch.ConfVersion = conf
	return d
}

func (f *fed) entry(i int) router.Entry {
	f.t.Helper()
	e, err := router.DecodeEntry(f.kv.Get(router.DirectoryKey(f.ds[i].Span.Start)))
	if err != nil {
		f.t.Fatal(err)
	}
	return e
}

// idle checks that nothing is left in the feeder.
func (f *fed) idle() {
	f.t.Helper()
	f.env.RunFor(time.Minute)
	if len(f.tasks) != 0 || len(f.ready) != 0 || f.updates != 0 || len(f.inbox) != 0 {
		f.t.Fatalf("left: %d tasks, %d ready, %d in flight, %d in the inbox", len(f.tasks), len(f.ready), f.updates, len(f.inbox))
	}
}

func TestFeederWritesTheNewestOnly(t *testing.T) {
	f := newFed(t, 3)
	for conf := uint64(2); conf <= 6; conf++ {
		f.DescriptorChanged(f.changed(2, conf), true, 5)
	}
	f.idle()
	if e := f.entry(2); e.Descriptor.Epoch.ConfVersion != 6 || (e.Leader != shard.LeaderHint{Replica: 1, Node: 1, Term: 5}) {
		t.Fatalf("%+v", e)
	}
	if f.kv.Reads != 1 || f.kv.Writes != 1 {
		t.Fatalf("%d reads, %d writes of one shard's five changes", f.kv.Reads, f.kv.Writes)
	}
	// The next change needs no read, as the last value is known.
	f.DescriptorChanged(f.changed(2, 7), true, 5)
	f.idle()
	if f.kv.Reads != 1 || f.kv.Writes != 2 || f.entry(2).Descriptor.Epoch.ConfVersion != 7 {
		t.Fatalf("%d reads, %d writes; %+v", f.kv.Reads, f.kv.Writes, f.entry(2))
	}
	// News that says nothing new costs nothing.
	f.DescriptorChanged(f.changed(2, 7), true, 5)
	f.idle()
	if f.kv.Reads != 1 || f.kv.Writes != 2 {
		t.Fatalf("%d reads, %d writes", f.kv.Reads, f.kv.Writes)
	}
}

func TestFeederWritesWhatChangesWhileItWrites(t *testing.T) {
	f := newFed(t, 3)
	f.DescriptorChanged(f.changed(2, 2), true, 5)
	f.env.RunUntil(func() bool { return f.kv.Busy > 0 }, time.Hour)
	f.DescriptorChanged(f.changed(2, 3), true, 5)
	f.idle()
	if e := f.entry(2); e.Descriptor.Epoch.ConfVersion != 3 {
		t.Fatalf("%+v", e)
	}
	// And the same with news that come between an update's start and its end.
	f.kv.Latency = 400 * time.Millisecond
	f.DescriptorChanged(f.changed(2, 4), true, 5)
	f.env.RunFor(gatherFor + 10*time.Millisecond)
	f.DescriptorChanged(f.changed(2, 5), true, 6)
	f.idle()
	if e := f.entry(2); e.Descriptor.Epoch.ConfVersion != 5 || e.Leader.Term != 6 {
		t.Fatalf("%+v", e)
	}
}

func TestOnlyLeadersFeed(t *testing.T) {
	f := newFed(t, 3)
	f.DescriptorChanged(f.changed(1, 9), false, 5)
	// Leadership that is lost again before it was fed.
	f.DescriptorChanged(f.changed(2, 9), true, 5)
	f.DescriptorChanged(f.changed(2, 10), false, 6)
	// A descriptor without a replica on this node.
	d := f.changed(3, 9)
	d.Replicas = []shard.Replica{{ID: 2, Node: 2, Role: shard.Voter}}
	d.NextReplica = 3
	f.DescriptorChanged(d, true, 5)
	f.idle()
	if f.kv.Commands != 0 {
		t.Fatalf("%d commands", f.kv.Commands)
	}
	// Lost while it waits for its turn.
	for i := range f.ds {
		f.DescriptorChanged(f.changed(i, 2), true, 5)
	}
	f.kv.Fault = func(*shard.Command) (error, bool) { return shard.ErrUnavailable, false }
	f.env.RunFor(time.Second)
	for i := range f.ds {
		f.DescriptorChanged(f.changed(i, 3), false, 6)
	}
	f.env.RunFor(time.Minute)
	f.kv.Fault = nil
	commands := f.kv.Writes
	f.idle()
	if f.kv.Writes != commands {
		t.Fatalf("%d writes for shards that others lead", f.kv.Writes-commands)
	}
}

// A restart after which nothing has changed costs a few pages and no write; one
// after which every term is new costs a write for each shard and no more.
func TestFeederDoesNotStampedeAtARestart(t *testing.T) {
	f := newFed(t, 1000)
	f.kv.PageRows = 250
	for i := range f.ds {
		f.DescriptorChanged(f.ds[i], true, 0)
	}
	f.idle()
	if f.kv.Reads > 6 || f.kv.Writes != 0 {
		t.Fatalf("%d reads, %d writes", f.kv.Reads, f.kv.Writes)
	}
	for i := range f.ds {
		f.DescriptorChanged(f.ds[i], true, 7)
	}
	f.idle()
	if f.kv.Reads > 6 || f.kv.Writes != len(f.ds) || f.kv.BusyMax > updatesMax {
		t.Fatalf("%d reads, %d writes, %d at once", f.kv.Reads, f.kv.Writes, f.kv.BusyMax)
	}
	if e := f.entry(500); e.Leader.Term != 7 {
		t.Fatalf("%+v", e)
	}
}

func TestFeederWaitsForTheMetaShard(t *testing.T) {
	f := newFed(t, 1000)
	f.kv.Fault = func(*shard.Command) (error, bool) { return shard.ErrUnavailable, false }
	for i := range f.ds {
		f.DescriptorChanged(f.changed(i, 2), true, 5)
	}
	f.env.RunFor(10 * time.Minute)
	if f.kv.Commands > 4000 || f.kv.BusyMax > updatesMax || len(f.tasks) != len(f.ds) {
		t.Fatalf("%d commands, %d at once, %d tasks", f.kv.Commands, f.kv.BusyMax, len(f.tasks))
	}
	// More news while it is away takes no more room.
	for conf := uint64(3); conf < 6; conf++ {
		for i := range f.ds {
			f.DescriptorChanged(f.changed(i, conf), true, 5)
		}
		f.env.RunFor(time.Second)
	}
	if len(f.tasks) != len(f.ds) || len(f.ready)+f.updates > len(f.ds) {
		t.Fatalf("%d tasks, %d ready", len(f.tasks), len(f.ready))
	}
	f.kv.Fault = nil
	f.env.RunFor(15 * time.Second)
	for i := range f.ds {
		if e := f.entry(i); e.Descriptor.Epoch.ConfVersion != 5 {
			t.Fatalf("shard %d: %+v", f.ds[i].ID, e)
		}
	}
	f.idle()
}

func TestFeederSurvivesAnEntryThatItCannotRead(t *testing.T) {
	f := newFed(t, 40)
	foreign := router.DirectoryKey(f.ds[20].Span.Start)
	f.kv.Put(foreign, []byte{0xee})
	for i := range f.ds {
		f.DescriptorChanged(f.changed(i, 2), true, 5)
	}
	f.idle()
	for i := range f.ds {
		if i != 20 && f.entry(i).Descriptor.Epoch.ConfVersion != 2 {
			t.Fatalf("shard %d: %+v", f.ds[i].ID, f.entry(i))
		}
	}
	if string(f.kv.Get(foreign)) != "\xee" {
		t.Fatal("it was overwritten")
	}
}

func TestFeederOfAShardThatIsNotListedYet(t *testing.T) {
	f := newFed(t, 40)
	for i := range f.ds {
		f.kv.Delete(router.DirectoryKey(f.ds[i].Span.Start))
		f.DescriptorChanged(f.changed(i, 2), true, 5)
	}
	f.idle()
	for i := range f.ds {
		if f.entry(i).Leader.Term != 5 {
			t.Fatalf("%+v", f.entry(i))
		}
	}
}

func TestFeederStopsWhenClosed(t *testing.T) {
	f := newFed(t, 40)
	for i := range f.ds {
		f.DescriptorChanged(f.changed(i, 2), true, 5)
	}
	f.env.RunFor(gatherFor + time.Millisecond)
	f.Close()
	f.env.RunFor(time.Minute)
	if f.kv.Writes != 0 {
		t.Fatalf("%d writes", f.kv.Writes)
	}
	f.DescriptorChanged(f.changed(1, 3), true, 5)
	if len(f.inbox) != 0 {
		t.Fatal("news are kept after Close")
	}
}

// The driver raises shards while every node's feeder reports: the directory ends
// equal to the shards' own descriptors.
func TestDirectoryFollowsTheShards(t *testing.T) {
	w := newWorld(t, 3, 100)
	kv := fake.NewKV(w.env, 4*time.Millisecond)
	c := catalog.New(kv, w.env, w.env.NewQueue("catalog"))
	var ds []shard.Descriptor
	for _, s := range w.shards {
		ds = append(ds, s.d)
	}
	for _, r := range catalog.BootstrapRecords(router.Node{ID: 1, Incarnation: 1}, ds) {
		kv.Put(r.Key, r.Value)
	}
	feeders := map[shard.NodeID]*Feeder{}
	for n := range w.nodes { //order-free: one each
		feeders[n] = NewFeeder(FeederConfig{Node: n, Env: w.env, Directory: c})
	}
	for _, s := range w.shards {
		s.fed = func(s *truth) {
			for _, r := range s.d.Replicas {
				feeders[r.Node].DescriptorChanged(s.d, s.leader == r.Node, s.term)
			}
		}
		s.changed()
	}
	w.driver().Start(1)
	w.until(10*time.Second, "raised", w.raised)
	w.env.RunFor(10 * time.Second)
	for _, s := range w.shards {
		e, err := router.DecodeEntry(kv.Get(router.DirectoryKey(s.d.Span.Start)))
		if err != nil || e.Descriptor.Epoch != s.d.Epoch || e.Leader.Node != s.leader || e.Leader.Term != s.term {
			t.Fatalf("shard %d led by %d in term %d: %+v, %v", s.d.ID, s.leader, s.term, e, err)
		}
	}
}
