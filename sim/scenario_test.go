package sim

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/kiloraft/kiloraft/placement/catalog"
	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/shard/machine"
)

// scenarios are directed runs, by name: the interleavings that some rules are for.
// Every one of them holds, seed after seed; what each of them finds if its rule
// is broken is shown by the planted bugs.
var scenarios = map[string]func(*Stage){
	"PausedMetaLeaderGrants":       pausedMetaLeader,
	"DeposedMetaLeaderIsAsked":     deposedMetaLeader,
	"NewStreamOvertakesStalledOne": stalledStreams,
	"LateAttemptInALaterTerm":      lateAttempts,
	"StaleRevisionInTheLog":        staleProposals,
	"ReplacedClientsChoose":        replacedClients,
	"ReplicasMoveUnderLoad":        movingReplicas,
	"PlacementLeaderMovedMidStep":  movingDrivers,
	"LostAckRetryAcrossMove":       lostAcks,
	"LoneVoterRestarts":            loneVoter,
	"ReadsDuringInstall":           readsDuringInstall,
	"VotesArriveTwice":             votesTwice,
	"SplitComesAfterTheRemoval":    lateSplits,
	"SplitsUnderAFloor":            splitsUnderAFloor,
}

// grownTo are the scenarios for a cluster that has grown to more nodes than a shard
// has replicas.
var grownTo = map[string]int{"ReplicasMoveUnderLoad": 4, "PlacementLeaderMovedMidStep": 4, "LostAckRetryAcrossMove": 4, "LoneVoterRestarts": 1}

func grownNot() *bool { return new(bool) }

// directed is a run of a scenario.
func directed(t *testing.T, seed uint64, scenario string) Config {
	cfg := config(t, seed)
	cfg.Grown = grownNot()
	if n := grownTo[scenario]; n > 0 {
		cfg.Grown, cfg.Nodes = new(bool), n
		*cfg.Grown = true
	}
	cfg.Direct = scenarios[scenario]
	cfg.Workload = &WorkloadConfig{Clients: 3, Concurrent: 3, Keys: 6, ValueBytes: 40, Think: 20 * time.Millisecond, Scout: 10 * time.Millisecond}
	cfg.Work = 10 * time.Second
	switch scenario {
	case "ReplacedClientsChoose":
		cfg.Workload.Keys, cfg.Workload.Chosen, cfg.Workload.Concurrent = 2, 7, 6
	case "SplitComesAfterTheRemoval":
		cfg.Nodes, cfg.Work = 4, 8*time.Second
	case "SplitsUnderAFloor":
		cfg.Keep = &Keep{Retention: time.Second, DropRate: 50_000}
	case "ReadsDuringInstall":
		cfg.Workload.ValueBytes = 16 << 10
		cfg.Keep = &Keep{Retention: time.Second, DropRate: 50_000}
		cfg.Work = 25 * time.Second
	}
	return cfg
}

func TestScenarios(t *testing.T) {
	names := slices.Sorted(maps.Keys(scenarios))
	if raceDetector {
		names = names[:1]
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			runSeed(t, directed(t, seed0, name))
		})
	}
}

// pausedMetaLeader stops the process of the meta shard's leader until another one
// was elected and has granted revisions. When it goes on it believes to lead, and
// finds draws in its mail, all of which were sent after that.
func pausedMetaLeader(s *Stage) {
	const late = 200 * time.Millisecond // before it goes on
	s.Every(time.Second, func() {
		n := s.Leader(shard.MetaID)
		if n == nil {
			return
		}
		d := s.run.loop.between(time.Second, 3*time.Second)
		s.Pause(n, d)
		s.Cut("scout", n.Name, d-late)
		for _, k := range s.run.load.clients {
			s.Cut(k.env.name, n.Name, d-late)
		}
	})
}

