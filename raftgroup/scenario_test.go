package raftgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/kiloraft/kiloraft/shard"
)

// TestScenarios runs testdata/*.txt. raft's election jitter is pinned, so that
// a scenario always takes the same course.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return // a fuzz test's
		}
		cryptotest.SetGlobalRandom(t, 1)
		s := &scenario{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return s.run(t, d) })
	})
}

const scenarioShard shard.ID = 5

// scenario interprets the commands of one file:
//
//	cluster nodes=N voters=(1,2) [log-bytes=N]
//	put KEY=VALUE… | read KEY… | propose node=N KEY=VALUE
//	change KIND REPLICA [NODE] [, …]      add, remove, promote, demote, leave
//	transfer to=N | isolate node=N | heal | crash node=N | start node=N | wait seconds=N
//	show                                  each node's part and content
type scenario struct {
	c         *cluster
	undecided []*outcome
}

func (s *scenario) run(t *testing.T, d *datadriven.TestData) string {
	number := func(key string) int {
		var n int
		d.ScanArgs(t, key, &n)
		return n
	}
	c := s.c
	switch d.Cmd {
	case "cluster":
		s.c = newCluster(t, 1, number("nodes"))
		if d.HasArg("log-bytes") {
			n := number("log-bytes")
			s.c.config = func(cfg *Config) { cfg.LogBytesMax = int64(n) }
		}
		var voters []shard.NodeID
		for _, a := range d.CmdArgs {
			if a.Key == "voters" {
				for _, v := range a.Vals {
					n, err := strconv.Atoi(v)
					if err != nil {
						t.Fatal(err)
					}
					voters = append(voters, shard.NodeID(n))
				}
			}
		}
		s.c.bootstrap(scenarioShard, voters...)
		s.c.start()
		return fmt.Sprintf("node %d leads\n", s.c.waitLeader(scenarioShard).id)
	case "put":
		for _, op := range strings.Fields(d.Input) {
			c.put(scenarioShard, op)
		}
		return "ok\n"
	case "read":
		var b strings.Builder
		for _, key := range strings.Fields(d.Input) {
			o := &outcome{err: shard.ErrUnavailable}
			for o.err != nil {
				o = c.waitLeader(scenarioShard).read(scenarioShard, key)
				c.until("read", o.done)
			}
			fmt.Fprintf(&b, "%s=%s\n", key, o.value)
		}
		return b.String()
	case "propose":
		s.undecided = append(s.undecided, c.node(shard.NodeID(number("node"))).propose(scenarioShard, strings.TrimSpace(d.Input)))
		c.runFor(20 * time.Millisecond)
		return s.outcomes()
	case "outcomes":
		return s.outcomes()
	case "change":
		changes := parseChanges(t, d.Input)
		err := c.change(scenarioShard, changes...)
		// A learner that has its snapshot may not have said so yet.
		for end := c.env.now + time.Second; errors.As(err, new(*shard.NotReadyError)) && c.env.now < end; {
			c.runFor(10 * time.Millisecond)
			err = c.change(scenarioShard, changes...)
		}
		if err != nil {
			return err.Error() + "\n"
		}
		return "ok\n"
	case "transfer":
		var result error
		done := false
		c.waitLeader(scenarioShard).group(scenarioShard).TransferLeader(shard.ReplicaID(number("to")), func(err error) { result, done = err, true })
		c.until("transfer", func() bool { return done })
		if result != nil {
			return result.Error() + "\n"
		}
		c.runFor(50 * time.Millisecond)
		return fmt.Sprintf("node %d leads\n", c.waitLeader(scenarioShard).id)
	case "isolate":
		c.isolate(shard.NodeID(number("node")))
	case "heal":
		c.heal()
	case "crash":
		c.node(shard.NodeID(number("node"))).crash()
	case "start":
		c.node(shard.NodeID(number("node"))).start()
	case "wait":
		c.runFor(time.Duration(number("seconds")) * time.Second)
	case "show":
		c.mustAgree(scenarioShard)
		return s.show()
	default:
		t.Fatalf("command %q", d.Cmd)
	}
	return "ok\n"
}

func (s *scenario) outcomes() string {
	var b strings.Builder
	for i, o := range s.undecided {
		switch {
		case !o.done():
			fmt.Fprintf(&b, "proposal %d: under way\n", i+1)
		case o.err != nil:
			fmt.Fprintf(&b, "proposal %d: %v\n", i+1, o.err)
		default:
			fmt.Fprintf(&b, "proposal %d: applied\n", i+1)
		}
	}
	return b.String()
}

func (s *scenario) show() string {
	var b strings.Builder
	d := s.c.leader(scenarioShard).machine(scenarioShard).state.Descriptor
	fmt.Fprintf(&b, "epoch %v\n", d.Epoch)
	for _, n := range s.c.nodes {
		r, ok := d.ReplicaOn(n.id)
		if !ok {
			fmt.Fprintf(&b, "node %d: no member\n", n.id)
			continue
		}
		leads := ""
		if s.c.leader(scenarioShard) == n {
			leads = ", leads"
		}
		how := "from its log"
		if n.machine(scenarioShard).installs > 0 {
			how = "from a snapshot"
		}
		fmt.Fprintf(&b, "node %d: replica %d, %v%s, %s\n", n.id, r.ID, r.Role, leads, how)
	}
	return b.String()
}

func parseChanges(t *testing.T, input string) []shard.Change {
	kinds := map[string]shard.ChangeKind{"add": shard.AddLearner, "remove": shard.RemoveLearner, "promote": shard.Promote,
		"demote": shard.Demote, "leave": shard.LeaveJoint}
	var changes []shard.Change
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		f := strings.Fields(line)
		c := shard.Change{Kind: kinds[f[0]]}
		for i, into := range []*uint64{(*uint64)(&c.Replica), (*uint64)(&c.Node)} {
			if len(f) > i+1 {
				n, err := strconv.ParseUint(f[i+1], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				*into = n
			}
		}
		changes = append(changes, c)
	}
	return changes
}
