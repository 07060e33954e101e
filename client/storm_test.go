package client_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/client/clienttest"
	"github.com/kiloraft/kiloraft/shard"
)

// storm is a world in which anything happens at any time.
type storm struct {
	*world
	writes []*pending // the i-th writes key i
	reads  []*pending
	splits int
}

func stormKey(i int) string { return fmt.Sprintf("%c%d", 'a'+i*7%26, i) }

// act does the kind-th thing that may happen, with a number to choose by.
func (s *storm) act(kind, n int) {
	address := s.cluster.AddressOf(shard.NodeID(n%3 + 1))
	timeout := time.Duration(n%5) * 40 * time.Millisecond
	switch kind {
	case 0, 1, 2, 3:
		// Some are sent again when an answer is lost, some are not.
		s.writes = append(s.writes, s.doWith(put(stormKey(len(s.writes)), "v"), client.DoOptions{Timeout: timeout, MaxRetries: n%4 - 1}))
	case 4:
		s.reads = append(s.reads, s.do(get(stormKey(n)), timeout))
	case 5:
		s.env.Pass(time.Duration(n%400) * 100 * time.Microsecond)
	case 6:
		s.net.Break(address)
	case 7:
		s.net.Down[address] = n%2 == 0
		s.net.Break(address)
	case 8:
		s.net.Deaf[address] = n%2 == 0
	case 9, 10:
		s.cluster.Change(func() {
			all := s.cluster.Shards()
			all[n%len(all)].Lead(shard.ReplicaID(n / 7 % 4)) // 0: an election
		})
	case 11:
		if s.splits++; s.splits < 10 {
			key := shard.UserKey([]byte{byte('a' + n%26), byte(n)})
			if string(s.cluster.ShardOf(key).Descriptor.Span.Start) != string(key) {
				s.cluster.Split(key)
			}
		}
	case 12:
		s.cluster.Publish()
	case 13:
		if len(s.writes) > 0 {
			s.writes[n%len(s.writes)].cancel()
		}
	case 15:
		s.net.Stall(address)
		if n%2 == 0 {
			s.net.Break(address)
		}
	case 16:
		s.net.Release()
	case 14:
		err := []error{nil, shard.ErrBusy, shard.ErrDropped, shard.ErrUnavailable, &shard.WrongShardError{}, &shard.NotLeaderError{}, shard.ErrUndetermined, shard.ErrNoRevision}[n%8]
		s.cluster.Change(func() {
			left := n % 20
			s.cluster.Answer = func(shard.NodeID, *shard.Request, *shard.Command) (shard.Response, bool) {
				left--
				return shard.Response{Err: err}, err != nil && left >= 0
			}
		})
	}
}

const stormKinds = 17

// calm heals everything; whatever is under way must then end.
func (s *storm) calm() error {
	clear(s.net.Down)
	clear(s.net.Deaf)
	s.net.Release()
	s.cluster.Change(func() {
		s.cluster.Answer = nil
		for _, sh := range s.cluster.Shards() {
			if sh.Leader == 0 {
				sh.Lead(1)
			}
		}
	})
	s.cluster.Publish()
	for i := range 3 { // what a deaf node did not answer would wait for ever
		s.env.Pass(5 * time.Second)
		s.net.Break(s.cluster.AddressOf(shard.NodeID(i + 1)))
	}
	s.env.Pass(10 * time.Second)
	for i, p := range s.writes {
		_, there := s.cluster.Value(shard.UserKey([]byte(stormKey(i))))
		switch {
		case !p.done:
			return fmt.Errorf("write %d is not done", i)
		case p.err == nil && !there:
			return fmt.Errorf("write %d was acknowledged and did not take effect", i)
		case p.err != nil && there && !errors.Is(p.err, shard.ErrUndetermined):
			return fmt.Errorf("write %d took effect, and failed with %v", i, p.err)
		}
	}
	for i, p := range s.reads {
		if !p.done {
			return fmt.Errorf("read %d is not done", i)
		}
	}
	for id, n := range s.cluster.Executed() {
		if n > 1 {
			return fmt.Errorf("write %v took effect %d times", id, n)
		}
	}
	for _, err := range s.net.Faults {
		return err
	}
	s.core.Close()
	s.env.Pass(time.Second)
	if ops, bytes := s.core.Held(); ops != 0 || bytes != 0 {
		return fmt.Errorf("%d operations of %d bytes are held at the end", ops, bytes)
	}
	return nil
}

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{world: &world{t: t, env: clienttest.NewEnv(seed), cluster: clienttest.NewCluster(1, 3, 4)}}
	s.net = clienttest.NewNetwork(s.env, s.cluster)
	s.core = client.NewCore(client.CoreConfig{Env: s.env, Dialer: s.net, Endpoints: []string{"node-1", "node-2"}, Logger: quiet()})
	return s
}

// TestStorm: whatever happens, no write takes effect twice, an acknowledged one
// did, one that failed otherwise than undetermined did not, and everything ends.
func TestStorm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStorm(t, rapid.Uint64().Draw(rt, "seed"))
		acts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) [2]int {
			return [2]int{rapid.IntRange(0, stormKinds-1).Draw(t, "kind"), rapid.IntRange(0, 1000).Draw(t, "n")}
		}), 0, 300).Draw(rt, "acts")
		for _, a := range acts {
			s.act(a[0], a[1])
		}
		if err := s.calm(); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestLeadersThatMoveAllTheTime: no write is lost, doubled or undetermined
// because of elections, and none starves.
func TestLeadersThatMoveAllTheTime(t *testing.T) {
	s := newStorm(t, 7)
	for i := range 2000 {
		s.act(0, 0)
		s.env.Pass(100 * time.Microsecond)
		if i%10 == 0 {
			s.cluster.Change(func() {
				all := s.cluster.Shards()
				sh := all[i/10%len(all)]
				sh.Lead(sh.Leader%3 + 1)
			})
		}
	}
	for i, p := range s.writes {
		p.ok()
		if p.took > 200*time.Millisecond {
			t.Errorf("write %d took %v", i, p.took)
		}
	}
	if err := s.calm(); err != nil {
		t.Fatal(err)
	}
}

// TestOneSeedGivesOneRun: the same seed sends the same frames at the same times.
func TestOneSeedGivesOneRun(t *testing.T) {
	run := func(seed uint64) string {
		s := newStorm(t, seed)
		h := sha256.New()
		s.net.Sent = func(address string, frame []byte) { fmt.Fprintf(h, "%v %s %x\n", s.env.Now(), address, frame) }
		random := clienttest.NewEnv(seed)
		for range 1500 {
			r := random.Uint64()
			s.act(int(r%stormKinds), int(r>>32%1000))
		}
		if err := s.calm(); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x %+v", h.Sum(nil), s.core.Stats())
	}
	first, again, other := run(3), run(3), run(4)
	if first != again {
		t.Errorf("one seed gave\n%s\n%s", first, again)
	}
	if first == other {
		t.Error("another seed gave the same run")
	}
}
