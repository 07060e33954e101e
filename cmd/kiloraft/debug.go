package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/shard"
)

func (a *app) debugCommand() *cobra.Command {
	return group("debug", "Look inside", a.debugKeyCommand(), a.debugRecoverCommand(), a.debugCheckCommand())
}

// keyRecord is what all replicas have of a key, as JSON.
type keyRecord struct {
	Key      string             `json:"key"`
	Shard    uint64             `json:"shard"`
	Start    string             `json:"start"`
	End      string             `json:"end"`
	Epoch    epochRecord        `json:"epoch"`
	Replicas []keyReplicaRecord `json:"replicas"`
}

// keyReplicaRecord is what one replica has. With an error the rest is open.
type keyReplicaRecord struct {
	Node         uint64          `json:"node"`
	Replica      uint64          `json:"replica"`
	Role         string          `json:"role"`
	Leading      bool            `json:"leading"`
	Floor        uint64          `json:"floor"`
	LastRevision uint64          `json:"last_revision"`
	Applied      uint64          `json:"applied_index"`
	Versions     []versionRecord `json:"versions"` // newest first
	More         bool            `json:"more"`     // there are older ones than are listed
	Error        string          `json:"error,omitempty"`
}

type versionRecord struct {
	Revision uint64 `json:"revision"`
	Kind     string `json:"kind"` // "put", "delete", or "trace" of an operation that changed nothing
	Bytes    uint64 `json:"bytes"`
	Session  string `json:"session"` // with sequence: the operation that wrote it
	Sequence uint64 `json:"sequence"`
}

func (a *app) debugKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key KEY",
		Short: "Show what each replica has of a key, version by version",
		Long: "Show what each replica has of a key: its floor, below which reads are refused; its last revision; and every\n" +
			"version that was not dropped yet, with the operation that wrote it. Each node is asked for what it has on its\n" +
			"own disk, whether it is up to date or not." + keyHelp,
		Example: `  kiloraft debug key hello
  kiloraft debug key hello -o json`,
		Args: takes(1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := keyArgument(args[0])
			if err != nil {
				return err
			}
			if len(key) == 0 {
				return usagef("KEY: a key has at least 1 byte")
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				record, err := inspectKey(ctx, c, key)
				if err != nil {
					return err
				}
				return a.print(record, func(w io.Writer) error { return writeKey(w, record) })
			})
		},
	}
}

// inspectKey asks the node of every replica of the key's shard. It fails if none
// of them tells anything.
func inspectKey(ctx context.Context, c *cluster, key []byte) (*keyRecord, error) {
	s, addresses, err := whereKeyIs(ctx, c, key)
	if err != nil {
		return nil, err
	}
	of := shardOf(s)
	record := &keyRecord{Key: shard.FormatUserKey(key), Shard: of.ID, Start: of.Start, End: of.End, Epoch: of.Epoch, Replicas: []keyReplicaRecord{}}
	for _, m := range of.Replicas {
		record.Replicas = append(record.Replicas, keyReplicaRecord{Node: m.Node, Replica: m.Replica, Role: m.Role, Versions: []versionRecord{}})
	}
	slices.SortFunc(record.Replicas, func(x, y keyReplicaRecord) int { return int(x.Node) - int(y.Node) })
	var all sync.WaitGroup
	for i := range record.Replicas {
		r := &record.Replicas[i]
		all.Go(func() { r.ask(ctx, c.target.at(addresses[r.Node]), key) })
	}
	all.Wait()
	var failures []string
	for _, r := range record.Replicas {
		if r.Error == "" {
			return record, nil
		}
		failures = append(failures, fmt.Sprintf("node %d: %s", r.Node, r.Error))
	}
	return nil, fmt.Errorf("no replica of shard %d tells what it has: %s", record.Shard, strings.Join(failures, "; "))
}

