package transport

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

func testHello() hello {
	return hello{Cluster: testCluster, Node: 7, Incarnation: 300, Process: 1 << 60, Target: 1, Address: "host:7400"}
}

func TestHandshakeThereAndBack(t *testing.T) {
	h := testHello()
	if got, err := decodeHello(appendHello(nil, &h)); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	g := greeting{Cluster: testCluster, Node: 1, Incarnation: 2, Process: 3}
	if got, err := decodeAnswer(appendGreeting(nil, &g)); err != nil || got != g {
		t.Errorf("%+v, %v", got, err)
	}
	r := refuse(CopiedStore, "%s", strings.Repeat("x", refusalTextBytesMax+1))
	_, err := decodeAnswer(appendRefusal(nil, r))
	var got *RefusedError
	if !errors.As(err, &got) || got.Reason != CopiedStore || len(got.Text) != refusalTextBytesMax {
		t.Errorf("%v", err)
	}
	if chunks, bytes, err := decodeSnapshotEnd(appendSnapshotEnd(nil, 3, 1<<40)); err != nil || chunks != 3 || bytes != 1<<40 {
		t.Errorf("%d, %d, %v", chunks, bytes, err)
	}
	if n := len(appendHello(nil, &hello{Address: strings.Repeat("x", addressBytesMax)})); n > helloBytesMax {
		t.Errorf("the largest hello has %d bytes", n)
	}
	if n := len(appendRefusal(nil, r)); n > helloBytesMax {
		t.Errorf("the largest refusal has %d bytes", n)
	}
}

// TestHandshakeCutShort: every proper prefix and every longer frame is refused.
func TestHandshakeCutShort(t *testing.T) {
	h := testHello()
	for what, c := range map[string]struct {
		frame  []byte
		decode func([]byte) error
	}{
		"hello":    {appendHello(nil, &h), func(b []byte) error { _, err := decodeHello(b); return err }},
		"greeting": {appendGreeting(nil, &greeting{}), func(b []byte) error { _, err := decodeAnswer(b); return err }},
		"refusal":  {appendRefusal(nil, refuse(WrongNode, "text")), func(b []byte) error { _, err := decodeAnswer(b); return err }},
		"end":      {appendSnapshotEnd(nil, 3, 4), func(b []byte) error { _, _, err := decodeSnapshotEnd(b); return err }},
	} {
		for n := range len(c.frame) {
			if err := c.decode(c.frame[:n]); !errors.Is(err, shard.ErrMalformed) {
				t.Errorf("%s of %d bytes: %v", what, n, err)
			}
		}
		if err := c.decode(append(c.frame, 0)); !errors.Is(err, shard.ErrMalformed) {
			t.Errorf("%s with a byte too many: %v", what, err)
		}
	}
	long := testHello()
	long.Address = strings.Repeat("x", addressBytesMax+1)
	if _, err := decodeHello(appendHello(nil, &long)); !errors.Is(err, shard.ErrMalformed) {
		t.Errorf("a long address: %v", err)
	}
}

// FuzzHandshake: whatever arrives first on a stream is refused or keeps its
// meaning when it is encoded again.
func FuzzHandshake(f *testing.F) {
	h := testHello()
	f.Add(appendHello(nil, &h))
	f.Add(appendGreeting(nil, &greeting{Node: 1}))
	f.Add(appendRefusal(nil, refuse(WrongCluster, "no")))
	f.Add(appendSnapshotEnd(nil, 1, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(err error) {
			if err != nil && !errors.Is(err, shard.ErrMalformed) {
				t.Fatalf("an error outside the closed set: %v", err)
			}
		}
		h, err := decodeHello(b)
		check(err)
		if err == nil {
			if again, err := decodeHello(appendHello(nil, &h)); err != nil || again != h {
				t.Fatalf("%+v became %+v, %v", h, again, err)
			}
		}
		g, err := decodeAnswer(b)
		var refused *RefusedError
		if errors.As(err, &refused) {
			_, err := decodeAnswer(appendRefusal(nil, refused))
			if !reflect.DeepEqual(err, refused) {
				t.Fatalf("%v became %v", refused, err)
			}
		} else {
			check(err)
			if err == nil {
				if again, err := decodeAnswer(appendGreeting(nil, &g)); err != nil || again != g {
					t.Fatalf("%+v became %+v, %v", g, again, err)
				}
			}
		}
		chunks, bytes, err := decodeSnapshotEnd(b)
		check(err)
		if err == nil {
			if c, n, err := decodeSnapshotEnd(appendSnapshotEnd(nil, chunks, bytes)); err != nil || c != chunks || n != bytes {
				t.Fatalf("%d, %d became %d, %d, %v", chunks, bytes, c, n, err)
			}
		}
		header, large, err := decodeSnapshotHead(b)
		check(err)
		if err == nil {
			again, twice, err := decodeSnapshotHead(appendSnapshotHead(nil, header, large))
			if err != nil || twice != large || string(again) != string(header) {
				t.Fatalf("%x, %v became %x, %v, %v", header, large, again, twice, err)
			}
		}
	})
}

