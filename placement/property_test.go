package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// drawView is any view: descriptors that no history need lead to, nodes in every state,
// shards whose leader is known or not, with tasks, and with steps in flight.
func drawView(t *rapid.T) (v View) {
	nodes := rapid.IntRange(1, 6).Draw(t, "nodes")
	trouble := rapid.IntRange(0, 2).Draw(t, "trouble") // how many of ten nodes are not well, about
	for id := 1; id <= nodes; id++ {
		n := Node{ID: shard.NodeID(id), Live: true}
		if rapid.IntRange(1, 10).Draw(t, "well") <= 2*trouble {
			n.State = rapid.SampledFrom([]shard.NodeState{shard.Serving, shard.Draining, shard.Leaving}).Draw(t, "state")
			n.Live = rapid.Bool().Draw(t, "live")
			n.Dead = !n.Live && rapid.Bool().Draw(t, "dead")
		}
		n.Locality = shard.Locality(rapid.SampledFrom([]string{"", "zone=a", "zone=b", "zone=c"}).Draw(t, "place"))
		if rapid.Bool().Draw(t, "disk known") {
			n.Capacity = rapid.Uint64Range(1, 1<<40).Draw(t, "capacity")
			n.Available = n.Capacity - n.Capacity*rapid.Uint64Range(0, 100).Draw(t, "used")/100
		}
		v.Nodes = append(v.Nodes, n)
	}
	v.Settling, v.Paused, v.Even = rapid.Bool().Draw(t, "settling"), rapid.Bool().Draw(t, "paused"), rapid.Bool().Draw(t, "even")
	for id := range rapid.IntRange(1, 20).Draw(t, "shards") {
		v.Shards = append(v.Shards, drawShard(t, shard.ID(id+1), nodes))
	}
	return v
}

func drawShard(t *rapid.T, id shard.ID, nodes int) *Shard {
	s := &Shard{Commit: rapid.Uint64Range(1, 300).Draw(t, "commit"), Raised: rapid.Bool().Draw(t, "raised"), Spare: rapid.Bool().Draw(t, "spare"),
		Hold: rapid.IntRange(0, 9).Draw(t, "hold") == 0}
	d := shard.Descriptor{ID: id, Epoch: shard.Epoch{Version: 1, ConfVersion: rapid.Uint64Range(1, 9).Draw(t, "conf")}, NextReplica: 1}
	joint := rapid.IntRange(0, 7).Draw(t, "joint") == 0
	wanted := rapid.IntRange(1, 4).Draw(t, "voters")
	var leads []shard.NodeID
	for _, n := range rapid.SliceOfNDistinct(rapid.IntRange(1, nodes), 1, nodes, rapid.ID[int]).Draw(t, "members") {
		r := shard.Replica{ID: d.NextReplica, Node: shard.NodeID(n), Role: shard.Learner}
		if len(d.Replicas) < wanted {
			r.Role = shard.Voter
		}
		if joint && len(d.Replicas) > 0 {
			r.Role = rapid.SampledFrom([]shard.Role{shard.Voter, shard.Learner, shard.Incoming, shard.Outgoing}).Draw(t, "role")
		}
		d.Replicas = append(d.Replicas, r)
		d.NextReplica += shard.ReplicaID(rapid.IntRange(1, 3).Draw(t, "gap"))
		if r.Role == shard.Voter {
			leads = append(leads, r.Node)
		}
		if rapid.IntRange(0, 4).Draw(t, "known") > 0 { // else nothing is known of it
			s.Progress = append(s.Progress, Progress{Replica: r.ID, Match: s.Commit - min(s.Commit, rapid.Uint64Range(0, 100).Draw(t, "lag")),
				Active: rapid.IntRange(0, 3).Draw(t, "active") > 0, Snapshot: rapid.IntRange(0, 4).Draw(t, "snapshot") == 0})
		}
	}
	if d.ID == shard.MetaID || rapid.IntRange(0, 3).Draw(t, "wishes") == 0 {
		s.SplitAt, s.SplitReason = shard.UserKey(rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "at")), "size"
	}
	s.Bytes = rapid.Uint64Range(0, 1<<30).Draw(t, "bytes")
	s.Load.Writes = rapid.Float64Range(0, 1e4).Draw(t, "load")
	d.Span = shard.UserSpan()
	s.Descriptor = d
	if rapid.IntRange(0, 5).Draw(t, "led") > 0 {
		s.Leader = rapid.SampledFrom(leads).Draw(t, "leader")
	}
	node := rapid.IntRange(0, nodes)
	if rapid.IntRange(0, 5).Draw(t, "asked") == 0 {
		s.Task = &Task{From: shard.NodeID(node.Draw(t, "from")), To: shard.NodeID(node.Draw(t, "to")), Auto: rapid.Bool().Draw(t, "auto")}
	}
	if rapid.IntRange(0, 5).Draw(t, "busy") == 0 {
		st := s.step(TransferLeader)
		st.Node, st.Replica = leads[0], d.Replicas[0].ID
		s.InFlight = &st
	}
	return s
}

