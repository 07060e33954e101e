package machine

import (
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
)

// BenchmarkPut is a plain put at apply, without the commit, in turns of so many.
func BenchmarkPut(b *testing.B) {
	for _, turn := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("turn=%d", turn), func(b *testing.B) {
			w := newBench(b, userState())
			defer w.close()
			// One turn's operations, made anew for each turn as entries are.
			var ops [][]byte
			renew := func(from int) {
				ops = ops[:0]
				arena := make([]byte, 0, turn*320)
				for i := range turn {
					at := len(arena)
					arena = AppendHeader(arena, Header{Revision: shard.Revision(from + i), Version: 2})
					arena = shard.AppendCommand(arena, &shard.Command{Kind: shard.KindPut, Op: shard.OpID{Session: 5, Sequence: uint64(from + i)},
						Key: fmt.Appendf(nil, "\x02k%031d", i), Value: make([]byte, 256)})
					ops = append(ops, arena[at:len(arena):len(arena)])
				}
			}
			b.ReportAllocs()
			next := 1
			for n := 0; n < b.N; {
				b.StopTimer()
				renew(next)
				next += turn
				batch := w.engine.NewBatch()
				b.StartTimer()
				for _, op := range ops {
					w.index++
					if res, err := w.m.Apply(batch, raftgroup.Position{Index: w.index, Term: 1}, op); err != nil || res.Err != nil {
						b.Fatal(res.Err, err)
					}
				}
				if err := w.m.EndApply(batch, raftgroup.Position{Index: w.index, Term: 1}); err != nil {
					b.Fatal(err)
				}
				w.m.Published()
				n += turn
				b.StopTimer()
				batch.Close()
				b.StartTimer()
			}
		})
	}
}
