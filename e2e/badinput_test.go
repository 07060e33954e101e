package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kiloraft/kiloraft/api"
	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// badCase is one bad input: try feeds it in, and returns what is wrong with how it
// was refused; nil if nothing is.
type badCase struct {
	name string
	try  func(s *site) error
}

// badGroup is the bad inputs of one way in.
type badGroup struct {
	name  string
	cases []badCase
}

// TestBadInput feeds a node what it must refuse, over every way in. Each is refused
// with the reason, as an error of the closed set, an exit code or an HTTP status; the
// node goes on; and in the end it holds what it held before, and nothing else.
func TestBadInput(t *testing.T) {
	s := openSite(t)
	counts, total := map[string]int{}, 0
	for _, g := range []badGroup{
		{"keys", badKeys()}, {"calls", badCalls()}, {"protobuf", badProtobuf()}, {"streams", badStreams()}, {"peers", badPeers()},
		{"snapshots", badSnapshots()}, {"sockets", badSockets()}, {"commands", badCommands()}, {"start", badStarts()}, {"stores", badStores(t)},
	} {
		for _, c := range g.cases {
			if err := c.try(s); err != nil {
				t.Errorf("%s: %s: %v", g.name, c.name, err)
			}
			if err := s.serves(); err != nil {
				t.Fatalf("%s: after %s: %v", g.name, c.name, err)
			}
		}
		if now := s.content(); !maps.Equal(now, s.before) {
			t.Fatalf("%s: the node holds %v, and held %v", g.name, slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(s.before)))
		}
		counts[g.name] += len(g.cases)
		total += len(g.cases)
	}
	if total < 100 {
		t.Errorf("only %d bad inputs", total)
	}
	var by []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		by = append(by, fmt.Sprintf("%s=%d", name, counts[name]))
	}
	if !t.Failed() {
		fmt.Printf("badinput: cases=%d %s ok\n", total, strings.Join(by, " "))
	}
}

// site is a node of a cluster of its own, with two shards that meet at byte 0x80, and
// the ways into it.
type site struct {
	*cluster
	ctx      context.Context
	conn     *grpc.ClientConn
	kv       pb.KVClient
	info     pb.ClusterClient
	admin    pb.AdminClient
	peer     pb.PeerClient
	id       shard.ClusterID
	before   map[string]string
	sessions uint64 // that were opened
	senders  uint64 // nodes that introduced themselves
}

func openSite(t *testing.T) *site {
	t.Helper()
	s := &site{cluster: startCluster(t, 1, 2), ctx: t.Context(), senders: 70}
	var err error
	s.conn, err = grpc.NewClient("passthrough:///"+s.nodes[0].address, append(api.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	s.kv, s.info, s.admin, s.peer = pb.NewKVClient(s.conn), pb.NewClusterClient(s.conn), pb.NewAdminClient(s.conn), pb.NewPeerClient(s.conn)
	r, err := s.info.Info(s.ctx, &pb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s.id, err = api.ToClusterID(r.ClusterId); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"kept", "a", "\x90"} {
		if _, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: []byte(k), Value: []byte("safe")}); err != nil {
			t.Fatal(err)
		}
	}
	s.before = s.content()
	return s
}

// serves tells whether the node still does, in little time.
func (s *site) serves() error {
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	for _, k := range []string{"kept", "\x90"} {
		r, err := s.kv.Get(ctx, &pb.GetRequest{Key: []byte(k)})
		if err != nil || string(r.Value) != "safe" {
			return fmt.Errorf("%s is %v, %v", k, r, err)
		}
	}
	return nil
}

// content is all that the node holds, with its revisions.
func (s *site) content() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for q := (&pb.ScanRequest{}); ; {
		page, err := s.kv.Scan(s.ctx, q)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, row := range page.Rows {
			all[string(row.Key)] = fmt.Sprintf("%s at %d", row.Value, row.Revision)
		}
		if !page.More {
			return all
		}
		q.Start = page.Resume
	}
}

// isInvalid wants an InvalidError about a field that says words.
func isInvalid(err error, words ...string) error {
	var invalid *shard.InvalidError
	if !errors.As(api.Error(err), &invalid) || invalid.Field == "" || invalid.Reason == "" {
		return fmt.Errorf("%v (%T), want an InvalidError", err, api.Error(err))
	}
	return says(err, words...)
}

// is wants one error of the closed set.
func is(err, want error) error {
	if !errors.Is(api.Error(err), want) {
		return fmt.Errorf("%v, want %v", err, want)
	}
	return nil
}

// as wants an error of the closed set that carries data.
func as[E error](err error, words ...string) error {
	var want E
	if !errors.As(api.Error(err), &want) {
		return fmt.Errorf("%v (%T), want %T", err, api.Error(err), want)
	}
	return says(err, words...)
}

func says(err error, words ...string) error {
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			return fmt.Errorf("the error %q does not say %q", err, w)
		}
	}
	return nil
}

// result drops what a call returns beside its error.
func result[T any](_ T, err error) error { return err }

// failure is what is wrong with how the binary has refused something: it ends with an
// exit code, says words on stderr, and shows nothing of its insides.
func failure(o output, code int, words ...string) error {
	if o.code != code {
		return fmt.Errorf("exit code %d, want %d: %s", o.code, code, o.stderr)
	}
	for _, w := range words {
		if !strings.Contains(o.stderr, w) {
			return fmt.Errorf("stderr does not say %q: %s", w, o.stderr)
		}
	}
	if strings.Contains(o.stderr, "rpc error") || strings.Contains(o.stderr, "goroutine ") {
		return fmt.Errorf("stderr shows internals: %s", o.stderr)
	}
	return nil
}

// expectFailure demands an exit code and words of stderr.
func expectFailure(t *testing.T, o output, code int, words ...string) {
	t.Helper()
	if err := failure(o, code, words...); err != nil {
		t.Error(err)
	}
}

// TestSameStoreStartedTwiceRefused starts a second process on a live node's store,
// which is locked, and on a copy of it: that one finds its incarnation taken and
// ends. The cluster stays whole.
func TestSameStoreStartedTwiceRefused(t *testing.T) {
	c := startCluster(t, 3, 2)
	victim := c.nodes[2]
	victim.kill()
	copied := filepath.Join(c.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(c.dir, "store3"))); err != nil {
		t.Fatal(err)
	}
	victim.start()
	c.waitWhole()
	start := func(store string) output {
		return run(t, "", "start", "--insecure", "--http", "", "--store", store, "--listen", freePorts(t, 1)[0])
	}
	expectFailure(t, start(c.store(3)), 1, "store3", "another process")
	expectFailure(t, start(copied), 1, "copy")
	c.waitWhole()
}

// TestMixedEndpointsRefused gives a client the nodes of two clusters.
func TestMixedEndpointsRefused(t *testing.T) {
	a, b := startCluster(t, 1, 1), startCluster(t, 1, 1)
	o := run(t, a.endpoints()+","+b.endpoints(), "kv", "put", "k", "v")
	expectFailure(t, o, 1, "cluster")
}
