package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/api/kiloraftpb"
)

func (a *app) opsCommand() *cobra.Command {
	return group("ops", "Look at operations on shards and nodes, and cancel them", a.opsListCommand(), a.opsShowCommand(), a.opsCancelCommand())
}

// operationRecord is an operation as JSON.
type operationRecord struct {
	ID        uint64   `json:"id"`
	Kind      string   `json:"kind"`
	Shard     uint64   `json:"shard"`     // 0: it is about a node
	From      uint64   `json:"from_node"` // of a shard's replica; 0: none
	To        uint64   `json:"to_node"`
	Nodes     []uint64 `json:"nodes"`    // of a scatter: where the shard is to be; the first one leads
	Node      uint64   `json:"node"`     // 0: it is about a shard
	State     string   `json:"state"`    // running, done, failed or cancelled
	Progress  string   `json:"progress"` // while it runs
	Reason    string   `json:"reason"`   // why it failed
	BeganUnix uint64   `json:"began_unix"`
	EndedUnix uint64   `json:"ended_unix"` // 0: it runs, or when it ended is not recorded
	// How far it has come, while it runs. The total is an estimate; 0: nothing is copied.
	BytesDone    uint64 `json:"bytes_done"`
	BytesTotal   uint64 `json:"bytes_total"`
	ReplicasLeft uint64 `json:"replicas_left"` // on a node
	LeadersLeft  uint64 `json:"leaders_left"`
}

func operationOf(op *kiloraftpb.Operation) operationRecord {
	return operationRecord{ID: op.GetId(), Kind: op.GetKind(), Shard: op.GetShard(), From: op.GetFromNode(), To: op.GetToNode(), Node: op.GetNode(),
		Nodes: append([]uint64{}, op.GetNodes()...),
		State: op.GetState(), Progress: op.GetProgress(), Reason: op.GetReason(), BeganUnix: op.GetBeganUnix(), EndedUnix: op.GetEndedUnix(),
		BytesDone: op.GetBytesDone(), BytesTotal: op.GetBytesTotal(), ReplicasLeft: op.GetReplicasLeft(), LeadersLeft: op.GetLeadersLeft()}
}

// what is the operation in words.
func (r *operationRecord) what() string {
	if r.Node != 0 {
		return fmt.Sprintf("%s node %d", r.Kind, r.Node)
	}
	if r.Kind == "scatter" && len(r.Nodes) > 0 {
		nodes := slices.Sorted(slices.Values(r.Nodes))
		return fmt.Sprintf("scatter shard %d over nodes %s, led by node %d", r.Shard, strings.Trim(fmt.Sprint(nodes), "[]"), r.Nodes[0])
	}
	return replicaChange(r.Kind, r.Shard, r.From, r.To)
}

// replicaChange is a change of a shard's replicas in words.
func replicaChange(kind string, shard, from, to uint64) string {
	switch kind {
	case "add-replica":
		return fmt.Sprintf("add a replica of shard %d on node %d", shard, to)
	case "remove-replica":
		return fmt.Sprintf("remove the replica of shard %d on node %d", shard, from)
	case "move":
		return fmt.Sprintf("move shard %d from node %d to node %d", shard, from, to)
	}
	return fmt.Sprintf("%s shard %d", kind, shard)
}

// now is what there is to say of the operation's state.
func (r *operationRecord) now() string {
	switch {
	case r.Reason != "":
		return r.Reason
	case r.BytesDone > 0 && r.BytesDone < r.BytesTotal:
		return fmt.Sprintf("%s, %d%%", r.Progress, 100*r.BytesDone/r.BytesTotal)
	}
	return r.Progress
}

func operationTable(w io.Writer, records []operationRecord) error {
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{strconv.FormatUint(r.ID, 10), r.what(), r.State, sinceUnix(r.BeganUnix), sinceUnix(r.EndedUnix), r.now()})
	}
	return table(w, []string{"OPERATION", "WHAT", "STATE", "BEGAN", "ENDED", "NOW"}, rows)
}

// sinceUnix is how long ago a Unix time was; 0: it is not known.
func sinceUnix(seconds uint64) string {
	if seconds == 0 {
		return "–"
	}
	return ago(max(0, time.Since(time.Unix(int64(seconds), 0)).Seconds())) + " ago"
}

func (a *app) opsListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the last operation of each shard and node",
		Long:  "List the last operation of each shard and node: those under way, and how the others ended.",
		Example: `  kiloraft ops list
  kiloraft ops list -o json`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.operations(ctx, 0)
				if err != nil {
					return err
				}
				records := make([]operationRecord, 0, len(answer.GetOperations()))
				for _, op := range answer.GetOperations() {
					records = append(records, operationOf(op))
				}
				return a.print(records, func(w io.Writer) error { return operationTable(w, records) })
			})
		},
	}
}

