package placement

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// TaskState is how far a shard's task has come.
type TaskState int

const (
	// TaskGoesOn: there is more to do, or to wait for.
	TaskGoesOn TaskState = iota
	// TaskDone: the descriptor is what the task asked for.
	TaskDone
	// TaskImpossible: it can no longer be done. What is half done is placement's.
	TaskImpossible
)

// Judge tells how far the shard's task has come and, if it is impossible, why, in
// words. A task that has gone past its joint change goes on to its end. One that would
// leave the shard with fewer voters than placement wants it to have, or that has to wait
// for a dead voter, is impossible: nothing else is decided for the shard while it lasts.
func (p *Plan) Judge(s *Shard) (TaskState, string) {
	d, t := &s.Descriptor, s.Task
	from, leaves := d.ReplicaOn(t.From)
	to, added := d.ReplicaOn(t.To)
	arrived := t.To == 0 || added && to.Role == shard.Voter
	switch {
	case t.From == t.To && t.Lead == 0:
		return TaskImpossible, fmt.Sprintf("it is from node %d to itself", t.To)
	case d.Joint():
		return TaskGoesOn, ""
	case arrived && !leaves && t.Lead != 0 && t.Lead != s.Leader:
		return p.judgeLead(s)
	case arrived && !leaves:
		return TaskDone, ""
	case arrived && from.Role == shard.Learner:
		return TaskGoesOn, ""
	case arrived && voters(d) == 1:
		return TaskImpossible, fmt.Sprintf("the replica on node %d is the only voter", t.From)
	case arrived && voters(d)-1 < min(p.factor(d.ID, p.hosts), p.hosts) && (t.To != 0 || !p.paused):
		return TaskImpossible, fmt.Sprintf("without the replica on node %d there would be %d voters", t.From, voters(d)-1)
	case arrived:
		return TaskGoesOn, ""
	case t.From != 0 && !leaves:
		return TaskImpossible, fmt.Sprintf("node %d has no replica of the shard any more", t.From)
	case t.From != 0 && t.To != 0 && from.Role == shard.Learner:
		// Moved all the same it would make a voter more, in the place of none.
		return TaskImpossible, fmt.Sprintf("the replica on node %d is a learner, and only voters move", t.From)
	}
	if why := p.refusal(t.To); why != "" {
		return TaskImpossible, why
	}
	if n := p.node(t.To); !added && p.full(n, s.size()) {
		return TaskImpossible, fmt.Sprintf("node %d has %s", t.To, SpaceText(n.capacity, n.available))
	}
	if silent, waits := p.taskWaits(s); waits && p.node(silent.Node) != nil && p.node(silent.Node).dead {
		return TaskImpossible, fmt.Sprintf("node %d is dead, and its voter is to be replaced first", silent.Node)
	}
	return TaskGoesOn, ""
}

// judgeLead is Judge where nothing is left but that the node that is to lead does.
func (p *Plan) judgeLead(s *Shard) (TaskState, string) {
	t := s.Task
	switch r, there := s.Descriptor.ReplicaOn(t.Lead); {
	case !there || r.Role != shard.Voter:
		return TaskImpossible, fmt.Sprintf("node %d has no voter of the shard that could lead", t.Lead)
	case p.refusal(t.Lead) != "":
		return TaskImpossible, p.refusal(t.Lead)
	}
	return TaskGoesOn, ""
}

// taskWaits is p.waits for the joint change of the shard's task.
func (p *Plan) taskWaits(s *Shard) (silent shard.Replica, waits bool) {
	var demoted []shard.Replica
	if from, ok := s.Descriptor.ReplicaOn(s.Task.From); ok && from.Role == shard.Voter {
		demoted = append(demoted, from)
	}
	return p.waits(s, 1, demoted)
}

// refusal says why a node takes no replica, "" if it does or may soon.
func (p *Plan) refusal(id shard.NodeID) string {
	n := p.node(id)
	switch {
	case n == nil:
		return fmt.Sprintf("node %d is not known", id)
	case n.state != shard.Serving:
		return fmt.Sprintf("node %d is %v and takes no replicas", id, n.state)
	case n.dead:
		return fmt.Sprintf("node %d is dead", id)
	}
	return ""
}

// task decides the next step of the shard's task: add before remove, and the
// leader leaves before its voter does.
func (p *Plan) task(s *Shard) (Step, bool) {
	if state, _ := p.Judge(s); state != TaskGoesOn {
		return Step{}, false
	}
	d, t := &s.Descriptor, s.Task
	from, leaves := d.ReplicaOn(t.From)
	to, added := d.ReplicaOn(t.To)
	var promoted, demoted []shard.Replica
	if t.To != 0 {
		switch {
		case !added && (!p.isLive(t.To) || p.InLine(s)):
			return Step{}, false
		case !added:
			st := p.addLearner(s, t.To)
			st.counted = true
			return st, true
		case to.Role == shard.Learner:
			if !s.caughtUp(to.ID) {
				return Step{}, false
			}
			promoted = append(promoted, to)
		}
	}
	if leaves && from.Role == shard.Learner && promoted == nil {
		st := p.removeLearner(s, from)
		st.counted = true
		return st, true
	}
	if leaves && from.Role == shard.Voter {
		demoted = append(demoted, from)
	}
	if promoted == nil && demoted == nil {
		return p.takeLead(s)
	}
	return p.joint(s, promoted, demoted)
}

// InLine tells whether the shard's task waits for those of others before it adds its replica:
// as many are on their way to that node as may be. Were all added at once, the last of
// them would wait for its snapshot for so long that it seemed stuck.
func (p *Plan) InLine(s *Shard) bool {
	if s.Task == nil {
		return false
	}
	to := p.node(s.Task.To)
	_, added := s.Descriptor.ReplicaOn(s.Task.To)
	return to != nil && !added && to.learners >= p.limits.MovesMax
}

// takeLead decides that the node that the task is to have lead does.
func (p *Plan) takeLead(s *Shard) (Step, bool) {
	r, there := s.Descriptor.ReplicaOn(s.Task.Lead)
	if !there || !p.isHost(r.Node) || !s.caughtUp(r.ID) {
		return Step{}, false
	}
	st := s.step(TransferLeader)
	st.Node, st.Replica, st.counted = r.Node, r.ID, true
	return st, true
}
