package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

// Severities of findings, the worst first.
const (
	severityCritical = "critical" // something is not served, or data differs, or soon so
	severityWarning  = "warning"  // one failure more, or time, makes it critical
	severityNote     = "note"     // nothing is wrong
)

var severities = []string{severityCritical, severityWarning, severityNote}

// finding is one thing that is to be known of a cluster.
type finding struct {
	Severity     string `json:"severity"`
	About        string `json:"about"` // "node 3", "shard 7", "operation 4", "cluster"
	What         string `json:"what"`
	SinceSeconds uint64 `json:"since_seconds"` // 0: not known
	Doing        string `json:"doing"`         // what the system does about it
	Todo         string `json:"todo"`          // what a person can do
}

// sight is what nodes report at about one moment.
type sight struct {
	status *kiloraftpb.StatusResponse
	shards []*kiloraftpb.ShardInfo
}

// facts are what the doctor judges by.
type facts struct {
	before, now sight
	between     time.Duration // between the two
	unix        uint64        // the time of now, in seconds
	operations  []*kiloraftpb.Operation
	settings    []*kiloraftpb.Setting
	explained   []string // by placement, of all shards
	unasked     []string // what was asked for in vain, and why
	plaintext   bool
}

// Bounds beyond which something is a finding.
const (
	diskWarnPercent, diskCriticalPercent = 20, 5
	certificateWarn, certificateCritical = 30 * 24 * time.Hour, 3 * 24 * time.Hour
	syncSlow                             = 50 * time.Millisecond
	syncsMin                             = 5 // fewer between two looks say nothing
	sublevelsMany                        = 20
	snapshotsMany                        = 20
	operationLong                        = 10 * time.Minute
	operationBytesPerSecond              = 1 << 20
	failedFor                            = time.Hour // how long a failed operation is news
	restartsMany                         = 5
	youngFor                             = time.Hour
	listedMax                            = 5 // shards that a finding names one by one
)

// diagnose judges the facts, the worst first.
func diagnose(f *facts) []finding {
	var found []finding
	for _, rule := range []func(*facts) []finding{
		differingReplicas, stoppedReplicas, servingShards, silentNodes, fullDisks, certificates, slowDisks, busyCompactions, jointShards,
		longOperations, placementAtWork, badSettings, snapshotLines, restarts, versions, nodesOnTheirWayOut, evenVoters, unsplit, spreads, fewNodes, openPorts,
	} {
		found = append(found, rule(f)...)
	}
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity))
	})
	return found
}

func nodeName(id uint64) string { return "node " + strconv.FormatUint(id, 10) }

// shardNames is "shard 3", "shards 3, 4", or "shards 3, 4, 5, 6, 7 and 93 more".
func shardNames(ids []uint64) string {
	if len(ids) == 1 {
		return "shard " + strconv.FormatUint(ids[0], 10)
	}
	var texts []string
	for _, id := range ids[:min(len(ids), listedMax)] {
		texts = append(texts, strconv.FormatUint(id, 10))
	}
	text := "shards " + strings.Join(texts, ", ")
	if more := len(ids) - listedMax; more > 0 {
		text += fmt.Sprintf(" and %s more", count(uint64(more)))
	}
	return text
}

// explainedOf is what placement says of a shard, "" if nothing.
func (f *facts) explainedOf(id uint64) string {
	prefix := fmt.Sprintf("shard %d: ", id)
	for _, line := range f.explained {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			return text
		}
	}
	return ""
}

// setting is the value of one, "" if it is not known.
func (f *facts) setting(name string) string {
	for _, s := range f.settings {
		if s.GetName() == name {
			return s.GetValue()
		}
	}
	return ""
}

func (f *facts) paused() bool { return f.setting("placement.paused") == "true" }

// node finds a node as it was before; nil if it was not there.
func (s *sight) node(id uint64) *kiloraftpb.NodeInfo {
	for _, n := range s.status.GetNodeInfos() {
		if n.GetId() == id {
			return n
		}
	}
	return nil
}

// live calls do with the nodes that answer.
func (f *facts) live(do func(*kiloraftpb.NodeInfo) (finding, bool)) (found []finding) {
	for _, n := range f.now.status.GetNodeInfos() {
		if !n.GetLive() {
			continue
		}
		if x, ok := do(n); ok {
			x.About = nodeName(n.GetId())
			found = append(found, x)
		}
	}
	return found
}

