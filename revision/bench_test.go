package revision

import (
	"fmt"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// BenchmarkGrants is what the granter itself can do for batched draws: of a node
// that confirms by itself, and of those that share a round of confirmation.
func BenchmarkGrants(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		for _, voter := range []shard.ReplicaID{0, 2} {
			b.Run(fmt.Sprintf("draw=%d/voter=%t", n, voter != 0), func(b *testing.B) {
				m := &metaFake{group: &metaGroup{}, id: 1}
				m.group.elect(m)
				g := m.grants()
				ask(g, 1)
				m.settle()
				granted := 0
				done := func(first shard.Revision, _ uint64, err error) {
					if err != nil || first == 0 {
						b.Error(first, err)
					}
					granted += n
				}
				for b.Loop() {
					for range 3 { // nodes
						g.Grant(n, voter, done)
					}
					m.settle()
				}
				b.ReportMetric(float64(granted)/b.Elapsed().Seconds(), "revisions/s")
			})
		}
	}
}
