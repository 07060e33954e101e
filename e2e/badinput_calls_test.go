package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func putOperation(key, value []byte) *pb.BatchOperation {
	return &pb.BatchOperation{Operation: &pb.BatchOperation_Put{Put: &pb.KeyValue{Key: key, Value: value}}}
}

// badKeys is every operation with keys and values that are too short or too long, and
// those that are just within the limits.
func badKeys() (cases []badCase) {
	absent := &pb.CasRequest_IfAbsent{IfAbsent: true}
	operations := []struct {
		name string
		do   func(s *site, key []byte) error
	}{
		{"get", func(s *site, k []byte) error { return result(s.kv.Get(s.ctx, &pb.GetRequest{Key: k})) }},
		{"put", func(s *site, k []byte) error { return result(s.kv.Put(s.ctx, &pb.PutRequest{Key: k})) }},
		{"delete", func(s *site, k []byte) error { return result(s.kv.Delete(s.ctx, &pb.DeleteRequest{Key: k})) }},
		{"cas", func(s *site, k []byte) error {
			return result(s.kv.Cas(s.ctx, &pb.CasRequest{Key: k, Condition: absent}))
		}},
		{"batch put", func(s *site, k []byte) error {
			return result(s.kv.Batch(s.ctx, &pb.BatchRequest{Then: []*pb.BatchOperation{putOperation([]byte("x"), nil), putOperation(k, nil)}}))
		}},
		{"batch get", func(s *site, k []byte) error {
			return result(s.kv.Batch(s.ctx, &pb.BatchRequest{Then: []*pb.BatchOperation{{Operation: &pb.BatchOperation_Get{Get: k}}}}))
		}},
		{"batch compare", func(s *site, k []byte) error {
			return result(s.kv.Batch(s.ctx, &pb.BatchRequest{Compares: []*pb.Compare{{Key: k, Condition: &pb.Compare_Present{}}}, Then: []*pb.BatchOperation{putOperation([]byte("x"), nil)}}))
		}},
		{"multi-get", func(s *site, k []byte) error {
			return result(s.kv.MultiGet(s.ctx, &pb.MultiGetRequest{Keys: [][]byte{[]byte("kept"), k}}))
		}},
		{"inspect", func(s *site, k []byte) error { return result(s.info.InspectKey(s.ctx, &pb.InspectKeyRequest{Key: k})) }},
	}
	for _, o := range operations {
		cases = append(cases,
			badCase{o.name + " of an empty key", func(s *site) error { return isInvalid(o.do(s, nil), "key", "empty") }},
			badCase{o.name + " of a key that is a byte too long", func(s *site) error {
				return isInvalid(o.do(s, bytes.Repeat([]byte("k"), shard.KeyBytesMax+1)), "key", "8,193", "8,192")
			}})
	}
	// A bound may be a byte longer than any key: it is what follows the longest.
	longer := bytes.Repeat([]byte("k"), shard.KeyBytesMax+2)
	long, huge := bytes.Repeat([]byte("k"), shard.KeyBytesMax+1), make([]byte, shard.ValueBytesMax+1)
	return append(cases, []badCase{
		{"scan from a key that is too long", func(s *site) error {
			return isInvalid(result(s.kv.Scan(s.ctx, &pb.ScanRequest{Start: longer})), "longer")
		}},
		{"scan to a key that is too long", func(s *site) error {
			return isInvalid(result(s.kv.Scan(s.ctx, &pb.ScanRequest{End: longer})), "longer")
		}},
		{"inverted scan", func(s *site) error {
			return isInvalid(result(s.kv.Scan(s.ctx, &pb.ScanRequest{Start: []byte("b"), End: []byte("a")})), "range")
		}},
		{"scan of nothing", func(s *site) error {
			r, err := s.kv.Scan(s.ctx, &pb.ScanRequest{Start: []byte("a"), End: []byte("a")})
			if err == nil && len(r.Rows) == 0 && !r.More {
				return nil // as good as an error: there is nothing
			}
			return isInvalid(err, "range")
		}},
		{"inverted delete-range", func(s *site) error {
			return isInvalid(result(s.kv.DeleteRange(s.ctx, &pb.DeleteRangeRequest{Start: []byte("b"), End: []byte("a")})), "range")
		}},
		{"delete-range of nothing", func(s *site) error {
			r, err := s.kv.DeleteRange(s.ctx, &pb.DeleteRangeRequest{Start: []byte("kept"), End: []byte("kept")})
			if err == nil && r.Deleted == 0 {
				return nil
			}
			return isInvalid(err, "range")
		}},
		{"delete-range to a key that is too long", func(s *site) error {
			return isInvalid(result(s.kv.DeleteRange(s.ctx, &pb.DeleteRangeRequest{Start: []byte("k"), End: longer})), "longer")
		}},
		{"put of a value that is a byte too long", func(s *site) error {
			return isInvalid(result(s.kv.Put(s.ctx, &pb.PutRequest{Key: []byte("x"), Value: huge})), "value", "4,194,305", "4,194,304")
		}},
		{"cas of a value that is too long", func(s *site) error {
			return isInvalid(result(s.kv.Cas(s.ctx, &pb.CasRequest{Key: []byte("x"), Value: huge, Condition: absent})), "value")
		}},
		{"batch of a value that is too long", func(s *site) error {
			return isInvalid(result(s.kv.Batch(s.ctx, &pb.BatchRequest{Then: []*pb.BatchOperation{putOperation([]byte("x"), huge)}})), "value")
		}},
		{"batch of 9 MiB", func(s *site) error {
			var q pb.BatchRequest
			for i := range 3 {
				q.Then = append(q.Then, putOperation([]byte{'x', byte(i)}, huge[:3<<20]))
			}
			return isInvalid(result(s.kv.Batch(s.ctx, &q)), "limit")
		}},
		{"multi-put of an empty key", func(s *site) error {
			r, err := s.kv.MultiPut(s.ctx, &pb.MultiPutRequest{Pairs: []*pb.KeyValue{{Value: []byte("x")}}})
			if err != nil || len(r.Results) != 1 || !strings.Contains(r.Results[0].Error, "empty") || r.Results[0].Undetermined {
				return fmt.Errorf("%v, %v", r, err)
			}
			return nil
		}},
		{"multi-put of a value that is too long", func(s *site) error {
			r, err := s.kv.MultiPut(s.ctx, &pb.MultiPutRequest{Pairs: []*pb.KeyValue{{Key: []byte("x"), Value: huge}}})
			if err != nil || len(r.Results) != 1 || !strings.Contains(r.Results[0].Error, "limit") || r.Results[0].Undetermined {
				return fmt.Errorf("%v, %v", r, err)
			}
			return nil
		}},
		{"the longest key and the longest value", func(s *site) error { return s.roundTrip(long[1:], huge[1:]) }},
		{"a key with every byte", func(s *site) error {
			key := make([]byte, 256)
			for i := range key {
				key[i] = byte(i)
			}
			return s.roundTrip(key, key)
		}},
		{"a key of each byte", func(s *site) error {
			for b := range 256 {
				if key := []byte{byte(b)}; b != 'a' && b != 0x90 {
					if err := s.roundTrip(key, []byte{0, byte(b)}); err != nil {
						return fmt.Errorf("%#x: %w", b, err)
					}
				}
			}
			return nil
		}},
		{"the largest batch", func(s *site) error {
			var put, gone pb.BatchRequest
			for i := range shard.BatchOpsMax {
				key := fmt.Appendf(nil, "x%d", i)
				put.Then = append(put.Then, putOperation(key, key))
				gone.Then = append(gone.Then, &pb.BatchOperation{Operation: &pb.BatchOperation_Delete{Delete: key}})
			}
			return errors.Join(result(s.kv.Batch(s.ctx, &put)), result(s.kv.Batch(s.ctx, &gone)))
		}},
	}...)
}