func TestIdentities(t *testing.T) {
	s := identities{self: greeting{Cluster: testCluster, Node: 1, Incarnation: 5, Process: 50}}
	steps := []struct {
		what  string
		spoil func(*hello)
		want  Reason // 0: accepted
	}{
		{"another cluster", func(h *hello) { h.Cluster = shard.ClusterID{9} }, WrongCluster},
		{"another target", func(h *hello) { h.Target = 2 }, WrongNode},
		{"own ID", func(h *hello) { h.Node = 1 }, OwnNode},
		{"no ID", func(h *hello) { h.Node = 0 }, OwnNode},
		{"a node", func(h *hello) {}, 0},
		{"again", func(h *hello) {}, 0},
		{"a second process", func(h *hello) { h.Process++ }, CopiedStore},
		{"an earlier one", func(h *hello) { h.Incarnation-- }, StaleIncarnation},
		{"started again", func(h *hello) { h.Incarnation++; h.Process = 7 }, 0},
		{"the one before", func(h *hello) {}, StaleIncarnation},
		{"the same once more", func(h *hello) { h.Incarnation++; h.Process = 7 }, 0},
		{"another node", func(h *hello) { h.Node = 8; h.Incarnation = 0 }, 0},
	}
	for _, step := range steps {
		h := testHello()
		step.spoil(&h)
		refused := s.checkHello(&h)
		if got := reasonOrZero(refused); got != step.want {
			t.Errorf("%s: %v, want %v", step.what, refused, step.want)
		}
	}
	// The same memory judges who answers at an address.
	for _, step := range []struct {
		g    greeting
		want Reason
	}{
		{greeting{Cluster: testCluster, Node: 7, Incarnation: 301, Process: 7}, 0},
		{greeting{Cluster: testCluster, Node: 7, Incarnation: 300, Process: 1 << 60}, StaleIncarnation},
		{greeting{Cluster: testCluster, Node: 7, Incarnation: 301, Process: 8}, CopiedStore},
		{greeting{Cluster: testCluster, Node: 8, Incarnation: 301, Process: 7}, WrongNode},
		{greeting{Cluster: shard.ClusterID{9}, Node: 7, Incarnation: 301, Process: 7}, WrongCluster},
	} {
		if got := reasonOrZero(s.checkGreeting(7, &step.g)); got != step.want {
			t.Errorf("%+v: %v, want %v", step.g, got, step.want)
		}
	}
	if !s.current(7, 301) || s.current(7, 300) || !s.current(99, 1) {
		t.Error("current disagrees")
	}
	for reason := WrongCluster; reason <= TooManyNodes; reason++ {
		if strings.HasPrefix(reason.String(), "reason") {
			t.Errorf("reason %d has no name", reason)
		}
	}
}

// TestIdentitiesBound: strangers cannot fill the memory.
func TestIdentitiesBound(t *testing.T) {
	s := identities{self: greeting{Cluster: testCluster, Node: 1}}
	h := testHello()
	for i := range identitiesMax {
		h.Node = shard.NodeID(i + 2)
		if refused := s.checkHello(&h); refused != nil {
			t.Fatal(refused)
		}
	}
	h.Node = identitiesMax + 2
	if got := reasonOrZero(s.checkHello(&h)); got != TooManyNodes {
		t.Errorf("%v", got)
	}
	h.Node = 2
	if refused := s.checkHello(&h); refused != nil {
		t.Errorf("a known node: %v", refused)
	}
}

func reasonOrZero(r *RefusedError) Reason {
	if r == nil {
		return 0
	}
	return r.Reason
}
