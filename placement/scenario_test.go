package placement

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/kiloraft/kiloraft/shard"
)

// TestScenarios reads cluster states and the steps that they call for. A state
// has a line
//
//	nodes 1 2 !3
//
// (node 3 does not answer; with !! it is dead; 3:draining and 3:leaving are; more is
// 3:at=LOCALITY and 3:disk=FREE/CAPACITY in GiB), perhaps lines settling, paused and even,
// and a line for each shard:
//
//	shard ID epoch=V.C leader=NODE commit=N [bytes=MIB] [load=N] [split=KEY:REASON] [raised] [spare] [hold]
//	  [inflight=add:NODE|transfer:NODE|leave|split] [task=[auto:]FROM>TO[!LEAD]] REPLICA…
//
// with a replica as id@node:role:match, where the role is voter if left out and
// the match index the commit index; match may be followed by :inactive or
// :snapshot, and is ? for a member of which the leader knows nothing.
// "shards FROM-TO …" stands for many alike. decide prints the steps and what has
// become of tasks, explain what is said of each shard, why all that is.
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if filepath.Ext(path) != ".txt" {
			return // a fuzz test's
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			limits := Limits{}
			d.MaybeScanArgs(t, "rf", &limits.ReplicationFactor)
			d.MaybeScanArgs(t, "steps", &limits.StepsMax)
			d.MaybeScanArgs(t, "learners", &limits.LearnersMax)
			d.MaybeScanArgs(t, "moves", &limits.MovesMax)
			d.MaybeScanArgs(t, "low", &limits.LowSpace)
			v := parseView(t, d.Input)
			switch d.Cmd {
			case "decide":
				var b strings.Builder
				for _, st := range Decide(v, limits) {
					fmt.Fprintln(&b, st.String())
				}
				writeTasks(&b, v, limits)
				if b.Len() == 0 {
					return "nothing\n"
				}
				return b.String()
			case "explain":
				var b strings.Builder
				p := NewPlan(v, limits)
				for _, s := range v.Shards {
					fmt.Fprintf(&b, "shard %d: %s\n", s.Descriptor.ID, p.Explain(s))
				}
				return b.String()
			case "why":
				p := NewPlan(v, limits)
				var lines []string
				for _, s := range v.Shards {
					lines = append(lines, fmt.Sprintf("shard %d", s.Descriptor.ID))
					lines = append(lines, p.ExplainShard(s, false)...)
				}
				for i := range v.Nodes {
					lines = append(lines, fmt.Sprintf("node %d", v.Nodes[i].ID))
					lines = append(lines, p.ExplainNode(v.Nodes[i].ID)...)
				}
				return strings.Join(lines, "\n") + "\n"
			case "later":
				_, later := NewPlan(v, limits).Decide(v.Shards)
				var b strings.Builder
				for _, s := range later {
					fmt.Fprintf(&b, "shard %d\n", s.Descriptor.ID)
				}
				return b.String()
			}
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

// writeTasks writes what has become of tasks that are over.
func writeTasks(b *strings.Builder, v View, limits Limits) {
	p := NewPlan(v, limits)
	for _, s := range v.Shards {
		if s.Task == nil {
			continue
		}
		switch state, why := p.Judge(s); state {
		case TaskDone:
			fmt.Fprintf(b, "shard %d: task done\n", s.Descriptor.ID)
		case TaskImpossible:
			fmt.Fprintf(b, "shard %d: task impossible: %s\n", s.Descriptor.ID, why)
		}
	}
}

func parseView(t *testing.T, input string) (v View) {
	t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(input), "\n") {
		words := strings.Fields(line)
		switch words[0] {
		case "nodes":
			for _, w := range words[1:] {
				v.Nodes = append(v.Nodes, parseNode(t, w))
			}
		case "paused":
			v.Paused = true
		case "even":
			v.Even = true
		case "settling":
			v.Settling = true
		case "shard":
			id := number(t, words[1])
			v.Shards = append(v.Shards, parseShard(t, shard.ID(id), words[2:]))
		case "shards":
			from, to, _ := strings.Cut(words[1], "-")
			for id := number(t, from); id <= number(t, to); id++ {
				v.Shards = append(v.Shards, parseShard(t, shard.ID(id), words[2:]))
			}
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return v
}

func parseNode(t *testing.T, word string) Node {
	t.Helper()
	parts := strings.Split(word, ":")
	name := parts[0]
	id := strings.TrimLeft(name, "!")
	n := Node{ID: shard.NodeID(number(t, id)), Live: id == name, Dead: strings.HasPrefix(name, "!!")}
	for _, part := range parts[1:] {
		what, value, _ := strings.Cut(part, "=")
		switch what {
		case "draining":
			n.State = shard.Draining
		case "leaving":
			n.State = shard.Leaving
		case "at":
			n.Locality = shard.Locality(value)
		case "disk":
			free, all, _ := strings.Cut(value, "/")
			n.Available, n.Capacity = number(t, free)<<30, number(t, all)<<30
		default:
			t.Fatalf("unknown state of node %q", word)
		}
	}
	return n
}

func parseShard(t *testing.T, id shard.ID, words []string) *Shard {
	t.Helper()
	s := &Shard{Descriptor: shard.Descriptor{ID: id, Span: shard.UserSpan(), Epoch: shard.Epoch{Version: 1, ConfVersion: 1}, NextReplica: 1}, Commit: 20}
	d := &s.Descriptor
	var inFlight string
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "epoch":
			version, conf, _ := strings.Cut(value, ".")
			d.Epoch = shard.Epoch{Version: number(t, version), ConfVersion: number(t, conf)}
		case "leader":
			s.Leader = shard.NodeID(number(t, value))
		case "commit":
			s.Commit = number(t, value)
		case "bytes":
			s.Bytes = number(t, value) << 20
		case "load":
			s.Load.Writes = float64(number(t, value))
		case "split":
			at, reason, _ := strings.Cut(value, ":")
			s.SplitAt, s.SplitReason = shard.UserKey([]byte(at)), reason
		case "raised":
			s.Raised = true
		case "spare":
			s.Spare = true
		case "hold":
			s.Hold = true
		case "task":
			pair, auto := strings.CutPrefix(value, "auto:")
			pair, lead, _ := strings.Cut(pair, "!")
			from, to, _ := strings.Cut(pair, ">")
			s.Task = &Task{From: shard.NodeID(number(t, from)), To: shard.NodeID(number(t, to)), Auto: auto}
			if auto {
				s.Task.Why = "to be better"
			}
			if lead != "" {
				s.Task.Lead = shard.NodeID(number(t, lead))
			}
		case "inflight":
			inFlight = value
		default:
			parseReplica(t, s, w)
		}
	}
	if inFlight != "" {
		begun := s.step(LeaveJoint)
		st := &begun
		st.Replica = d.NextReplica
		kind, node, _ := strings.Cut(inFlight, ":")
		switch kind {
		case "add":
			st.Kind, st.Node = AddLearner, shard.NodeID(number(t, node))
		case "transfer":
			st.Kind, st.Node = TransferLeader, shard.NodeID(number(t, node))
		case "leave":
			st.Kind = LeaveJoint
		case "split":
			st.Kind = Split
			for _, r := range d.Replicas {
				st.members = append(st.members, r.Node)
			}
		default:
			t.Fatalf("unknown step %q", inFlight)
		}
		s.InFlight = st
	}
	return s
}

func parseReplica(t *testing.T, s *Shard, word string) {
	t.Helper()
	parts := strings.Split(word, ":")
	id, node, ok := strings.Cut(parts[0], "@")
	if !ok {
		t.Fatalf("unknown word %q", word)
	}
	r := shard.Replica{ID: shard.ReplicaID(number(t, id)), Node: shard.NodeID(number(t, node)), Role: shard.Voter}
	p := Progress{Replica: r.ID, Match: s.Commit, Active: true}
	known := true
	for _, part := range parts[1:] {
		switch part {
		case "voter":
		case "learner":
			r.Role = shard.Learner
		case "incoming":
			r.Role = shard.Incoming
		case "outgoing":
			r.Role = shard.Outgoing
		case "inactive":
			p.Active = false
		case "snapshot":
			p.Snapshot = true
		case "?":
			known = false
		default:
			p.Match = number(t, part)
		}
	}
	s.Descriptor.Replicas = append(s.Descriptor.Replicas, r)
	s.Descriptor.NextReplica = r.ID + 1
	if known {
		s.Progress = append(s.Progress, p)
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