func differingReplicas(f *facts) (found []finding) {
	for _, s := range f.now.shards {
		for _, r := range s.GetReplicas() {
			if r.GetCheck().GetDiffers() {
				id := s.GetDescriptor_().GetId()
				found = append(found, finding{Severity: severityCritical, About: fmt.Sprintf("shard %d", id),
					What: fmt.Sprintf("the replica on node %d differs from the leader's on node %d: one of them has lost or changed data", r.GetNode(), s.GetLeaderNode()),
					Todo: fmt.Sprintf("`kiloraft debug check %d` shows all digests; stop the node with the odd one, and give it an empty store", id)})
			}
		}
	}
	return found
}

func stoppedReplicas(f *facts) (found []finding) {
	for _, s := range f.now.shards {
		for _, r := range s.GetReplicas() {
			if r.GetStopped() != "" {
				found = append(found, finding{Severity: severityCritical, About: fmt.Sprintf("shard %d", s.GetDescriptor_().GetId()),
					What: fmt.Sprintf("its replica on node %d takes no further part: %s", r.GetNode(), r.GetStopped()),
					Todo: fmt.Sprintf("check that node's disk; to be rid of the replica, decommission node %d and start it with an empty store", r.GetNode())})
			}
		}
	}
	return found
}

// servingShards are about shards without a leader, or without enough voters. Those of
// which placement says the same are one finding.
func servingShards(f *facts) (found []finding) {
	s := f.now.status
	if s.GetLeaderless() == 0 && s.GetUnderReplicated() == 0 {
		return nil
	}
	leaderless, lacking := map[string][]uint64{}, map[string][]uint64{}
	var order []string
	listed := uint64(0)
	for _, sh := range f.now.shards {
		id := sh.GetDescriptor_().GetId()
		text := f.explainedOf(id)
		in := lacking
		switch {
		case sh.GetLeaderNode() == 0:
			in = leaderless
			listed++
		case text == "" || votersOf(sh) >= replicationFactor:
			continue
		}
		if len(leaderless[text])+len(lacking[text]) == 0 {
			order = append(order, text)
		}
		in[text] = append(in[text], id)
	}
	for _, text := range order {
		if ids := leaderless[text]; len(ids) > 0 {
			found = append(found, finding{Severity: severityCritical, About: shardNames(ids), What: "no leader: what they hold is neither read nor written", Doing: text,
				Todo: "bring nodes back until a majority of the replicas is up; if they are lost for good, see `kiloraft debug recover --help`"})
		}
		if ids := lacking[text]; len(ids) > 0 {
			found = append(found, finding{Severity: severityWarning, About: shardNames(ids), What: fmt.Sprintf("fewer than %d voters", replicationFactor), Doing: text, Todo: f.resume()})
		}
	}
	if s.GetLeaderless() > listed { // the meta shard does not answer, and nobody lists it
		found = append(found, finding{Severity: severityCritical, About: "cluster", What: "the meta shard does not answer: not all shards may be listed, and nothing is placed",
			Todo: "bring nodes back until a majority of its replicas is up"})
	}
	if len(lacking) == 0 && s.GetUnderReplicated() > s.GetLeaderless() {
		found = append(found, finding{Severity: severityWarning, About: "cluster",
			What:  fmt.Sprintf("%s of %s shards have voters that are not caught up", count(s.GetUnderReplicated()-s.GetLeaderless()), count(s.GetShards())),
			Doing: "their leaders send them what they lack", Todo: f.resume()})
	}
	return found
}

const replicationFactor = 3

// resume is what to do while placement is paused.
func (f *facts) resume() string {
	if f.paused() {
		return "`kiloraft placement resume`: placement is paused and adds none"
	}
	return ""
}

func votersOf(s *kiloraftpb.ShardInfo) (n int) {
	for _, r := range s.GetDescriptor_().GetReplicas() {
		if role := shard.Role(r.GetRole()); role == shard.Voter || role == shard.Incoming {
			n++
		}
	}
	return n
}