// deposedMetaLeader stops the process of the meta shard's leader and lets it hear
// nothing, until another node has been elected and has granted a revision. Then it goes
// on with draws in its mail that were made after that, and hears of its successor
// only when it has taken its counter for them: between that and the confirmation.
func deposedMetaLeader(s *Stage) {
	scout := NewScout(s.run.load, 0)
	// granted has a leader of the meta shard other than not grant a revision.
	var granted func(not *Node, then func(leader *Node))
	granted = func(not *Node, then func(leader *Node)) {
		var leader *Node
		s.When(func() bool {
			leader = s.Leader(shard.MetaID)
			return leader != nil && leader != not
		}, func() {
			o := scout.drawAt(leader)
			s.When(func() bool { return o.Outcome != pending }, func() {
				if o.Outcome == done {
					then(leader)
				} else {
					granted(not, then)
				}
			})
		})
	}
	var again func()
	again = func() {
		granted(nil, func(old *Node) { // which has a range of its term now
			release := s.Hold(old)
			granted(old, func(*Node) {
				release()
				scout.drawAt(old)
				s.After(time.Second, again)
			})
		})
	}
	again()
}

// stalledStreams ends streams while a frame is on its way on them, which arrives
// after what the client sends on its next one.
func stalledStreams(s *Stage) {
	var again func()
	again = func() {
		s.When(func() bool { return s.Stall(s.run.loop.between(50*time.Millisecond, 500*time.Millisecond)) }, func() {
			s.After(300*time.Millisecond, again)
		})
	}
	again()
}

// replacedClients ends clients while their frames take long: what one of them has sent
// arrives after what its successor sends, and was told.
func replacedClients(s *Stage) {
	s.run.cluster.net.faults = NetFaults{SlowPerMille: 500, SlowMax: 200 * time.Millisecond}
	s.Every(100*time.Millisecond, func() { s.run.load.Replace(s.run.loop.rand.IntN(3)) })
}

// lateAttempts cuts a shard's leader off from the meta shard's, so that writes wait
// there for their revisions, hands the shard to another node, where clients send
// them again, and back, before the way is open again.
func lateAttempts(s *Stage) {
	const id = shard.MetaID + 1
	var again func()
	again = func() {
		s.When(func() bool {
			meta, here := s.Leader(shard.MetaID), s.Leader(id)
			if meta != nil && meta == here {
				s.Transfer(id, s.other(meta))
			}
			return meta != nil && here != nil && meta != here
		}, func() {
			here, meta := s.Leader(id), s.Leader(shard.MetaID)
			there := s.other(here, meta)
			s.run.cluster.net.Block(here.Name, meta.Name)
			s.run.cluster.net.Block(meta.Name, here.Name)
			s.After(100*time.Millisecond, func() {
				for _, k := range s.run.load.clients {
					s.run.cluster.net.Break(k.env.name)
					s.Cut(k.env.name, here.Name, time.Second)
				}
				s.Transfer(id, there)
			})
			s.After(700*time.Millisecond, func() { s.Transfer(id, here) })
			s.After(900*time.Millisecond, func() {
				s.run.cluster.net.Open(here.Name, meta.Name)
				s.run.cluster.net.Open(meta.Name, here.Name)
			})
			s.After(1500*time.Millisecond, again)
		})
	}
	again()
}

// staleProposals puts writes with revisions of long ago into the logs, as a leader
// would that kept a draw over the end of its term.
func staleProposals(s *Stage) {
	load, scout := s.run.load, NewScout(s.run.load, 0)
	s.Every(100*time.Millisecond, func() {
		key := load.keys[s.run.loop.rand.IntN(len(load.keys))]
		n := s.Leader(s.run.cluster.shardOf(key))
		if n == nil {
			return
		}
		r, _ := s.replica(n, s.run.cluster.shardOf(key))
		state, _ := r.State()
		rev := load.memory.asked()
		if rev == 0 || rev > state.LastRevision {
			return
		}
		o := scout.begin(shard.KindPut, key, load.value(0))
		scout.sequence++
		p := &raftgroup.Proposal{Term: r.Leadership().Term,
			Header: machine.AppendHeader(nil, machine.Header{Revision: rev, Version: state.Descriptor.Epoch.Version}),
			Body: shard.AppendCommand(nil, &shard.Command{Kind: shard.KindPut, Key: key, Value: []byte(o.Value),
				Op: shard.OpID{Session: scout.session, Sequence: scout.sequence}})}
		p.Done = func(res raftgroup.Result, err error) {
			how := refused
			if err == nil && res.Err == nil || errors.Is(err, shard.ErrUndetermined) {
				how = undetermined
			}
			scout.end(n, o, how, cmp.Or(err, res.Err))
		}
		if err := r.Group().Propose(p); err != nil {
			scout.end(n, o, refused, err)
		}
	})
}

