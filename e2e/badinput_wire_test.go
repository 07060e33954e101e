package e2e

import (
	"bytes"
	"context"
	varint "encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// plainBytes sends bytes as if they were a protobuf message.
type plainBytes struct{}

func (plainBytes) Name() string { return "proto" }
func (plainBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (plainBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// invoke calls a unary method with any bytes.
func (s *site) invoke(method string, message []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	return answer, s.conn.Invoke(ctx, method, message, &answer, grpc.ForceCodecV2(plainBytes{}))
}

// badProtobuf is bytes that are no message, to every method, and messages that are odd.
func badProtobuf() (cases []badCase) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, service := range []grpc.ServiceDesc{pb.KV_ServiceDesc, pb.Cluster_ServiceDesc, pb.Admin_ServiceDesc, pb.Peer_ServiceDesc} {
		for _, m := range service.Methods {
			method := "/" + service.ServiceName + "/" + m.MethodName
			random := append([]byte{0x07}, make([]byte, 100)...) // wire type 7 does not exist
			for i := 1; i < len(random); i++ {
				random[i] = byte(rnd.Uint32())
			}
			for name, b := range map[string][]byte{"cut short": {0x0a, 0x7f, 'x'}, "random": random} {
				cases = append(cases, badCase{fmt.Sprintf("%s, %s", method, name), func(s *site) error {
					_, err := s.invoke(method, b)
					if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "unmarshal") {
						return fmt.Errorf("%v", err)
					}
					return nil
				}})
			}
		}
	}
	put, err := proto.Marshal(&pb.PutRequest{Key: []byte("x"), Value: []byte("y")})
	if err != nil {
		panic(err)
	}
	return append(cases, []badCase{
		{"deeply nested groups", func(s *site) error {
			_, err := s.invoke(pb.KV_Put_FullMethodName, bytes.Repeat([]byte{0x0b}, 1<<20))
			return hasCode(err, codes.Internal)
		}},
		{"deeply nested messages", func(s *site) error {
			b := []byte{}
			for range 200 { // an unknown field in an unknown field, and so on
				b = append(varint.AppendUvarint([]byte{0xfa, 0x3f}, uint64(len(b))), b...)
			}
			_, err := s.invoke(pb.KV_Get_FullMethodName, b)
			return isInvalid(err, "key") // of what it knows there is nothing
		}},
		{"unknown fields", func(s *site) error {
			b := append(append([]byte{}, put...), 0xfa, 0x3f, 3, 1, 2, 3, 0x98, 0x75, 7)
			return errors.Join(result(s.invoke(pb.KV_Put_FullMethodName, b)), result(s.kv.Delete(s.ctx, &pb.DeleteRequest{Key: []byte("x")})))
		}},
		{"a field of another type", func(s *site) error {
			_, err := s.invoke(pb.KV_Get_FullMethodName, []byte{0x08, 5}) // a number as the key
			if err == nil {
				return errors.New("it was taken")
			}
			return nil
		}},
		{"text that is not UTF-8", func(s *site) error {
			_, err := s.invoke(pb.Admin_SetSetting_FullMethodName, []byte{0x0a, 2, 0xff, 0xfe})
			return hasCode(err, codes.Internal)
		}},
		{"a message that is too large", func(s *site) error {
			_, err := s.invoke(pb.KV_Put_FullMethodName, make([]byte, api.PeerFrameBytesMax+1))
			return hasCode(err, codes.ResourceExhausted)
		}},
		{"an unknown method", func(s *site) error {
			_, err := s.invoke("/kiloraft.v1.KV/Frob", nil)
			return hasCode(err, codes.Unimplemented)
		}},
		{"an unknown service", func(s *site) error {
			_, err := s.invoke("/kiloraft.v9.KV/Get", nil)
			return hasCode(err, codes.Unimplemented)
		}},
		{"a raw stream called as a message", func(s *site) error {
			ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
			defer cancel()
			var answer []byte
			if err := s.conn.Invoke(ctx, api.OperationsStreamMethod, put, &answer, grpc.ForceCodecV2(plainBytes{})); err == nil {
				return errors.New("it was answered")
			}
			return nil
		}},
	}...)
}

func hasCode(err error, want codes.Code) error {
	if status.Code(err) != want {
		return fmt.Errorf("%v, want code %v", err, want)
	}
	return nil
}

// stream opens a client stream, which ends with the case.
func (s *site) stream(open func(context.Context, grpc.ClientConnInterface, ...grpc.CallOption) (*api.RawStream, error), use func(*api.RawStream) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	r, err := open(ctx, s.conn)
	if err != nil {
		return err
	}
	return use(r)
}

// ends sends frames and waits for the stream's end, which it returns.
func ends(r *api.RawStream, frames ...[]byte) error {
	for _, f := range frames {
		if err := r.Send(f, nil); err != nil && err != io.EOF {
			return fmt.Errorf("sending: %w", err)
		}
	}
	for {
		if _, err := r.Receive(shard.FrameBytesMax); err != nil {
			return err
		}
	}
}

func (s *site) hello() shard.Hello {
	s.sessions++
	return shard.Hello{Cluster: s.id, Session: shard.Session(s.sessions), Stream: 1, Node: 1}
}

// ask sends one request on a stream of its own and returns the answer's error.
func (s *site) ask(target shard.Target, command []byte) (res shard.Result, err error) {
	return res, s.stream(api.OpenOperations, func(r *api.RawStream) error {
		frame := shard.AppendRequest(shard.BeginRequests(nil), &shard.Request{ID: 1, Target: target, Command: command})
		if err := r.Send(shard.AppendHello(nil, s.hello()), nil); err != nil {
			return err
		}
		if _, err := r.Receive(shard.FrameBytesMax); err != nil { // the greeting
			return err
		}
		if err := r.Send(frame, nil); err != nil {
			return err
		}
		for answered := false; !answered; {
			b, err := r.Receive(shard.FrameBytesMax)
			if err != nil {
				return err
			}
			var answer error
			if _, err := shard.DecodeResponses(b, func(p shard.Response) { answered, res, answer = true, p.Result, p.Err }); err != nil {
				return err
			}
			if answered {
				return answer
			}
		}
		return nil
	})
}

// leader is whom an attempt at shard 2 is meant for.
func (s *site) leader() (shard.Target, error) {
	put := shard.Command{Kind: shard.KindPut, Key: shard.UserKey([]byte("x"))}
	_, err := s.ask(shard.Target{Shard: 2, Version: 1}, shard.AppendCommand(nil, &put))
	var other *shard.NotLeaderError
	if !errors.As(err, &other) || other.Leader.Term == 0 {
		return shard.Target{}, fmt.Errorf("term 0 is answered with %v", err)
	}
	return shard.Target{Shard: 2, Version: 1, Replica: other.Leader.Replica, Term: other.Leader.Term}, nil
}

// badStreams is what clients could send on a stream.
func badStreams() (cases []badCase) {
	opened := func(name string, want func(error) error, frames func(s *site) [][]byte) {
		cases = append(cases, badCase{name, func(s *site) error {
			return s.stream(api.OpenOperations, func(r *api.RawStream) error { return want(ends(r, frames(s)...)) })
		}})
	}
	malformed := func(err error) error { return is(err, shard.ErrMalformed) }
	invalid := func(field string) func(error) error {
		return func(err error) error { return isInvalid(err, field) }
	}
	hello := func(s *site) []byte { return shard.AppendHello(nil, s.hello()) }
	opened("hello of another cluster", invalid("cluster"), func(s *site) [][]byte {
		h := s.hello()
		h.Cluster[0]++
		return [][]byte{shard.AppendHello(nil, h)}
	})
	opened("hello without a session", invalid("stream"), func(s *site) [][]byte {
		return [][]byte{shard.AppendHello(nil, shard.Hello{Cluster: s.id, Stream: 1, Node: 1})}
	})
	opened("hello without a number", invalid("stream"), func(s *site) [][]byte {
		h := s.hello()
		h.Stream = 0
		return [][]byte{shard.AppendHello(nil, h)}
	})
	opened("hello to another node", invalid("node"), func(s *site) [][]byte {
		h := s.hello()
		h.Node = 9
		return [][]byte{shard.AppendHello(nil, h)}
	})
	opened("requests before the hello", malformed, func(*site) [][]byte { return [][]byte{shard.BeginRequests(nil)} })
	opened("empty hello", malformed, func(*site) [][]byte { return [][]byte{{}} })
	opened("half a hello", malformed, func(s *site) [][]byte { h := hello(s); return [][]byte{h[:len(h)/2]} })
	opened("hello with a byte too many", malformed, func(s *site) [][]byte { return [][]byte{append(hello(s), 0)} })
	opened("second hello", malformed, func(s *site) [][]byte { return [][]byte{hello(s), hello(s)} })
	opened("empty frame", malformed, func(s *site) [][]byte { return [][]byte{hello(s), {}} })
	opened("frame of an unknown kind", malformed, func(s *site) [][]byte { return [][]byte{hello(s), {0xee, 1, 2, 3}} })
	opened("frame that is cut short", malformed, func(s *site) [][]byte {
		f := shard.AppendRequest(shard.BeginRequests(nil), &shard.Request{ID: 1, Command: []byte("something")})
		return [][]byte{hello(s), f[:len(f)-3]}
	})
	opened("oversize frame", func(err error) error { return says(err, "limit") }, func(s *site) [][]byte {
		return [][]byte{hello(s), make([]byte, shard.FrameBytesMax+1)}
	})

	get := shard.Command{Kind: shard.KindGet, Key: shard.UserKey([]byte("kept"))}
	put := shard.Command{Kind: shard.KindPut, Key: shard.UserKey([]byte("x")), Op: shard.OpID{Session: 9, Sequence: 9}}
	request := func(name string, c shard.Command, spoil func(*shard.Target), want func(error) error) {
		cases = append(cases, badCase{name, func(s *site) error {
			target, err := s.leader()
			if err != nil {
				return err
			}
			spoil(&target)
			_, err = s.ask(target, shard.AppendCommand(nil, &c))
			return want(err)
		}})
	}
	wrongShard := func(err error) error { return as[*shard.WrongShardError](err) }
	notLeader := func(err error) error { return as[*shard.NotLeaderError](err) }
	for name, c := range map[string]shard.Command{"get": get, "put": put} {
		otherTerm := notLeader
		if c.Kind == shard.KindGet { // a read is confirmed in whatever term it comes
			otherTerm = func(err error) error { return err }
		}
		request(name+" for an unknown shard", c, func(t *shard.Target) { t.Shard = 999 }, wrongShard)
		request(name+" for the shard beside", c, func(t *shard.Target) { t.Shard = 3 }, wrongShard)
		request(name+" of a stale epoch", c, func(t *shard.Target) { t.Version = 0 }, wrongShard)
		request(name+" of a future epoch", c, func(t *shard.Target) { t.Version = 7 }, wrongShard)
		request(name+" in term 0", c, func(t *shard.Target) { t.Term = 0 }, otherTerm)
		request(name+" in a future term", c, func(t *shard.Target) { t.Term += 1000 }, otherTerm)
		request(name+" for another replica", c, func(t *shard.Target) { t.Replica = 99 }, notLeader)
	}
	bad := func(name string, want func(error) error, command []byte) {
		cases = append(cases, badCase{name, func(s *site) error {
			target, err := s.leader()
			if err != nil {
				return err
			}
			_, err = s.ask(target, command)
			return want(err)
		}})
	}
	isBad := func(words ...string) func(error) error {
		return func(err error) error { return isInvalid(err, words...) }
	}
	encode := func(c shard.Command) []byte { return shard.AppendCommand(nil, &c) }
	bad("empty command", malformed, nil)
	bad("command of an unknown kind", malformed, []byte{0xee})
	bad("half a command", malformed, encode(put)[:len(encode(put))/2])
	bad("command with a byte too many", malformed, append(encode(shard.Command{Kind: shard.KindDraw, Limit: 1}), 0))
	bad("command of 0xff", malformed, bytes.Repeat([]byte{0xff}, 100))
	bad("system key", isBad("key"), encode(shard.Command{Kind: shard.KindPut, Key: []byte{shard.SystemKeyspace, 'x'}}))
	bad("key of an unknown keyspace", isBad("key"), encode(shard.Command{Kind: shard.KindGet, Key: []byte{9, 'x'}}))
	bad("key without a keyspace", isBad("key"), encode(shard.Command{Kind: shard.KindGet}))
	bad("a raise by a client", refusedByName, encode(shard.Command{Kind: shard.KindRaise}))
	bad("a floor by a client", refusedByName, encode(shard.Command{Kind: shard.KindFloor, Revision: 1}))
	bad("a birth of the future", refusedByName, encode(shard.Command{Kind: shard.KindPut, Key: shard.UserKey([]byte("x")), Op: put.Op, Birth: 1 << 50, Retry: true}))
	return cases
}

// refusedByName wants an InvalidError, ErrMalformed or ErrFutureRevision.
func refusedByName(err error) error {
	var invalid *shard.InvalidError
	if errors.As(err, &invalid) || errors.Is(err, shard.ErrMalformed) || errors.Is(err, shard.ErrFutureRevision) {
		return nil
	}
	return fmt.Errorf("%v", err)
}

// A hello between nodes, written by hand as raftgroup/transport writes it.
func peerHello(cluster shard.ClusterID, node, incarnation, process, target uint64) []byte {
	b := append([]byte{1, 1}, cluster[:]...)
	for _, v := range []uint64{node, incarnation, process, target, 0} {
		b = varint.AppendUvarint(b, v)
	}
	return b
}

// sender is the hello of a node that nobody has heard of.
func (s *site) sender() []byte {
	s.senders++
	return peerHello(s.id, s.senders, 1, 1, 1)
}

// badPeers is what a node could send to another one, or who says that it is one.
func badPeers() (cases []badCase) {
	// refusal wants the reason of the acceptor's refusal: see transport.Reason.
	refusal := func(name string, reason byte, hellos ...func(s *site) []byte) {
		cases = append(cases, badCase{name, func(s *site) error {
			for i, h := range hellos {
				err := s.stream(api.OpenPeerMessages, func(r *api.RawStream) error {
					if err := r.Send(h(s), nil); err != nil {
						return err
					}
					b, err := r.Receive(4 << 10)
					switch last := i == len(hellos)-1; {
					case err != nil:
						return err
					case !last && (len(b) == 0 || b[0] != 2):
						return fmt.Errorf("hello %d is answered with %x", i, b)
					case last && (len(b) < 3 || b[0] != 3 || b[2] != reason):
						return fmt.Errorf("it is answered with %q, want reason %d", b, reason)
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		}})
	}
	hello := func(node, incarnation, process, target uint64) func(*site) []byte {
		return func(s *site) []byte { return peerHello(s.id, node, incarnation, process, target) }
	}
	refusal("node of another cluster", 1, func(*site) []byte { return peerHello(shard.ClusterID{9}, 60, 1, 1, 1) })
	refusal("node that looks for another one", 2, hello(60, 1, 1, 5))
	refusal("node with the same ID", 3, hello(1, 99, 1, 1))
	refusal("node 0", 3, hello(0, 1, 1, 1))
	refusal("earlier start of a node", 4, hello(61, 5, 1, 1), hello(61, 4, 1, 1))
	refusal("copy of a node's store", 5, hello(62, 5, 1, 1), hello(62, 5, 2, 1))

	frames := func(name string, open func(context.Context, grpc.ClientConnInterface, ...grpc.CallOption) (*api.RawStream, error), frames func(s *site) [][]byte) {
		cases = append(cases, badCase{name, func(s *site) error {
			return s.stream(open, func(r *api.RawStream) error { return is(ends(r, frames(s)...), shard.ErrMalformed) })
		}})
	}
	message := func(term uint64) []byte { // a heartbeat to shard 2's replica
		var b []byte
		for _, v := range []uint64{2, 9, 1} {
			b = varint.AppendUvarint(b, v)
		}
		b = append(b, 8, 0)
		for _, v := range []uint64{term, 0, 0, 0, 0} {
			b = varint.AppendUvarint(b, v)
		}
		b = append([]byte{0}, b...)
		return append(varint.AppendUvarint(nil, uint64(len(b))), b...)
	}
	packed := func(messages ...[]byte) []byte { return append([]byte{4}, bytes.Join(messages, nil)...) }
	for name, first := range map[string][]byte{"empty hello": {}, "hello of an unknown format": {1, 9}, "messages before a hello": packed(message(1)), "hello of 5 KiB": make([]byte, 5<<10), "hello of 0xff": bytes.Repeat([]byte{0xff}, 60)} {
		frames(name+" of a node", api.OpenPeerMessages, func(*site) [][]byte { return [][]byte{first} })
	}
	for name, f := range map[string][]byte{
		"message of term 0":          packed(message(0)),
		"message that is cut short":  packed(message(1)[:5]),
		"message of length 2^60":     packed(varint.AppendUvarint(nil, 1<<60)),
		"message with unknown flags": packed([]byte{2, 0xf0, 0}),
		"message of a huge term":     packed(message(1 << 63)),
		"empty frame":                {},
		"frame of another kind":      {7, 1, 1},
		"random bytes":               packed(bytes.Repeat([]byte{0x5a, 0xc3}, 500)),
	} {
		frames(name+" of a node", api.OpenPeerMessages, func(s *site) [][]byte { return [][]byte{s.sender(), f} })
	}
	frames("oversize frame of a node", api.OpenPeerMessages, func(s *site) [][]byte {
		return [][]byte{s.sender(), packed(make([]byte, 17<<20))}
	})
	return cases
}

// badSnapshots is snapshots to a replica that exists, from nodes that no shard knows.
func badSnapshots() (cases []badCase) {
	header := func(index, term uint64, to uint64) []byte {
		var b []byte
		b = append(b, 0)
		for _, v := range []uint64{2, 9, to} {
			b = varint.AppendUvarint(b, v)
		}
		b = append(b, 7, 8) // MsgSnap, with a snapshot
		for _, v := range []uint64{term, 0, 0, 0, 0, index, term, 1, 1, 0, 0, 0} {
			b = varint.AppendUvarint(b, v)
		}
		return append(varint.AppendUvarint(nil, uint64(len(b))), b...)
	}
	chunk := func(kind byte, sequence uint64, payload []byte) []byte {
		b := append(varint.AppendUvarint([]byte{1, kind}, sequence), payload...)
		return varint.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	state := func(id shard.ID, replica shard.ReplicaID) []byte {
		b := []byte{1}
		for _, v := range []uint64{1 << 30, 1 << 20, 5, 0, 0, 0} {
			b = varint.AppendUvarint(b, v)
		}
		return shard.AppendDescriptor(b, &shard.Descriptor{ID: id, Span: shard.Span{Start: shard.UserKey(nil), End: shard.UserKey([]byte{0x80})}, Epoch: shard.Epoch{Version: 1, ConfVersion: 2},
			Replicas: []shard.Replica{{ID: replica, Node: 1, Role: shard.Voter}}, NextReplica: replica + 1})
	}
	record := func(key string, revision uint64) []byte {
		k := shard.UserKey([]byte(key))
		b := append(varint.AppendUvarint(nil, uint64(len(k))), k...)
		b = varint.AppendUvarint(b, revision)
		return append(b, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // a version's header, and no value
	}
	head := append([]byte{5, 0}, header(1<<30, 1<<20, 1)...)
	send := func(name string, frames ...[]byte) {
		cases = append(cases, badCase{name, func(s *site) error {
			return s.stream(api.OpenPeerSnapshot, func(r *api.RawStream) error {
				for _, f := range append([][]byte{s.sender()}, frames...) {
					if err := r.Send(f, nil); err != nil && err != io.EOF {
						return err
					}
				}
				_ = r.CloseSend()
				for {
					b, err := r.Receive(4 << 10)
					switch {
					case err == io.EOF:
						return errors.New("it ended without a word")
					case err != nil:
						return refusedSomehow(api.Status(err))
					case len(b) == 1 && b[0] == 8:
						return errors.New("it was taken")
					}
				}
			})
		}})
	}
	data := func(chunks ...[]byte) (frames [][]byte) {
		total := 0
		frames = append(frames, head)
		for _, c := range chunks {
			total += len(c)
			frames = append(frames, append([]byte{6}, c...))
		}
		return append(frames, varint.AppendUvarint(varint.AppendUvarint([]byte{7}, uint64(len(chunks))), uint64(total)))
	}
	first := chunk(1, 0, state(2, 1))
	spoiled := bytes.Clone(first)
	spoiled[5] ^= 1
	send("snapshot without a header", data(first)[1:]...)
	send("snapshot of an unknown class", append([]byte{5, 9}, head[2:]...))
	send("snapshot with half a header", head[:len(head)/2])
	send("snapshot of an older index", append([]byte{5, 0}, header(10, 1<<20, 1)...))
	send("snapshot for a replica that is not here", append([]byte{5, 0}, header(1<<30, 1<<20, 0)...))
	send("snapshot without chunks", data()...)
	send("snapshot that is cut", data(first)[:2]...)
	send("snapshot whose end counts otherwise", append(data(first)[:2], []byte{7, 9, 9})...)
	send("chunk with a bad checksum", data(spoiled)...)
	send("chunk of 3 bytes", data([]byte{1, 2, 3})...)
	send("chunk of an unknown kind", data(chunk(9, 0, nil))...)
	send("data before the state", data(chunk(2, 0, record("m", 3)))...)
	send("first chunk is missing", data(chunk(1, 1, state(2, 1)))...)
	send("state that does not decode", data(chunk(1, 0, []byte("state")))...)
	send("state of another shard", data(chunk(1, 0, state(3, 1)))...)
	send("state without the receiver", data(chunk(1, 0, state(2, 7)))...)
	send("chunk twice", data(first, first)...)
	send("chunk is missing", data(first, chunk(2, 2, record("m", 3)))...)
	send("chunks in another order", data(first, chunk(2, 2, record("m", 3)), chunk(2, 1, record("l", 3)))...)
	send("record outside the span", data(first, chunk(2, 1, record("\x90", 3)))...)
	send("records that are not in order", data(first, chunk(2, 1, append(record("m", 3), record("l", 3)...)))...)
	send("record without a revision", data(first, chunk(2, 1, record("m", 0)))...)
	send("record that is cut short", data(first, chunk(2, 1, record("m", 3)[:4]))...)
	send("no final chunk", data(first, chunk(2, 1, record("m", 3)))...)
	send("other totals", data(first, chunk(2, 1, record("m", 3)), chunk(3, 2, []byte{9, 9, 0, 0, 0, 0}))...)
	send("oversize chunk", data(first, chunk(2, 1, make([]byte, 9<<20)))...)
	return cases
}

// badSockets is what arrives at an open port.
func badSockets() (cases []badCase) {
	rnd := rand.New(rand.NewPCG(1, 2))
	junk := make([]byte, 4096)
	for i := range junk {
		junk[i] = byte(rnd.Uint32())
	}
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings := "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for name, b := range map[string]string{
		"random bytes":               string(junk),
		"one byte":                   "x",
		"nothing":                    "",
		"HTTP/1.1":                   "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"another protocol":           "SSH-2.0-OpenSSH_9.0\r\n",
		"half a preface":             preface[:10],
		"a preface alone":            preface,
		"a preface and junk":         preface + string(junk),
		"a frame of 16 MiB":          preface + settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		"headers on stream 0":        preface + settings + "\x00\x00\x01\x01\x04\x00\x00\x00\x00\x82",
		"headers that do not decode": preface + settings + "\x00\x00\x04\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff",
		"data on a closed stream":    preface + settings + "\x00\x00\x01\x00\x00\x00\x00\x00\x07x",
	} {
		cases = append(cases, badCase{name, func(s *site) error { return knock(s.nodes[0].address, b) }})
		if name == "random bytes" || name == "one byte" || name == "nothing" || name == "another protocol" {
			cases = append(cases, badCase{name + " on the HTTP port", func(s *site) error { return knock(s.nodes[0].http, b) }})
		}
	}
	get := func(name, method, path string, header http.Header, want int) {
		cases = append(cases, badCase{name, func(s *site) error {
			q, err := http.NewRequestWithContext(s.ctx, method, "http://"+s.nodes[0].http+path, nil)
			if err != nil {
				return err
			}
			q.Header = header
			r, err := http.DefaultClient.Do(q)
			if err != nil {
				return err
			}
			defer r.Body.Close()
			if r.StatusCode != want {
				return fmt.Errorf("%s %s is answered with %s, want %d", method, path, r.Status, want)
			}
			return nil
		}})
	}
	get("HTTP path that does not exist", "GET", "/nope", nil, http.StatusNotFound)
	get("HTTP path that leads out", "GET", "/../../etc/passwd", nil, http.StatusNotFound)
	get("HTTP header of 2 MiB", "GET", "/metrics", http.Header{"X": {strings.Repeat("x", 2<<20)}}, http.StatusRequestHeaderFieldsTooLarge)
	return cases
}

// knock sends bytes to a port, and lets go of it whatever is answered.
func knock(address, b string) error {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, b)
	_ = conn.(*net.TCPConn).CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		return errors.New("the connection is left open")
	}
	return nil
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
