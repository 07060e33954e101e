package replica

import (
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// instant is a group that applies nothing and answers at once.
type instant struct{}

func (instant) Propose(p *raftgroup.Proposal) error {
	p.Done(raftgroup.Result{Revision: 1}, nil)
	return nil
}
func (instant) Read(raftgroup.Read) error                                     { return nil }
func (instant) ProposeMembership(uint64, shard.MembershipChange, func(error)) {}
func (instant) Confirm(raftgroup.Read) error                                  { return nil }
func (instant) Turn(func(), func(error))                                      {}

// BenchmarkExecutePut is a write's way through this package, without its group.
func BenchmarkExecutePut(b *testing.B) {
	h := newHome(b)
	r, _ := h.shard(7, "\x02b", "\x02m")
	r.group = instant{}
	q := request(target(7), put("\x02k234567890123456789012345678901", string(make([]byte, 256))))
	replied := 0
	reply := func(p shard.Response) {
		if p.Err != nil {
			b.Fatal(p.Err)
		}
		replied++
	}
	b.ReportAllocs()
	for b.Loop() {
		h.store.Execute(q, reply)
	}
	if replied < b.N {
		b.Fatalf("%d of %d", replied, b.N)
	}
}

// BenchmarkExecuteGet is a get's way, 64 of them confirmed at once.
func BenchmarkExecuteGet(b *testing.B) {
	h := newHome(b)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.write(g, "\x02k234567890123456789012345678901", string(make([]byte, 256)))
	q := request(target(7), get("\x02k234567890123456789012345678901"))
	reply := func(p shard.Response) {
		if !p.Result.Found {
			b.Fatal(p)
		}
	}
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		h.store.Execute(q, reply)
		if n%64 == 0 {
			g.confirm(nil)
			g.reads = g.reads[:0]
			h.steps.run()
		}
	}
}

// BenchmarkApplyPut is a put at apply, without the commit.
func BenchmarkApplyPut(b *testing.B) {
	h := newHome(b)
	_, g := h.shard(7, "\x02b", "\x02m")
	c := put("\x02k234567890123456789012345678901", string(make([]byte, 256)))
	command := shard.AppendCommand(nil, &c)
	batch := h.engine.NewBatch()
	var op []byte
	b.ReportAllocs()
	for n := uint64(1); b.Loop(); n++ {
		op = append(machine.AppendHeader(op[:0], machine.Header{Revision: shard.Revision(n), Version: 2}), command...)
		at := raftgroup.Position{Index: 10 + n, Term: term}
		if res, err := g.machine.Apply(batch, at, op); err != nil || res.Err != nil {
			b.Fatal(res.Err, err)
		}
		if n%64 == 0 {
			g.machine.EndApply(batch, at)
			batch.Close()
			g.machine.Published()
			batch = h.engine.NewBatch()
		}
	}
	batch.Close()
}

// BenchmarkLoad is what noting a request costs: with its key sampled, which is so of busy
// shards, and without; by one goroutine and by all processors' at once.
func BenchmarkLoad(b *testing.B) {
	for _, sampled := range []bool{false, true} {
		h := newHome(b)
		r, _ := h.shard(7, "\x02b", "\x02m")
		r.load.awake.Store(true)
		name := "unsampled"
		if sampled {
			name = "sampled"
			r.load.sampler.Store(newSampler(1))
		}
		c := get("\x02k234567890123456789012345678901")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.load.read(&c, nil)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					r.load.read(&c, nil)
				}
			})
		})
	}
}

// BenchmarkSampleDraw is what a request costs that is drawn.
func BenchmarkSampleDraw(b *testing.B) {
	s := newSampler(1)
	key := []byte("\x02k234567890123456789012345678901")
	b.ReportAllocs()
	for b.Loop() {
		s.draw(key, nil)
	}
}

// BenchmarkJudge is the end of a window, every two seconds of each busy shard.
func BenchmarkJudge(b *testing.B) {
	h := newHome(b)
	h.store.SetSplitLoad(500)
	r, _ := h.shard(7, "\x02b", "\x02m")
	h.serve(r, 15*time.Second, 1000, evenly)
	w := h.store.upkeep.loads.watched[0]
	b.ReportAllocs()
	for b.Loop() {
		w.judge(500)
	}
	if w.at == nil {
		b.Fatal(w.refusal)
	}
}

// BenchmarkMeasure is the time that a measurement spends on a key with 256 bytes.
func BenchmarkMeasure(b *testing.B) {
	h := newHome(b)
	_, g := h.shard(7, "\x02b", "\x02m")
	h.fill(g, 10_000, 256, "c")
	run, keys := &measureRun{}, 0
	b.ReportAllocs()
	for b.Loop() {
		if run.next == nil {
			*run = measureRun{next: []byte("\x02b")}
		}
		if err := run.read(h.store.openView(), []byte("\x02m")); err != nil {
			b.Fatal(err)
		}
		keys += run.part.Visited
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(keys), "ns/key")
}