// movingReplicas moves replicas of the user's shards and of the meta shard from node to
// node, one after the other in each shard, while nodes crash. Messages are late, and
// arrive twice: they find replicas that are gone, and others in their place.
func movingReplicas(s *Stage) {
	// Placement would bring replicas back to where one was removed, and by that tell it.
	s.run.cluster.set(catalog.PlacementRebalance, "false")
	s.run.cluster.net.faults = NetFaults{DoublePerMille: 50, SlowPerMille: 100, SlowMax: 400 * time.Millisecond}
	var again func(id shard.ID)
	again = func(id shard.ID) {
		s.When(func() bool { return s.run.nemesis.move(id, func() { again(id) }) }, func() {})
	}
	for _, d := range s.run.cluster.descriptors {
		again(d.ID)
	}
	s.Every(1500*time.Millisecond, func() {
		if n := s.other(); n.Serving() {
			s.run.nemesis.crash(n)
		}
	})
}

// lostAcks lets clients' writes reach a shard's leader and be applied, loses the answers,
// and moves the leader's replica to another node before the clients may ask again: the
// later attempts come to a node that has never seen the first ones.
func lostAcks(s *Stage) {
	s.run.cluster.set(catalog.PlacementRebalance, "false")
	const id = shard.MetaID + 1
	n := s.run.nemesis
	var again func()
	again = func() {
		s.When(func() bool {
			leader, state := s.run.cluster.leads(id)
			return leader != nil && !state.Descriptor.Joint() && len(state.Descriptor.Replicas) == replicationFactor
		}, func() {
			leader, state := s.run.cluster.leads(id)
			var away []cut
			for _, k := range s.run.load.clients {
				away = append(away, cut{leader.Name, k.env.name})
			}
			s.note("answers of %s are lost", leader.Name)
			n.cutFor(away, 2*time.Second)
			for _, to := range s.run.cluster.nodes {
				if _, here := state.Descriptor.ReplicaOn(to.ID); !here && to.Serving() {
					s.note("move shard %d from %s to %s", id, leader.Name, to.Name)
					s.After(100*time.Millisecond, (&mover{nemesis: n, shard: id, from: leader, to: to, ended: again}).start)
					return
				}
			}
			s.After(500*time.Millisecond, again)
		})
	}
	again()
}

// movingDrivers asks placement for much, while the meta shard is led by one node
// after another, so that drivers end in the middle of steps, and two may be at work.
func movingDrivers(s *Stage) {
	n := s.run.nemesis
	s.run.cluster.net.faults = NetFaults{DoublePerMille: 20, SlowPerMille: 50, SlowMax: 200 * time.Millisecond}
	s.Every(300*time.Millisecond, n.ask)
	s.Every(time.Second, func() { n.handOver(shard.MetaID) })
	s.Every(3*time.Second, func() {
		if node := s.Leader(shard.MetaID); node != nil && s.run.loop.chance(300) {
			n.crash(node)
		}
	})
}

// loneVoter crashes the only node of a cluster again and again. What it has applied is
// lost then, and what it has acknowledged is not: until it has applied an entry of its new
// term it does not know of all that it has acknowledged, and nobody else tells it.
func loneVoter(s *Stage) {
	node := s.run.cluster.nodes[0]
	s.Every(10*time.Millisecond, func() {
		if node.Up() {
			node.env.Slow(syncQueue, 50*time.Millisecond)
		}
	})
	s.Every(500*time.Millisecond, func() {
		if node.Serving() {
			node.Crash(false, 10*time.Millisecond)
			s.run.nemesis.restartAfter(node, 10*time.Millisecond)
		}
	})
}

// readsDuringInstall cuts a node off until it needs snapshots, large ones, and has its
// rounds take their time when it installs them, while everybody reads at old revisions.
func readsDuringInstall(s *Stage) {
	s.Every(3*time.Second, func() {
		node := s.other()
		if !node.Serving() {
			return
		}
		for _, o := range s.run.cluster.nodes {
			if o != node {
				s.Cut(o.Name, node.Name, 1500*time.Millisecond)
			}
		}
		env := node.env
		s.After(1400*time.Millisecond, func() { env.Slow("raft/0", 60*time.Millisecond) })
		s.After(2500*time.Millisecond, func() { env.Slow("raft/0", 0) })
	})
}

