package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/shard"
)

// splitKeysMax bounds the keys of one request.
const splitKeysMax = 1000

// splitPause is how long a split that its shard's leader refused for the moment waits.
const splitPause = 50 * time.Millisecond

// SplitShard splits shards at keys, one key after the other, the largest first: then all
// that are still to come lie in the side that keeps the shard's ID and its leader. All
// are checked before the first one is carried out.
func (s *adminService) SplitShard(ctx context.Context, q *pb.SplitShardRequest) (*pb.SplitShardResponse, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	keys, err := splitKeys(q.Keys)
	if err != nil {
		return nil, api.Status(err)
	}
	plan, err := s.planSplits(ctx, q.Shard, keys)
	if err != nil {
		return nil, api.Status(err)
	}
	r := &pb.SplitShardResponse{}
	for i := len(plan) - 1; i >= 0; i-- {
		done := plan[i]
		if !q.DryRun {
			if done, err = s.split(ctx, keys[i]); err != nil {
				return nil, api.Status(s.partlySplit(err, keys, i))
			}
		}
		r.Splits = append(r.Splits, done)
	}
	slices.Reverse(r.Splits)
	return r, nil
}

// splitKeys are full keys, in order.
func splitKeys(users [][]byte) (keys [][]byte, err error) {
	if len(users) == 0 || len(users) > splitKeysMax {
		return nil, refuse("--at", "names %d keys, the limits are 1 and %d", len(users), splitKeysMax)
	}
	for _, key := range users {
		if len(key) == 0 {
			return nil, refuse("--at", "is empty; a key has at least 1 byte")
		}
		keys = append(keys, shard.UserKey(key))
	}
	slices.SortFunc(keys, bytes.Compare)
	for i := 1; i < len(keys); i++ {
		if bytes.Equal(keys[i-1], keys[i]) {
			return nil, refuse("--at", "names %q twice", shard.FormatKey(keys[i]))
		}
	}
	return keys, nil
}

// planSplits is what splits at keys would come to, or why one of them cannot be. id 0:
// each in the shard that covers it.
func (s *adminService) planSplits(ctx context.Context, id uint64, keys [][]byte) ([]*pb.ShardSplit, error) {
	v, err := s.cluster.look(ctx, everything)
	if err != nil {
		return nil, err
	}
	running, err := await(ctx, s.cluster.node.Catalog().ListOperations)
	if err != nil {
		return nil, err
	}
	shards := make(map[shard.ID]shard.Descriptor) // as the splits planned so far leave them
	plan := make([]*pb.ShardSplit, len(keys))
	for i := len(keys) - 1; i >= 0; i-- {
		sh, err := v.splitShard(id, keys[i])
		if err != nil {
			return nil, err
		}
		d, planned := shards[shard.ID(sh.Descriptor_.Id)]
		if !planned {
			if d, err = api.ToDescriptor(sh.Descriptor_); err != nil {
				return nil, err
			}
			for _, op := range running {
				if op.Shard == d.ID && op.State == catalog.OperationRunning {
					return nil, &shard.NotReadyError{Shard: d.ID, Reason: fmt.Sprintf("operation %d is under way on it; wait for it, or `kiloraft ops cancel %d`", op.ID, op.ID)}
				}
			}
		}
		split := shard.Split{Shard: d.ID, Epoch: d.Epoch, Key: keys[i], Right: shard.ID(1) << 62}
		left, right, err := split.Apply(&d)
		if err != nil {
			return nil, err
		}
		shards[d.ID] = left
		right.ID = 0
		plan[i] = &pb.ShardSplit{Key: keys[i][1:], Left: api.FromDescriptor(&left), Right: api.FromDescriptor(&right)}
	}
	return plan, nil
}

// splitShard is the shard with an ID, or the one that covers a key.
func (v *view) splitShard(id uint64, key []byte) (*pb.ShardInfo, error) {
	if id != 0 {
		return v.shard(id)
	}
	for _, sh := range v.shards() {
		if (shard.Span{Start: sh.Descriptor_.Start, End: sh.Descriptor_.End}).Contains(key) {
			return sh, nil
		}
	}
	return nil, &shard.NotReadyError{Reason: fmt.Sprintf("no shard is known to hold %q; try again", shard.FormatKey(key))}
}

// split splits the shard that covers key there. Whatever becomes of an attempt, it asks
// anew where the key is and goes on from that, until ctx ends.
func (s *adminService) split(ctx context.Context, key []byte) (*pb.ShardSplit, error) {
	var last error
	for {
		v, err := s.cluster.look(ctx, everything)
		if err == nil {
			var done *pb.ShardSplit
			if done, err = s.trySplit(ctx, v, key); err == nil {
				return done, nil
			}
		}
		var invalid *shard.InvalidError
		var notReady *shard.NotReadyError
		if errors.As(err, &invalid) || errors.As(err, &notReady) {
			return nil, err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return nil, &shard.InternalError{Reason: fmt.Sprintf("the shard of %q was not split in time: %v; `kiloraft shard show --key` tells what it is now", shard.FormatKey(key), last)}
		case <-time.After(splitPause):
		}
	}
}

// trySplit makes one attempt.
func (s *adminService) trySplit(ctx context.Context, v *view, key []byte) (*pb.ShardSplit, error) {
	sh, err := v.splitShard(0, key)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(sh.Descriptor_.Start, key) { // an attempt whose answer was lost, or somebody else's
		return &pb.ShardSplit{Key: key[1:], Right: sh.Descriptor_}, nil
	}
	if sh.LeaderNode == 0 {
		return nil, fmt.Errorf("shard %d has no leader: %w", sh.Descriptor_.Id, shard.ErrUnavailable) // it is being elected
	}
	d, err := api.ToDescriptor(sh.Descriptor_)
	if err != nil {
		return nil, err
	}
	id, err := await(ctx, s.cluster.node.Catalog().AllocateShard)
	if err != nil {
		return nil, err
	}
	return await(ctx, func(done func(*pb.ShardSplit, error)) {
		s.askSplit(shard.NodeID(sh.LeaderNode), shard.Split{Shard: d.ID, Epoch: d.Epoch, Key: key, Right: id}, func(left, right shard.Descriptor, err error) {
			done(&pb.ShardSplit{Key: key[1:], Left: api.FromDescriptor(&left), Right: api.FromDescriptor(&right)}, err)
		})
	})
}

// askSplit asks the leader on a node, directly if that is this one.
func (s *adminService) askSplit(leader shard.NodeID, split shard.Split, done func(left, right shard.Descriptor, err error)) {
	n := s.cluster.node
	if leader == n.Identity().Node {
		n.SplitShard(split, done)
		return
	}
	s.cluster.peers.SplitShard(n.Address(leader), split, reportTimeout, done)
}

// partlySplit says how far splits have come that ended with an error at keys[i].
func (s *adminService) partlySplit(err error, keys [][]byte, i int) error {
	if i == len(keys)-1 {
		return err
	}
	return &shard.NotReadyError{Reason: fmt.Sprintf("after splits at %d of %d keys, the last at %q: %v", len(keys)-1-i, len(keys), shard.FormatKey(keys[i+1]), err)}
}
