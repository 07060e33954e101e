package revision

import (
	"errors"
	"sync"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func TestPerShardRisesAboveItselfAndTheFloor(t *testing.T) {
	var p PerShard
	for _, c := range []struct {
		id    shard.ID
		floor shard.Revision
		n     int
		want  shard.Revision
	}{
		{1, 0, 1, 1},     // the first of all
		{1, 0, 3, 2},     // the floor lags behind what was handed out
		{1, 4, 1, 5},     // the floor is where we are
		{1, 100, 2, 101}, // another node led meanwhile
		{1, 50, 1, 103},
		{2, 0, 1, 1}, // shards know nothing of each other
		{1, 0, 0, 104},
		{1, 0, 1, 104},
	} {
		called := 0
		p.Draw(c.id, c.floor, c.n, func(first shard.Revision, err error) {
			called++
			if err != nil || first != c.want {
				t.Errorf("%+v: %d, %v", c, first, err)
			}
		})
		if called != 1 {
			t.Errorf("%+v: done was called %d times", c, called)
		}
	}
	p.Forget(1)
	p.Draw(1, 7, 1, func(first shard.Revision, err error) {
		if first != 8 {
			t.Errorf("after Forget: %d", first)
		}
	})
}

func TestPerShardEndsBelowMaxRevision(t *testing.T) {
	var p PerShard
	p.Draw(1, shard.MaxRevision-3, 2, func(first shard.Revision, err error) {
		if err != nil || first != shard.MaxRevision-2 {
			t.Errorf("%d, %v", first, err)
		}
	})
	for _, floor := range []shard.Revision{0, shard.MaxRevision, shard.MaxRevision + 1} {
		p.Draw(1, floor, 1, func(first shard.Revision, err error) {
			if !errors.Is(err, shard.ErrUnavailable) || first != 0 {
				t.Errorf("floor %d: %d, %v", floor, first, err)
			}
		})
	}
}

func TestPerShardKnowsWhatItHandedOut(t *testing.T) {
	var p PerShard
	known := func(r shard.Revision) bool {
		t.Helper()
		called, known := 0, false
		p.HandedOut(r, func(k bool, err error) {
			called++
			if known = k; err != nil {
				t.Error(err)
			}
		})
		if called != 1 {
			t.Errorf("done was called %d times", called)
		}
		return known
	}
	none := func(shard.Revision, error) {}
	if known(1) {
		t.Error("a revision is known before any was handed out")
	}
	p.Draw(1, 0, 3, none)
	p.Draw(2, 7, 1, none)
	p.Draw(1, 0, 1, none)
	for r := shard.Revision(1); r <= 8; r++ {
		if !known(r) {
			t.Errorf("%d is not known", r)
		}
	}
	if known(9) {
		t.Error("9 is known")
	}
}

func TestPerShardNeverRepeats(t *testing.T) {
	var p PerShard
	var mu sync.Mutex
	seen := map[shard.Revision]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			last := shard.Revision(0)
			for n := range 200 {
				p.Draw(9, 0, n%3+1, func(first shard.Revision, err error) {
					mu.Lock()
					defer mu.Unlock()
					if err != nil || first <= last {
						t.Errorf("%d after %d, %v", first, last, err)
					}
					for i := range n%3 + 1 {
						r := first + shard.Revision(i)
						if seen[r] {
							t.Errorf("%d twice", r)
						}
						seen[r] = true
						last = r
					}
				})
			}
		})
	}
	wg.Wait()
}