func silentNodes(f *facts) (found []finding) {
	for _, n := range f.now.status.GetNodeInfos() {
		if n.GetLive() {
			continue
		}
		x := finding{Severity: severityWarning, About: nodeName(n.GetId()), What: "it is not answering at " + n.GetAddress(), SinceSeconds: n.GetSilentSeconds(),
			Doing: "its replicas are rebuilt elsewhere if it stays away (settings: placement.dead_after is " + f.setting("placement.dead_after") + ")",
			Todo:  "start it again with its store"}
		switch {
		case f.paused():
			x.Doing, x.Todo = "nothing: placement is paused", "start it again with its store, or `kiloraft placement resume`"
		case n.GetDead():
			x.Doing = "its replicas are rebuilt on other nodes, as far as there are any without one"
			x.Todo = fmt.Sprintf("start it again with its store; if it is lost for good, `kiloraft node decommission %d`", n.GetId())
		}
		for _, line := range f.now.status.GetProblems() {
			if prefix := fmt.Sprintf("node %d (%s) is not answering", n.GetId(), n.GetAddress()); strings.HasPrefix(line, prefix) && !f.paused() {
				if _, doing, ok := strings.Cut(line[len(prefix):], ": "); ok {
					x.Doing = doing
				}
			}
		}
		found = append(found, x)
	}
	return found
}

func fullDisks(f *facts) []finding {
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		total, free := n.GetCapacityBytes(), n.GetAvailableBytes()
		if total == 0 || free*100 >= total*diskWarnPercent {
			return finding{}, false
		}
		x := finding{Severity: severityWarning, What: fmt.Sprintf("%s of its disk of %s are free", bytesText(free), bytesText(total)),
			Doing: "snapshots that would fill it are refused", Todo: "free or add space, move replicas away (`kiloraft shard move`), or add a node"}
		if free*100 < total*diskCriticalPercent {
			x.Severity = severityCritical
			x.Todo = "free space now: a node that cannot write its log ends; " + x.Todo
		}
		return x, true
	})
}

func certificates(f *facts) []finding {
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		until, ok := n.GetGauges()["certificate_expiry_seconds"]
		left := time.Duration(until-float64(f.unix)) * time.Second
		if !ok || left >= certificateWarn {
			return finding{}, false
		}
		x := finding{Severity: severityWarning, What: "its certificate expires in " + ago(left.Seconds()),
			Todo: "make a new one (`kiloraft cert create-node`) in the same folder: it is taken up without a restart"}
		switch {
		case left <= 0:
			x.Severity, x.What = severityCritical, "its certificate has expired"
		case left < certificateCritical:
			x.Severity = severityCritical
		}
		return x, true
	})
}

// slowDisks compares the two looks: what a sync of the log took between them.
func slowDisks(f *facts) []finding {
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		was := f.before.node(n.GetId()).GetCounters()
		syncs := n.GetCounters()["wal_syncs_total"] - was["wal_syncs_total"]
		took := n.GetCounters()["wal_sync_seconds_total"] - was["wal_sync_seconds_total"]
		if syncs < syncsMin || took/syncs < syncSlow.Seconds() {
			return finding{}, false
		}
		return finding{Severity: severityWarning, What: fmt.Sprintf("a sync of its log takes %.0f ms: every write on it waits for that", 1000*took/syncs),
			Todo: "look for who else uses the disk, or give the store a faster one"}, true
	})
}

func busyCompactions(f *facts) []finding {
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		levels := n.GetGauges()["l0_sublevels"]
		if levels < sublevelsMany {
			return finding{}, false
		}
		return finding{Severity: severityWarning, What: fmt.Sprintf("its engine is %.0f sublevels behind with compaction, and reads look through all of them", levels),
			Doing: "it compacts as fast as disk and CPU allow", Todo: "lessen the writes for a while, or add nodes"}, true
	})
}

// jointShards are in the same joint configuration in both looks.
func jointShards(f *facts) (found []finding) {
	for _, now := range f.now.shards {
		d := now.GetDescriptor_()
		if !joint(d) {
			continue
		}
		for _, was := range f.before.shards {
			if was.GetDescriptor_().GetId() == d.GetId() && was.GetDescriptor_().GetEpoch().GetConfVersion() == d.GetEpoch().GetConfVersion() {
				found = append(found, finding{Severity: severityWarning, About: fmt.Sprintf("shard %d", d.GetId()),
					What:  fmt.Sprintf("it has been in a joint configuration for more than %s: it needs majorities of two sets of voters", duration(f.between.Round(time.Second))),
					Doing: cmp.Or(f.explainedOf(d.GetId()), "its leader leaves it when a majority of both sets answers"),
					Todo:  "start the nodes of its voters that do not answer (`kiloraft shard show " + strconv.FormatUint(d.GetId(), 10) + "`)"})
			}
		}
	}
	return found
}