// whereKeyIs finds the shard that holds a key, and the addresses of nodes.
func whereKeyIs(ctx context.Context, c *cluster, key []byte) (*kiloraftpb.ShardInfo, map[uint64]string, error) {
	found, err := c.shards(ctx, &kiloraftpb.ListShardsRequest{Key: key})
	if err != nil {
		return nil, nil, err
	}
	if len(found.GetShards()) == 0 {
		return nil, nil, fmt.Errorf("no shard is known to hold key %q; try again", shard.FormatUserKey(key))
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	addresses := make(map[uint64]string)
	for _, n := range nodes.GetNodes() {
		addresses[n.GetId()] = n.GetAddress()
	}
	return found.GetShards()[0], addresses, nil
}

// ask fills r with what the node at an address answers, or why it did not.
func (r *keyReplicaRecord) ask(ctx context.Context, t target, key []byte) {
	answer, err := inspectAt(ctx, t, key)
	if err != nil {
		r.Error = err.Error()
		return
	}
	if answer.GetNode() != r.Node {
		r.Error = fmt.Sprintf("at its address %s there is node %d", t.endpoints[0], answer.GetNode())
		return
	}
	r.Replica, r.Leading, r.Floor, r.LastRevision, r.Applied, r.More = answer.GetReplica(), answer.GetLeading(), answer.GetFloor(),
		answer.GetLastRevision(), answer.GetApplied(), answer.GetMore()
	for _, v := range answer.GetVersions() {
		kind := "put"
		switch {
		case v.GetTrace():
			kind = "trace"
		case v.GetTombstone():
			kind = "delete"
		}
		r.Versions = append(r.Versions, versionRecord{Revision: v.GetRevision(), Kind: kind, Bytes: v.GetBytes(),
			Session: fmt.Sprintf("%016x", v.GetSession()), Sequence: v.GetSequence()})
	}
}

func inspectAt(ctx context.Context, t target, key []byte) (*kiloraftpb.InspectKeyResponse, error) {
	switch address := t.endpoints[0]; {
	case address == "":
		return nil, errors.New("its address is not known")
	case t.certsDir == "" && !loopback(address):
		return nil, fmt.Errorf("its address %s is not a loopback address, and plaintext is for those only", address)
	}
	c, err := dialTarget(t)
	if err != nil {
		return nil, err
	}
	defer c.close()
	ctx, cancel := c.attempt(ctx, 2) // so that a node that hangs leaves time to say so
	defer cancel()
	return c.inspectKey(ctx, key)
}

func writeKey(w io.Writer, r *keyRecord) error {
	fmt.Fprintf(w, "key %s is in shard %d, from %s to %s, epoch %d.%d\n\n", r.Key, r.Shard, boundText(r.Start, "–"), boundText(r.End, "–"),
		r.Epoch.Version, r.Epoch.ConfVersion)
	var rows [][]string
	for _, p := range r.Replicas {
		row := []string{number(p.Node), number(p.Replica), p.state(), number(p.Floor), number(p.LastRevision), number(p.Applied), p.versionsText()}
		if p.Error != "" {
			row = []string{number(p.Node), number(p.Replica), p.Error}
		}
		rows = append(rows, row)
	}
	if err := table(w, []string{"NODE", "REPLICA", "STATE", "FLOOR", "LAST REVISION", "APPLIED", "VERSIONS"}, rows); err != nil {
		return err
	}
	for i, p := range r.Replicas {
		same := slices.IndexFunc(r.Replicas, func(other keyReplicaRecord) bool { return other.sameVersions(&p) })
		if len(p.Versions) == 0 || p.Error != "" || same < i {
			continue
		}
		if err := writeVersions(w, r.nodesWith(&p), &p); err != nil {
			return err
		}
	}
	return nil
}

// number is one to be copied: without commas.
func number(n uint64) string { return strconv.FormatUint(n, 10) }

func (r *keyReplicaRecord) state() string {
	switch {
	case r.Leading:
		return "leads"
	case r.Role != shard.Voter.String():
		return r.Role
	}
	return "follows"
}

func (r *keyReplicaRecord) versionsText() string {
	if r.More {
		return count(uint64(len(r.Versions))) + " or more"
	}
	return count(uint64(len(r.Versions)))
}

func (r *keyReplicaRecord) sameVersions(o *keyReplicaRecord) bool {
	return r.Error == "" && o.Error == "" && r.More == o.More && slices.Equal(r.Versions, o.Versions)
}

// nodesWith names the nodes whose replicas have the same versions as p.
func (r *keyRecord) nodesWith(p *keyReplicaRecord) string {
	var nodes []string
	for i := range r.Replicas {
		if r.Replicas[i].sameVersions(p) {
			nodes = append(nodes, number(r.Replicas[i].Node))
		}
	}
	if len(nodes) == 1 {
		return "node " + nodes[0]
	}
	return "nodes " + strings.Join(nodes, ", ")
}

func writeVersions(w io.Writer, nodes string, r *keyReplicaRecord) error {
	fmt.Fprintf(w, "\nversions on %s, newest first:\n", nodes)
	var rows [][]string
	for _, v := range r.Versions {
		rows = append(rows, []string{number(v.Revision), v.Kind, bytesText(v.Bytes), fmt.Sprintf("%s/%d", v.Session, v.Sequence)})
	}
	if err := table(w, []string{"REVISION", "KIND", "SIZE", "OPERATION"}, rows); err != nil || !r.More {
		return err
	}
	_, err := fmt.Fprintln(w, "… and older ones")
	return err
}
