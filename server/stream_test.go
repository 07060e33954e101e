package server

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// opened opens a client stream and says nothing.
func opened(t *testing.T, conn *grpc.ClientConn) *api.RawStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	s, err := api.OpenOperations(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// greeted opens a client stream with a hello and returns it with the server's greeting.
func greeted(t *testing.T, conn *grpc.ClientConn, h shard.Hello) (*api.RawStream, shard.Greeting) {
	t.Helper()
	s := opened(t, conn)
	if err := s.Send(shard.AppendHello(nil, h), nil); err != nil {
		t.Fatal(err)
	}
	frame, err := s.Receive(shard.FrameBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	g, err := shard.DecodeGreeting(frame)
	if err != nil {
		t.Fatal(err)
	}
	return s, g
}

// ended waits for the stream's end and returns why.
func ended(s *api.RawStream) error {
	for {
		if _, err := s.Receive(shard.FrameBytesMax); err != nil {
			return err
		}
	}
}

// Whatever a client stream is fed, the server ends that stream with the reason
// and goes on serving.
func TestClientStreamRefusesBadFrames(t *testing.T) {
	conn := startServer(t)
	kv := pb.NewKVClient(conn)
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("kept"), Value: []byte("safe")}); err != nil {
		t.Fatal(err)
	}
	send := func(s *api.RawStream, frame []byte) {
		t.Helper()
		if err := s.Send(frame, nil); err != nil {
			t.Fatal(err)
		}
	}
	info, err := pb.NewClusterClient(conn).Info(t.Context(), &pb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := api.ToClusterID(info.ClusterId)
	if err != nil {
		t.Fatal(err)
	}
	streams := uint64(0)
	hello := func() shard.Hello {
		streams++
		return shard.Hello{Cluster: cluster, Session: 1, Stream: streams, Node: 1}
	}
	t.Run("wrong cluster", func(t *testing.T) {
		s, h := opened(t, conn), hello()
		h.Cluster[0]++
		send(s, shard.AppendHello(nil, h))
		var invalid *shard.InvalidError
		if err := ended(s); !errors.As(err, &invalid) || invalid.Field != "cluster" {
			t.Errorf("%v", err)
		}
	})
	t.Run("no session, and a number of an earlier stream", func(t *testing.T) {
		_, g := greeted(t, conn, hello())
		if g.Cluster != cluster || g.Node != 1 || g.Incarnation == 0 {
			t.Errorf("greeted with %+v", g)
		}
		for _, h := range []shard.Hello{{Cluster: cluster, Stream: 1, Node: 1}, {Cluster: cluster, Session: 1, Stream: streams, Node: 1}, {Cluster: cluster, Session: 1, Node: 1}} {
			s := opened(t, conn)
			send(s, shard.AppendHello(nil, h))
			var invalid *shard.InvalidError
			if err := ended(s); !errors.As(err, &invalid) || invalid.Field != "stream" {
				t.Errorf("%+v: %v", h, err)
			}
		}
	})
	t.Run("meant for another node", func(t *testing.T) {
		h := hello()
		h.Node = 9
		s, g := greeted(t, conn, h)
		var invalid *shard.InvalidError
		if err := ended(s); g.Node != 1 || !errors.As(err, &invalid) || invalid.Field != "node" {
			t.Errorf("greeted with %+v, then %v", g, err)
		}
	})
	t.Run("requests before the hello", func(t *testing.T) {
		s := opened(t, conn)
		send(s, shard.BeginRequests(nil))
		if err := ended(s); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%v", err)
		}
	})
	t.Run("random frames", func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(3, 4))
		malformed := 0
		for range 200 {
			s, _ := greeted(t, conn, hello())
			junk := shard.BeginRequests(nil)
			for range 1 + rnd.IntN(200) {
				junk = append(junk, byte(rnd.Uint32()))
			}
			send(s, junk)
			if err := s.CloseSend(); err != nil {
				t.Fatal(err)
			}
			// Now and then junk is a frame of requests that are refused one by one.
			err := ended(s)
			if errors.Is(err, shard.ErrMalformed) {
				malformed++
			} else if err != io.EOF {
				t.Fatalf("%x: %v", junk, err)
			}
		}
		if malformed < 100 {
			t.Errorf("only %d of 200 frames were malformed: the test sends too much sense", malformed)
		}
	})
	t.Run("oversize frame", func(t *testing.T) {
		s, _ := greeted(t, conn, hello())
		send(s, make([]byte, shard.FrameBytesMax+1))
		if err := ended(s); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("%v", err)
		}
	})
	t.Run("malformed command, and one to the system keyspace", func(t *testing.T) {
		s, _ := greeted(t, conn, hello())
		frame := shard.BeginRequests(nil)
		frame = shard.AppendRequest(frame, &shard.Request{ID: 1, Target: shard.Target{Shard: 2}, Command: []byte{0xee}})
		system := shard.AppendCommand(nil, &shard.Command{Kind: shard.KindPut, Key: []byte{shard.SystemKeyspace, 'x'}})
		frame = shard.AppendRequest(frame, &shard.Request{ID: 2, Target: shard.Target{Shard: shard.MetaID}, Command: system})
		send(s, frame)
		answers := map[uint64]error{}
		for len(answers) < 2 {
			b, err := s.Receive(shard.FrameBytesMax)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := shard.DecodeResponses(b, func(p shard.Response) { answers[p.ID] = p.Err }); err != nil {
				t.Fatal(err)
			}
		}
		var invalid *shard.InvalidError
		if !errors.Is(answers[1], shard.ErrMalformed) || !errors.As(answers[2], &invalid) {
			t.Errorf("%v", answers)
		}
	})
	got, err := kv.Get(t.Context(), &pb.GetRequest{Key: []byte("kept")})
	if err != nil || string(got.Value) != "safe" {
		t.Errorf("%v %v", got, err)
	}
}