func joint(d *kiloraftpb.Descriptor) bool {
	return slices.ContainsFunc(d.GetReplicas(), func(r *kiloraftpb.Replica) bool {
		return shard.Role(r.GetRole()) == shard.Incoming || shard.Role(r.GetRole()) == shard.Outgoing
	})
}

func longOperations(f *facts) (found []finding) {
	for _, op := range f.operations {
		r := operationOf(op)
		about, ran := fmt.Sprintf("operation %d", r.ID), f.unix-min(f.unix, r.BeganUnix)
		patience := uint64(operationLong.Seconds()) + r.BytesTotal/operationBytesPerSecond
		switch {
		case r.State == "running" && r.BeganUnix > 0 && ran > patience:
			found = append(found, finding{Severity: severityWarning, About: about, What: "it is long under way: " + r.what(), SinceSeconds: ran, Doing: r.now(),
				Todo: fmt.Sprintf("`kiloraft ops cancel %d` ends it", r.ID)})
		case r.State == "failed" && f.unix-min(f.unix, r.EndedUnix) < uint64(failedFor.Seconds()):
			found = append(found, finding{Severity: severityNote, About: about, What: "it failed: " + r.what() + ": " + r.Reason, SinceSeconds: f.unix - min(f.unix, r.EndedUnix)})
		}
	}
	return found
}

func placementAtWork(f *facts) (found []finding) {
	if f.paused() {
		found = append(found, finding{Severity: severityWarning, About: "placement", What: "it is paused: dead nodes are not replaced, and nothing is evened out",
			Doing: "what people ask for is done", Todo: "`kiloraft placement resume`"})
	}
	for _, line := range f.explained {
		if strings.HasPrefix(line, "placement is not at work") {
			found = append(found, finding{Severity: severityWarning, About: "placement", What: line, Todo: "if it stays so, see `kiloraft shard show 1`: the meta shard's leader drives placement"})
		}
	}
	for _, text := range f.unasked {
		found = append(found, finding{Severity: severityWarning, About: "cluster", What: "a question was not answered: " + text})
	}
	return found
}

func badSettings(f *facts) (found []finding) {
	for _, s := range f.settings {
		if s.GetProblem() != "" {
			found = append(found, finding{Severity: severityWarning, About: "setting " + s.GetName(), What: "its record cannot be used: " + s.GetProblem(),
				Doing: "nodes keep the value that they had", Todo: fmt.Sprintf("`kiloraft settings set %s VALUE`", s.GetName())})
		}
	}
	return found
}

func snapshotLines(f *facts) []finding {
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		queued, was := n.GetGauges()["snapshots_queued"], f.before.node(n.GetId()).GetGauges()["snapshots_queued"]
		if queued < snapshotsMany || queued < was {
			return finding{}, false
		}
		return finding{Severity: severityWarning, What: fmt.Sprintf("%.0f snapshots are in line to be sent, and the line does not get shorter", queued),
			Doing: "large ones go two at a time, at " + cmp.Or(f.setting("snapshot.rate"), "a bounded rate") + " per second", Todo: "if the network has room, raise snapshot.rate (`kiloraft settings set`)"}, true
	})
}

// restarts are nodes that have started much more often than the others, and lately.
func restarts(f *facts) []finding {
	fewest := uint64(1<<64 - 1)
	for _, n := range f.now.status.GetNodeInfos() {
		if n.GetLive() {
			fewest = min(fewest, n.GetIncarnation())
		}
	}
	return f.live(func(n *kiloraftpb.NodeInfo) (finding, bool) {
		if n.GetIncarnation() < fewest+restartsMany || n.GetUptimeSeconds() >= youngFor.Seconds() {
			return finding{}, false
		}
		return finding{Severity: severityWarning, What: fmt.Sprintf("it has started %d times, and others %d: it may be crashing", n.GetIncarnation(), fewest),
			SinceSeconds: uint64(n.GetUptimeSeconds()), Todo: "see the end of its log before the last start"}, true
	})
}

func versions(f *facts) []finding {
	by := map[string][]string{}
	for _, n := range f.now.status.GetNodeInfos() {
		if n.GetLive() {
			by[n.GetVersion()] = append(by[n.GetVersion()], strconv.FormatUint(n.GetId(), 10))
		}
	}
	if len(by) < 2 {
		return nil
	}
	var texts []string
	for v, ids := range by {
		texts = append(texts, fmt.Sprintf("%s on %s", cmp.Or(v, "unknown"), strings.Join(ids, ", ")))
	}
	slices.Sort(texts)
	return []finding{{Severity: severityWarning, About: "cluster", What: "nodes run different versions: " + strings.Join(texts, "; "), Todo: "finish the upgrade, one node after the other"}}
}

