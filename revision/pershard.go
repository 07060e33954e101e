package revision

import (
	"sync"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/replica"
)

var _ replica.Revisions = (*PerShard)(nil)

// PerShard numbers the writes of each shard by itself. The zero value is ready.
// It is safe for concurrent use.
type PerShard struct {
	mu sync.Mutex
	// last is the largest revision handed out, one number for each shard that has
	// drawn on this node.
	last map[shard.ID]shard.Revision
	// highest is the largest revision handed out for any shard, or that another
	// node has handed out as far as draws here told.
	highest shard.Revision
}

// Draw hands out n revisions above everything that it gave out for the shard, and
// above floor: another node may have led the shard since it was asked last. done
// is called before Draw returns; with ErrUnavailable if the numbers have run out.
func (p *PerShard) Draw(id shard.ID, floor shard.Revision, n int, done func(first shard.Revision, err error)) {
	first, err := p.draw(id, floor, n)
	done(first, err)
}

func (p *PerShard) draw(id shard.ID, floor shard.Revision, n int) (shard.Revision, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := max(p.last[id], floor)
	// MaxRevision means the latest state, and is nobody's.
	if n < 0 || shard.Revision(n) >= shard.MaxRevision-min(last, shard.MaxRevision) {
		return 0, shard.ErrUnavailable
	}
	if p.last == nil {
		p.last = make(map[shard.ID]shard.Revision)
	}
	p.last[id] = last + shard.Revision(n)
	p.highest = max(p.highest, p.last[id])
	return last + 1, nil
}

// HandedOut compares r with the largest revision that was handed out for any
// shard, since revisions of different shards are not told apart here. It forgets
// with a restart, until draws have told it again. done is called before it returns.
func (p *PerShard) HandedOut(r shard.Revision, done func(known bool, err error)) {
	p.mu.Lock()
	known := r <= p.highest
	p.mu.Unlock()
	done(known, nil)
}

// Forget frees what is kept for a shard that has left the node. Should it come
// back, numbers that were handed out but not applied may be handed out again;
// its log takes each of them once.
func (p *PerShard) Forget(id shard.ID) {
	p.mu.Lock()
	delete(p.last, id)
	p.mu.Unlock()
}