// operationArgument reads an operation's ID.
func operationArgument(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, usagef("%q is not an operation's ID: a number from `kiloraft ops list`", text)
	}
	return id, nil
}

func (a *app) opsShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show an operation and what it waits for",
		Example: `  kiloraft ops show 1
  kiloraft ops show 1 -o json`,
		Args: takes(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := operationArgument(args[0])
			if err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				op, err := c.operation(ctx, id)
				if err != nil {
					return err
				}
				return a.printOperation(op, "")
			})
		},
	}
}

func (a *app) opsCancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Cancel an operation that is under way",
		Long: "Cancel an operation that is under way. What is half done is undone by placement; the shard goes on serving. One that is\n" +
			"past its joint change is refused: the shard is what was asked for, and the operation ends by itself in a moment.\n" +
			"Cancelling the decommissioning of a node has the node serve again; replicas that have left it do not come back by that.",
		Example: `  kiloraft ops cancel 1
  kiloraft ops cancel 1 -o json`,
		Args: takes(1, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := operationArgument(args[0])
			if err != nil {
				return err
			}
			return a.onCluster(cmd.Context(), func(ctx context.Context, c *cluster) error {
				answer, err := c.cancelOperation(ctx, id)
				if err != nil {
					return err
				}
				return a.printOperation(answer.GetOperation(), "")
			})
		},
	}
}

// printOperation prints an operation; done is what to say of one that is done.
func (a *app) printOperation(op *kiloraftpb.Operation, done string) error {
	r := operationOf(op)
	return a.print(r, func(w io.Writer) error {
		if done != "" {
			_, err := fmt.Fprintln(w, done)
			return err
		}
		text := fmt.Sprintf("operation %d: %s: %s", r.ID, r.what(), r.State)
		if now := r.now(); now != "" {
			text += ": " + now
		}
		_, err := fmt.Fprintln(w, text)
		return err
	})
}

// operationPause is between two looks at an operation that is waited for.
const operationPause = 200 * time.Millisecond

// showOperation shows how far an operation has come.
func (p *progress) showOperation(op *kiloraftpb.Operation) {
	text := fmt.Sprintf("operation %d: %s", op.GetId(), op.GetProgress())
	switch {
	case op.GetBytesTotal() > 0:
		p.show(stage{text: text, done: op.GetBytesDone(), total: op.GetBytesTotal(), unit: "bytes"})
	case op.GetKind() == "drain" && op.GetLeadersLeft() > 0:
		p.left(text, op.GetLeadersLeft(), "leaders")
	case op.GetKind() == "decommission" && op.GetReplicasLeft() > 0:
		p.left(text, op.GetReplicasLeft(), "replicas")
	default:
		p.show(stage{text: text})
	}
}

// follow waits until an operation has ended, shows on stderr how far it has come, and
// prints it in the end. Whoever stops waiting leaves the operation to itself.
func (a *app) follow(ctx context.Context, c *cluster, op *kiloraftpb.Operation, done string) error {
	id, shown := op.GetId(), a.newProgress()
	defer shown.clear()
	for {
		switch op.GetState() {
		case "done":
			shown.clear()
			return a.printOperation(op, done)
		case "failed":
			return fmt.Errorf("operation %d failed: %s", id, op.GetReason())
		case "cancelled":
			return fmt.Errorf("operation %d was cancelled", id)
		}
		shown.showOperation(op)
		select {
		case <-ctx.Done():
			return a.leftAlone(ctx, op)
		case <-time.After(operationPause):
		}
		next, err := c.operation(ctx, id)
		switch {
		case err == nil:
			op = next
		case errors.Is(err, errNoOperation):
			return fmt.Errorf("operation %d is over: it was cancelled, or another one has taken its place", id)
		case ctx.Err() != nil:
			return a.leftAlone(ctx, op)
		}
		// Any other failure is passing: the operation is recorded.
	}
}

// errNoOperation: only the last operation of each shard and node is kept.
var errNoOperation = errors.New("no operation")

// leftAlone says what becomes of an operation that is no longer waited for.
func (a *app) leftAlone(ctx context.Context, op *kiloraftpb.Operation) error {
	r := operationOf(op)
	return fmt.Errorf("%w, and operation %d goes on (%s): `kiloraft ops show %d` tells how far it has come, `kiloraft ops cancel %d` ends it",
		ctx.Err(), r.ID, r.now(), r.ID, r.ID)
}

func (c *cluster) operation(ctx context.Context, id uint64) (*kiloraftpb.Operation, error) {
	answer, err := c.operations(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(answer.GetOperations()) == 0 {
		return nil, fmt.Errorf("there is %w %d; `kiloraft ops list` shows the last one of each shard and node", errNoOperation, id)
	}
	return answer.GetOperations()[0], nil
}
