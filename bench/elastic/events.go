package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

const (
	splitEvent = "split"
	moveEvent  = "move"

	// eventTail is how long the load goes on after the last event began, and eventPatience how
	// long one may take.
	eventTail     = 5 * time.Second
	eventPatience = 30 * time.Second
	// eventAfter is how long after its end a gap still counts as an event's.
	eventAfter = time.Second
	movePause  = 100 * time.Millisecond // between two looks at a move
)

// event is one split or move. Times are in milliseconds; began counts from the first event.
type event struct {
	Kind     string  `json:"kind"`
	Shard    uint64  `json:"shard"`
	Began    float64 `json:"began_ms"`
	Took     float64 `json:"took_ms"`
	GapAll   float64 `json:"gap_all_keys_ms"`
	GapShard float64 `json:"gap_one_shard_ms"`
	Error    string  `json:"error,omitempty"`
}

// director has events happen, several at once if they take long.
type director struct {
	*scene
	began time.Time
	rand  *rand.Rand

	mu     sync.Mutex
	busy   map[uint64]bool // shards that something happens to
	events []event
}

// events has all splits and moves happen, evenly spread over the busy time, and returns
// with the load's end, or with that of the last of them.
func (s *scene) events(ctx context.Context) []event {
	d := &director{scene: s, began: time.Now(), rand: rand.New(rand.NewPCG(1, 1)), busy: map[uint64]bool{}}
	kinds := sequence(s.Scale.Splits, s.Scale.Moves)
	var under sync.WaitGroup
	moves := 0
	for i, kind := range kinds {
		due := (s.Scale.Busy - eventTail) * time.Duration(i) / time.Duration(len(kinds))
		if !sleep(ctx, due-time.Since(d.began)) {
			break
		}
		leader := moves%2 == 0 // each other move is of a leader
		if kind == moveEvent {
			moves++
		}
		under.Go(func() { d.happen(ctx, kind, leader) })
	}
	sleep(ctx, s.Scale.Busy-time.Since(d.began))
	s.store.endAll()
	under.Wait()
	return d.events
}

// sequence mixes two kinds evenly.
func sequence(splits, moves int) (kinds []string) {
	for i, made := 0, 0; i < splits+moves; i++ {
		if (i+1)*moves/(splits+moves) > made {
			made++
			kinds = append(kinds, moveEvent)
		} else {
			kinds = append(kinds, splitEvent)
		}
	}
	return kinds
}

// happen has one event happen, and takes down what it cost.
func (d *director) happen(ctx context.Context, kind string, leader bool) {
	e := event{Kind: kind, Began: millis(time.Since(d.began))}
	if err := d.carryOut(ctx, &e, leader); err != nil {
		e.Error = err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.busy, e.Shard)
	d.events = append(d.events, e)
}

func (d *director) carryOut(ctx context.Context, e *event, leader bool) error {
	ctx, cancel := context.WithTimeout(ctx, eventPatience)
	defer cancel()
	shards, err := d.shards(ctx)
	if err != nil {
		return err
	}
	nodes, err := d.nodes(ctx)
	if err != nil {
		return err
	}
	target, err := d.choose(e.Kind, shards)
	if err != nil {
		return err
	}
	e.Shard = target.GetDescriptor_().GetId()
	all, one := d.store.watch(span{}), d.store.watch(spanOf(target))
	began := time.Now()
	if e.Kind == splitEvent {
		err = d.split(ctx, target)
	} else {
		err = d.move(ctx, target, nodes, leader)
	}
	e.Took = millis(time.Since(began))
	sleep(ctx, eventAfter)
	e.GapAll, e.GapShard = millis(d.store.end(all)), millis(d.store.end(one))
	return err
}

// choose takes a shard that nothing happens to: the widest to split, any to move.
func (d *director) choose(kind string, shards []*pb.ShardInfo) (*pb.ShardInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var best *pb.ShardInfo
	for _, i := range d.rand.Perm(len(shards)) {
		one := shards[i]
		switch {
		case d.busy[one.GetDescriptor_().GetId()] || one.GetLeaderNode() == 0:
		case best == nil, kind == splitEvent && width(spanOf(one)) > width(spanOf(best)):
			best = one
		}
	}
	if best == nil {
		return nil, errors.New("something happens to each shard already")
	}
	d.busy[best.GetDescriptor_().GetId()] = true
	return best, nil
}

// split splits a shard in the middle of its span: keys begin with eight bytes of a hash.
func (d *director) split(ctx context.Context, s *pb.ShardInfo) error {
	keys := spanOf(s)
	middle := binary.BigEndian.AppendUint64(nil, position(keys.start)+width(keys)/2)
	_, err := pb.NewAdminClient(d.conn).SplitShard(ctx, &pb.SplitShardRequest{Keys: [][]byte{middle}})
	return api.Error(err)
}

// move moves a replica of a shard, its leader or another one, to a node that has none.
func (d *director) move(ctx context.Context, s *pb.ShardInfo, nodes []*pb.NodeInfo, leader bool) error {
	var from, to uint64
	for _, n := range nodes {
		has := slices.ContainsFunc(s.GetDescriptor_().GetReplicas(), func(r *pb.Replica) bool { return r.GetNode() == n.GetId() })
		switch {
		case !has:
			to = n.GetId()
		case leader == (n.GetId() == s.GetLeaderNode()):
			from = n.GetId()
		}
	}
	if from == 0 || to == 0 {
		return fmt.Errorf("it has replicas on %v, and there is no node to move one from, or to", s.GetDescriptor_().GetReplicas())
	}
	answer, err := pb.NewAdminClient(d.conn).ChangeReplicas(ctx, &pb.ChangeReplicasRequest{Shard: s.GetDescriptor_().GetId(), FromNode: from, ToNode: to})
	if err != nil {
		return api.Error(err)
	}
	return d.await(ctx, answer.GetOperation())
}

// await returns when an operation is done.
func (d *director) await(ctx context.Context, op *pb.Operation) error {
	for op.GetState() == "running" {
		if !sleep(ctx, movePause) {
			return fmt.Errorf("%w: %s", ctx.Err(), op.GetProgress())
		}
		answer, err := pb.NewClusterClient(d.conn).ListOperations(ctx, &pb.ListOperationsRequest{Id: op.GetId()})
		switch {
		case err != nil:
			return api.Error(err)
		case len(answer.GetOperations()) == 0:
			return fmt.Errorf("operation %d is not known any more", op.GetId())
		}
		op = answer.GetOperations()[0]
	}
	if op.GetState() != "done" {
		return fmt.Errorf("operation %d %s: %s", op.GetId(), op.GetState(), op.GetReason())
	}
	return nil
}

// spanOf is a shard's span in user keys.
func spanOf(s *pb.ShardInfo) span {
	d := s.GetDescriptor_()
	keys := span{start: d.GetStart()[1:]}
	if end := d.GetEnd(); end[0] == shard.UserKeyspace {
		keys.end = end[1:]
	}
	return keys
}

// position is where a key lies among all, by its first eight bytes.
func position(key []byte) uint64 {
	var first [8]byte
	copy(first[:], key)
	return binary.BigEndian.Uint64(first[:])
}

// width is how much of all keys a span holds.
func width(s span) uint64 {
	end := uint64(math.MaxUint64)
	if len(s.end) > 0 {
		end = position(s.end)
	}
	return end - position(s.start)
}