// votesTwice has every message arrive twice, with elections all the time, and crashes
// nodes right after something has left them.
func votesTwice(s *Stage) {
	n := s.run.nemesis
	s.run.cluster.net.faults = NetFaults{DoublePerMille: 700, SlowPerMille: 100, SlowMax: 20 * time.Millisecond}
	s.run.cluster.net.effect = n.lieInWait
	s.Every(400*time.Millisecond, func() { n.pause() })
	s.Every(300*time.Millisecond, func() { n.transfer() })
}

// lateSplits keeps a node from hearing of a split until the new shard has been created
// there by others' messages, and has left: applied at last, the split finds a tombstone.
func lateSplits(s *Stage) {
	s.run.cluster.set(catalog.PlacementRebalance, "false")
	c, n := s.run.cluster, s.run.nemesis
	var again func()
	again = func() {
		s.When(func() bool {
			id := c.shardOf(s.run.load.keys[0])
			leader, state := c.leads(id)
			return leader != nil && !state.Descriptor.Joint() && len(state.Descriptor.Replicas) == replicationFactor
		}, func() {
			id := c.shardOf(s.run.load.keys[0])
			leader, state := c.leads(id)
			late, other, spare := s.roles(leader, &state.Descriptor)
			if late == nil || spare == nil {
				s.After(500*time.Millisecond, again)
				return
			}
			s.note("%s does not hear of the split of shard %d", late.Name, id)
			c.net.Block(leader.Name, late.Name)
			c.net.Block(late.Name, leader.Name)
			key := n.splitKey()
			for !state.Descriptor.Span.Contains(key) {
				key = n.splitKey()
			}
			(&splitter{nemesis: n, key: key}).start()
			over := func() {
				c.net.Open(leader.Name, late.Name)
				c.net.Open(late.Name, leader.Name)
			}
			s.When(func() bool {
				right := c.shardOf(key)
				if right == id {
					return false
				}
				if leads, _ := c.leads(right); leads != other {
					s.handOver(right, other)
					return false
				}
				return true
			}, func() {
				(&mover{nemesis: n, shard: c.shardOf(key), from: late, to: spare, ended: func() {
					s.After(300*time.Millisecond, over)
					s.After(time.Second, again)
				}}).start()
			})
		})
	}
	again()
}

// splitsUnderAFloor splits shards whose old versions are being dropped.
func splitsUnderAFloor(s *Stage) {
	n := s.run.nemesis
	s.Every(700*time.Millisecond, func() { (&splitter{nemesis: n, key: n.splitKey()}).start() })
}

// handOver has whoever leads a shard hand it to a node, now and then.
func (s *Stage) handOver(id shard.ID, to *Node) {
	from, state := s.run.cluster.leads(id)
	m, here := state.Descriptor.ReplicaOn(to.ID)
	if from == nil || from == to || !here || !s.run.loop.chance(10) {
		return
	}
	s.note("transfer shard %d from %s to %s", id, from.Name, to.Name)
	r, _ := from.store().Replica(id)
	r.Group().TransferLeader(m.ID, func(error) {})
}

// roles are, of the nodes beside a shard's leader, two with a replica and one without.
func (s *Stage) roles(leader *Node, d *shard.Descriptor) (one, other, spare *Node) {
	for _, node := range s.run.cluster.nodes {
		switch _, here := d.ReplicaOn(node.ID); {
		case node == leader:
		case !here:
			spare = node
		case one == nil:
			one = node
		default:
			other = node
		}
	}
	return one, other, spare
}

// The scenario of moves shows something only if replicas are removed.
func TestReplicasMoveUnderLoad(t *testing.T) {
	n := uint64(4)
	if raceDetector {
		n = 1
	}
	for seed := uint64(seed0); seed < seed0+n; seed++ {
		cfg := directed(t, seed, "ReplicasMoveUnderLoad")
		cfg.Work = 20 * time.Second
		if r := runSeed(t, cfg); r.Removals < 4 {
			t.Errorf("seed %d: %d replicas were removed", seed, r.Removals)
		}
	}
}