// Whatever the view, each step that is decided may be taken: it fits the shard as it is, goes
// to its leader, gives nothing to a node that takes nothing, and leaves the shard with
// as many voters as it had, or all it should have; and the same view gives the same steps.
func TestEveryStepIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 20 { // views are small, and most are at rest
			everyStepIsSound(t)
		}
	})
}

// FuzzDecide is the same with the choices of a fuzzer.
func FuzzDecide(f *testing.F) { f.Fuzz(rapid.MakeFuzz(everyStepIsSound)) }

func everyStepIsSound(t *rapid.T) {
	v := drawView(t)
	limits := Limits{StepsMax: rapid.IntRange(1, 10).Draw(t, "steps at most")}
	steps := Decide(v, limits)
	if again := Decide(v, limits); fmt.Sprint(again) != fmt.Sprint(steps) {
		t.Fatalf("the same view gives %v, and %v", steps, again)
	}
	inFlight := 0
	for _, s := range v.Shards {
		if s.InFlight != nil {
			inFlight++
		}
	}
	if len(steps) > 0 && len(steps)+inFlight > limits.StepsMax {
		t.Fatalf("%d steps beside %d in flight, at most %d", len(steps), inFlight, limits.StepsMax)
	}
	seen := map[shard.ID]bool{}
	for i := range steps {
		st := &steps[i]
		s := v.Shards[st.Shard-1]
		if seen[st.Shard] || s.InFlight != nil || s.Hold {
			t.Fatalf("%v, and the shard has another step, or none is to be decided for it", st)
		}
		seen[st.Shard] = true
		if st.Epoch != s.Descriptor.Epoch || st.Leader != s.Leader || s.Leader == 0 {
			t.Fatalf("%v of %+v led by %d", st, s.Descriptor, s.Leader)
		}
		checkStep(t, &v, s, st)
	}
}

// takes tells whether a node may be given a replica or a leader.
func (v *View) takes(id shard.NodeID) bool {
	return slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.ID == id && n.Live && !n.Dead && n.State == shard.Serving })
}

// full tells whether hardly anything of a node's disk is free.
func (v *View) full(id shard.NodeID) bool {
	return slices.ContainsFunc(v.Nodes, func(n Node) bool {
		return n.ID == id && n.Capacity > 0 && n.Available < min(reserveMax, n.Capacity/21)
	})
}

// checkStep judges a step by what it does to the shard, and not by how it was found.
func checkStep(t *rapid.T, v *View, s *Shard, st *Step) {
	d := &s.Descriptor
	if st.Kind == TransferLeader {
		r, ok := d.Replica(st.Replica)
		if !ok || r.Node != st.Node || r.Role != shard.Voter || r.Node == s.Leader || !v.takes(r.Node) || d.Joint() || !s.caughtUp(r.ID) {
			t.Fatalf("%v of %+v", st, d)
		}
		return
	}
	if st.Kind == Split {
		split := shard.Split{Shard: d.ID, Epoch: st.Epoch, Key: st.SplitAt, Right: 1000}
		if _, _, err := split.Apply(d); err != nil || v.Paused || s.Task != nil || voters(d) != len(d.Replicas) || d.ID == shard.MetaID {
			t.Fatalf("%v of %+v: %v", st, d, err)
		}
		return
	}
	m := st.Membership()
	next, err := m.Apply(d)
	if err != nil {
		t.Fatalf("%v of %+v: %v", st, d, err)
	}
	before, after := voters(d), voters(&next)
	switch st.Kind {
	case AddLearner:
		// A person's task may wait at a node that is silent, but not begin there.
		if !v.takes(st.Node) || st.Replica != d.NextReplica || v.full(st.Node) {
			t.Fatalf("%v of %+v on nodes %+v", st, d, v.Nodes)
		}
	case RemoveLearner:
		if r, _ := d.Replica(st.Replica); r.Role != shard.Learner {
			t.Fatalf("%v of %+v", st, d)
		}
	case Joint:
		for _, r := range st.Promoted {
			if !s.caughtUp(r.ID) {
				t.Fatalf("%v, and replica %d has not caught up", st, r.ID)
			}
		}
		for _, r := range st.Demoted {
			if r.Node == s.Leader && before > 1 {
				t.Fatalf("%v demotes the leader on node %d", st, s.Leader)
			}
		}
		if s.Task == nil && after < min(before, ReplicationFactor) {
			t.Fatalf("%v leaves %d voters of %d", st, after, before)
		}
	}
	if after == 0 {
		t.Fatalf("%v leaves no voter", st)
	}
}