func nodesOnTheirWayOut(f *facts) (found []finding) {
	for _, n := range f.now.status.GetNodeInfos() {
		switch n.GetState() {
		case shard.Draining.String():
			found = append(found, finding{Severity: severityNote, About: nodeName(n.GetId()), What: "it is draining, and leads nothing",
				Todo: fmt.Sprintf("its next start or `kiloraft node drain %d --undo` ends that", n.GetId())})
		case shard.Leaving.String():
			found = append(found, finding{Severity: severityNote, About: nodeName(n.GetId()), What: "it is being decommissioned",
				Doing: fmt.Sprintf("its replicas leave; %s are left", count(n.GetShards())), Todo: "`kiloraft ops list` tells how far that has come"})
		}
	}
	return found
}

// evenVoters are shards that a replica more, or less, would make no weaker.
func evenVoters(f *facts) []finding {
	var ids []uint64
	for _, s := range f.now.shards {
		if n := votersOf(s); n > replicationFactor && n%2 == 0 && !joint(s.GetDescriptor_()) {
			ids = append(ids, s.GetDescriptor_().GetId())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return []finding{{Severity: severityNote, About: shardNames(ids), What: "an even number of voters: one of them adds work and no safety",
		Todo: "`kiloraft shard add-replica` or `remove-replica`"}}
}

// unsplit are shards that have grown too large, or are asked for too much, and cannot be
// split for a reason.
func unsplit(f *facts) (found []finding) {
	for _, s := range f.now.shards {
		for _, r := range s.GetReplicas() {
			if r.GetLeading() && r.GetNode() == s.GetLeaderNode() && r.GetSplitRefusal() != "" {
				found = append(found, finding{Severity: severityNote, About: fmt.Sprintf("shard %d", s.GetDescriptor_().GetId()),
					What: fmt.Sprintf("it is to be split by %s, and is not: %s", cmp.Or(r.GetSplitReason(), "size or load"), r.GetSplitRefusal()),
					Todo: "`kiloraft top` shows its load and its hot keys"})
			}
		}
	}
	return found
}

// spreads are about replicas and leaders that are on few nodes.
func spreads(f *facts) (found []finding) {
	for _, kind := range []struct {
		name string
		of   func(*kiloraftpb.NodeInfo) uint64
	}{{"replicas", (*kiloraftpb.NodeInfo).GetShards}, {"leaders", (*kiloraftpb.NodeInfo).GetLeaders}} {
		var least, most *kiloraftpb.NodeInfo
		for _, n := range f.now.status.GetNodeInfos() {
			if !n.GetLive() || n.GetState() != shard.Serving.String() {
				continue
			}
			if least == nil || kind.of(n) < kind.of(least) {
				least = n
			}
			if most == nil || kind.of(n) > kind.of(most) {
				most = n
			}
		}
		if least == nil || kind.of(most) < kind.of(least)+8 || kind.of(most) < 2*kind.of(least) {
			continue
		}
		x := finding{Severity: severityNote, About: "cluster", What: fmt.Sprintf("node %d has %s %s, and node %d has %s", most.GetId(), count(kind.of(most)), kind.name, least.GetId(), count(kind.of(least))),
			Doing: "placement evens that out, unless it has reasons; `kiloraft placement explain` tells them"}
		if f.paused() || f.setting("placement.rebalance") == "false" {
			x.Doing, x.Todo = "nothing: it is switched off", "`kiloraft placement resume`, or `kiloraft settings set placement.rebalance true`"
		}
		found = append(found, x)
	}
	return found
}

func fewNodes(f *facts) []finding {
	switch n := f.now.status.GetNodes(); n {
	case 0, 1:
		return []finding{{Severity: severityNote, About: "cluster", What: "there is one node: if it is lost, so is the data", Todo: "start two more with --join"}}
	case 2:
		return []finding{{Severity: severityNote, About: "cluster", What: "there are two nodes: if one stops, so does what both are needed for", Todo: "start one more with --join"}}
	}
	return nil
}

func openPorts(f *facts) []finding {
	if !f.plaintext {
		return nil
	}
	return []finding{{Severity: severityNote, About: "cluster", What: "it speaks plaintext (--insecure): whoever is on this machine may do everything",
		Todo: "beyond a machine of your own, start nodes with --certs-dir (`kiloraft cert --help`)"}}
}