// A client that has much unread is not told large results any more, and keeps its
// stream: what wrote nothing is busy, what has written is undetermined.
func TestLargeAnswersToASlowReader(t *testing.T) {
	r := newResponses(func() shard.Revision { return 7 })
	value := make([]byte, 1<<20)
	get := shard.Result{Found: true, Revision: 5, Value: value}
	page := shard.Result{Revision: 5, Rows: []shard.Row{{Key: []byte("\x02k"), Value: value}}}
	swap := shard.Result{Rows: []shard.Row{{Value: value, Revision: 3}}}
	wrote := shard.Result{Found: true, Revision: 9, Rows: []shard.Row{{Value: value, Revision: 3}, {Revision: 9}}}
	small := shard.Result{Revision: 10}
	var id uint64
	for range unreadBytesMax >> 20 {
		for _, res := range []shard.Result{get, page, swap, wrote, small} {
			id++
			r.add(shard.Response{ID: id, Result: res})
		}
	}
	if r.closed || r.bytes > unreadBytesMax {
		t.Fatalf("closed %v, %d bytes wait", r.closed, r.bytes)
	}
	last := map[uint64]error{}
	for range id {
		if len(r.full) == 0 && len(r.frame) == 0 {
			break
		}
		if _, err := shard.DecodeResponses(r.next(), func(p shard.Response) { last[p.ID] = p.Err }); err != nil {
			t.Fatal(err)
		}
	}
	if len(last) != int(id) {
		t.Fatalf("%d answers of %d", len(last), id)
	}
	for back, want := range []error{nil, shard.ErrUndetermined, shard.ErrBusy, shard.ErrBusy, shard.ErrBusy} {
		if err := last[id-uint64(back)]; !errors.Is(err, want) {
			t.Errorf("%d from the end: %v, want %v", back, err, want)
		}
	}
	if last[1] != nil || last[4] != nil {
		t.Errorf("the first ones: %v, %v", last[1], last[4])
	}
}

// A stream on which nothing goes tells what is newest: once, and not where a frame
// waits that tells it.
func TestNewsOnAnIdleStream(t *testing.T) {
	newest := shard.Revision(7)
	r := newResponses(func() shard.Revision { return newest })
	take := func() (told shard.Revision, responses int) {
		t.Helper()
		if len(r.frame) == 0 && len(r.full) == 0 {
			return 0, 0
		}
		told, err := shard.DecodeResponses(r.next(), func(shard.Response) { responses++ })
		if err != nil {
			t.Fatal(err)
		}
		return told, responses
	}
	expect := func(told shard.Revision, responses int) {
		t.Helper()
		if gotTold, gotResponses := take(); gotTold != told || gotResponses != responses || r.bytes != 0 {
			t.Errorf("a frame of revision %d with %d responses, want %d and %d; %d bytes are left", gotTold, gotResponses, told, responses, r.bytes)
		}
	}
	r.news(7)
	r.news(8)
	expect(7, 0)
	r.news(7)
	expect(0, 0)
	r.news(8)
	r.add(shard.Response{ID: 1})
	expect(8, 1)
	newest = 9
	r.add(shard.Response{ID: 2})
	r.news(10)
	expect(9, 1)
	r.news(9)
	expect(0, 0)
	r.close()
	r.news(11)
	if len(r.frame) != 0 || r.bytes != 0 {
		t.Errorf("%d bytes on a closed stream", r.bytes)
	}
}

// A client that says nothing hears of the writes of others.
func TestAnIdleClientStreamHearsTheNews(t *testing.T) {
	conn := startServer(t)
	if _, err := pb.NewAdminClient(conn).SetSetting(t.Context(), &pb.SetSettingRequest{Name: "kv.retention", Value: "1s"}); err != nil {
		t.Fatal(err)
	}
	info, err := pb.NewClusterClient(conn).Info(t.Context(), &pb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := api.ToClusterID(info.ClusterId)
	if err != nil {
		t.Fatal(err)
	}
	s, g := greeted(t, conn, shard.Hello{Cluster: cluster, Session: 1, Stream: 1, Node: 1})
	// A stream to a node that had this address before changes nothing of that.
	greeted(t, conn, shard.Hello{Cluster: cluster, Session: 1, Stream: 2, Node: 9})
	put, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	if err != nil || put.Revision <= uint64(g.Newest) {
		t.Fatalf("%v, %v, greeted with %d", put, err, g.Newest)
	}
	for heard := uint64(0); heard < put.Revision; {
		frame, err := s.Receive(shard.FrameBytesMax)
		if err != nil {
			t.Fatal(err)
		}
		newest, err := shard.DecodeResponses(frame, func(shard.Response) { t.Error("an answer to no request") })
		if err != nil || uint64(newest) <= heard {
			t.Fatalf("heard of %d, then %d, %v", heard, newest, err)
		}
		heard = uint64(newest)
	}
}