// roundTrip writes, reads and deletes a key.
func (s *site) roundTrip(key, value []byte) error {
	if _, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: key, Value: value}); err != nil {
		return err
	}
	r, err := s.kv.Get(s.ctx, &pb.GetRequest{Key: key})
	if err == nil && (!r.Found || !bytes.Equal(r.Value, value)) {
		err = fmt.Errorf("it has a value of %d bytes, want %d", len(r.Value), len(value))
	}
	page, scanErr := s.kv.Scan(s.ctx, &pb.ScanRequest{Start: key, Limit: 1})
	if scanErr == nil && (len(page.Rows) != 1 || !bytes.Equal(page.Rows[0].Key, key)) {
		scanErr = errors.New("a scan does not begin with it")
	}
	return errors.Join(err, scanErr, result(s.kv.Delete(s.ctx, &pb.DeleteRequest{Key: key})))
}

// badCalls are calls whose arguments make no sense, or name what does not exist.
func badCalls() []badCase {
	zero, last := uint64(0), uint64(1<<64-1)
	var many []*pb.BatchOperation
	for i := range shard.BatchOpsMax + 1 {
		many = append(many, putOperation(fmt.Appendf(nil, "x%d", i), nil))
	}
	batch := func(q *pb.BatchRequest) func(s *site) error {
		return func(s *site) error { return isInvalid(result(s.kv.Batch(s.ctx, q))) }
	}
	cas := func(q *pb.CasRequest) func(s *site) error {
		return func(s *site) error { q.Key = []byte("kept"); return isInvalid(result(s.kv.Cas(s.ctx, q))) }
	}
	at := func(revision *uint64) *pb.GetRequest { return &pb.GetRequest{Key: []byte("kept"), Revision: revision} }
	setting := func(name, value string, words ...string) func(s *site) error {
		return func(s *site) error {
			return isInvalid(result(s.admin.SetSetting(s.ctx, &pb.SetSettingRequest{Name: name, Value: value})), words...)
		}
	}
	move := func(id, from, to uint64, words ...string) func(s *site) error {
		return func(s *site) error {
			return isInvalid(result(s.admin.ChangeReplicas(s.ctx, &pb.ChangeReplicasRequest{Shard: id, FromNode: from, ToNode: to})), words...)
		}
	}
	change := func(epoch shard.Epoch, changes ...shard.Change) func(s *site) error {
		return func(s *site) error {
			m := shard.MembershipChange{Shard: 2, Epoch: epoch, Changes: changes}
			err := result(s.peer.ChangeMembership(s.ctx, &pb.ChangeMembershipRequest{Shard: 2, Change: shard.AppendMembershipChange(nil, &m)}))
			if err == nil || status.Code(err) == codes.Internal || status.Code(err) == codes.Unknown {
				return fmt.Errorf("it ends with %v", err)
			}
			return nil
		}
	}
	return []badCase{
		{"get at revision 0", func(s *site) error { return isInvalid(result(s.kv.Get(s.ctx, at(&zero))), "revision") }},
		{"get at the last revision that can be", func(s *site) error { return isInvalid(result(s.kv.Get(s.ctx, at(&last))), "revision") }},
		{"get at a future revision", func(s *site) error {
			future := uint64(1 << 40)
			return is(result(s.kv.Get(s.ctx, at(&future))), shard.ErrFutureRevision)
		}},
		{"scan at a future revision", func(s *site) error {
			future := uint64(1 << 40)
			return is(result(s.kv.Scan(s.ctx, &pb.ScanRequest{Revision: &future})), shard.ErrFutureRevision)
		}},
		{"scan at revision 0", func(s *site) error {
			return isInvalid(result(s.kv.Scan(s.ctx, &pb.ScanRequest{Revision: &zero})), "revision")
		}},
		{"get of the latest state at any replica", func(s *site) error {
			return isInvalid(result(s.kv.Get(s.ctx, &pb.GetRequest{Key: []byte("kept"), AnyReplica: true})))
		}},
		{"cas without a condition", cas(&pb.CasRequest{})},
		{"cas if revision 0", cas(&pb.CasRequest{Condition: &pb.CasRequest_IfRevision{}})},
		{"cas if not absent", cas(&pb.CasRequest{Condition: &pb.CasRequest_IfAbsent{}})},
		{"cas if the last revision that can be", cas(&pb.CasRequest{Condition: &pb.CasRequest_IfRevision{IfRevision: last}})},
		{"empty batch", batch(&pb.BatchRequest{})},
		{"batch of an empty operation", batch(&pb.BatchRequest{Then: []*pb.BatchOperation{{}}})},
		{"batch of a compare of nothing", batch(&pb.BatchRequest{Compares: []*pb.Compare{{Key: []byte("a")}}, Then: many[:1]})},
		{"batch with a key twice", batch(&pb.BatchRequest{Then: []*pb.BatchOperation{many[0], many[0]}})},
		{"batch of one operation too many", batch(&pb.BatchRequest{Then: many})},
		{"batch over two shards", func(s *site) error {
			return is(result(s.kv.Batch(s.ctx, &pb.BatchRequest{Then: []*pb.BatchOperation{many[0], putOperation([]byte("\x90x"), nil)}})), shard.ErrSpansShards)
		}},
		{"multi-get of nothing", func(s *site) error { return isInvalid(result(s.kv.MultiGet(s.ctx, &pb.MultiGetRequest{})), "keys") }},
		{"multi-get of 10,001 keys", func(s *site) error {
			return isInvalid(result(s.kv.MultiGet(s.ctx, &pb.MultiGetRequest{Keys: make([][]byte, 10_001)})), "10001")
		}},
		{"multi-put of nothing", func(s *site) error { return isInvalid(result(s.kv.MultiPut(s.ctx, &pb.MultiPutRequest{})), "keys") }},
		{"multi-put of 10,001 keys", func(s *site) error {
			q := &pb.MultiPutRequest{Pairs: make([]*pb.KeyValue, 10_001)}
			for i := range q.Pairs {
				q.Pairs[i] = &pb.KeyValue{Key: []byte("x")}
			}
			return isInvalid(result(s.kv.MultiPut(s.ctx, q)), "10001")
		}},
		{"unknown setting", setting("kv.retentoin", "1m", "kv.retentoin")},
		{"setting without a name", setting("", "1m")},
		{"setting of the wrong kind", setting("kv.retention", "often", "kv.retention", "duration")},
		{"setting below its least", setting("kv.retention", "0s", "kv.retention")},
		{"setting above its most", setting("kv.retention", "9999999h", "kv.retention")},
		{"setting of a megabyte", setting("kv.retention", strings.Repeat("1", 1<<20), "kv.retention")},
		{"setting without a value", setting("kv.retention", "", "kv.retention")},
		{"transfer of an unknown shard", func(s *site) error {
			return isInvalid(result(s.admin.TransferLeader(s.ctx, &pb.TransferLeaderRequest{Shard: 999, ToNode: 1})), "999")
		}},
		{"transfer to an unknown node", func(s *site) error {
			return isInvalid(result(s.admin.TransferLeader(s.ctx, &pb.TransferLeaderRequest{Shard: 2, ToNode: 77})), "77")
		}},
		{"move of an unknown shard", move(999, 1, 2, "999")},
		{"move from and to nowhere", move(2, 0, 0)},
		{"move to the same node", move(2, 1, 1, "1")},
		{"move to an unknown node", move(2, 1, 77, "77")},
		{"a replica for an unknown node", move(2, 0, 77, "77")},
		{"a second replica for a node", move(2, 0, 1, "1")},
		{"no replica for a node that has none", move(2, 77, 0, "77")},
		{"drain of node 0", func(s *site) error { return isInvalid(result(s.admin.DrainNode(s.ctx, &pb.DrainNodeRequest{}))) }},
		{"drain of an unknown node", func(s *site) error {
			return isInvalid(result(s.admin.DrainNode(s.ctx, &pb.DrainNodeRequest{Node: 77})), "77")
		}},
		{"decommissioning of an unknown node", func(s *site) error {
			return isInvalid(result(s.admin.DecommissionNode(s.ctx, &pb.DecommissionNodeRequest{Node: 77})), "77")
		}},
		{"end of an unknown operation", func(s *site) error {
			return isInvalid(result(s.admin.CancelOperation(s.ctx, &pb.CancelOperationRequest{Id: 77})), "77")
		}},
		{"check of an unknown shard", func(s *site) error {
			return refusedSomehow(result(s.admin.CheckShard(s.ctx, &pb.CheckShardRequest{Shard: 999})))
		}},
		{"explanation of an unknown shard", func(s *site) error {
			return isInvalid(result(s.info.ExplainPlacement(s.ctx, &pb.ExplainPlacementRequest{Shard: 999})), "999")
		}},
		{"explanation of an unknown node", func(s *site) error {
			return isInvalid(result(s.info.ExplainPlacement(s.ctx, &pb.ExplainPlacementRequest{Node: 77})), "77")
		}},
		{"membership change of a stale epoch", change(shard.Epoch{}, shard.Change{Kind: shard.AddLearner, Replica: 2, Node: 2})},
		{"membership change of a future epoch", change(shard.Epoch{Version: 9, ConfVersion: 9}, shard.Change{Kind: shard.AddLearner, Replica: 2, Node: 2})},
		{"membership change with a replica ID that was given", change(shard.Epoch{Version: 1, ConfVersion: 1}, shard.Change{Kind: shard.AddLearner, Replica: 1, Node: 2})},
		{"membership change that removes the last voter", change(shard.Epoch{Version: 1, ConfVersion: 1}, shard.Change{Kind: shard.Demote, Replica: 1})},
		{"membership change of nothing", func(s *site) error {
			return refusedSomehow(result(s.peer.ChangeMembership(s.ctx, &pb.ChangeMembershipRequest{Shard: 2})))
		}},
		{"membership change that does not decode", func(s *site) error {
			return refusedSomehow(result(s.peer.ChangeMembership(s.ctx, &pb.ChangeMembershipRequest{Shard: 2, Change: []byte{1, 2, 3}})))
		}},
		{"transfer of a shard that is not here", func(s *site) error {
			return refusedSomehow(result(s.peer.TransferShard(s.ctx, &pb.TransferShardRequest{Shard: 999, ToReplica: 1})))
		}},
		{"read below the floor", readBelowTheFloor},
	}
}

// refusedSomehow wants an error of the closed set, whichever.
func refusedSomehow(err error) error {
	if err == nil || status.Code(err) == codes.Internal || status.Code(err) == codes.Unknown {
		return fmt.Errorf("it ends with %v", err)
	}
	return nil
}

// readBelowTheFloor waits until a revision is too old, and reads at it.
func readBelowTheFloor(s *site) error {
	old, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: []byte("x")})
	if err == nil {
		err = result(s.admin.SetSetting(s.ctx, &pb.SetSettingRequest{Name: "kv.retention", Value: "1s"}))
	}
	if err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := result(s.kv.Delete(s.ctx, &pb.DeleteRequest{Key: []byte("x")})); err != nil {
			return err
		}
		if err = result(s.kv.Get(s.ctx, &pb.GetRequest{Key: []byte("x"), Revision: &old.Revision})); err != nil {
			break
		}
	}
	return errors.Join(is(err, shard.ErrCompacted), result(s.admin.SetSetting(s.ctx, &pb.SetSettingRequest{Name: "kv.retention", Value: "10m"})))
}
