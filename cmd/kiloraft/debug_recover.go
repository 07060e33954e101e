package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/server"
	"github.com/kiloraft/kiloraft/shard"
)

// recoveryWord is what one types to go on.
const recoveryWord = "recover"

// recoveryRecord is the recovery of a shard, as JSON.
type recoveryRecord struct {
	Shard          uint64          `json:"shard"`
	Keyspace       string          `json:"keyspace"`
	Start          string          `json:"start"`
	End            string          `json:"end"`
	Epoch          epochRecord     `json:"epoch"`
	NewEpoch       epochRecord     `json:"new_epoch"`
	Replica        uint64          `json:"replica"` // that is left
	Role           string          `json:"role"`
	NewReplica     uint64          `json:"new_replica"`
	Applied        uint64          `json:"applied_index"`
	AppliedTerm    uint64          `json:"applied_term"`
	Committed      uint64          `json:"committed_index"` // as far as the replica knows
	Last           uint64          `json:"last_index"`
	LastTerm       uint64          `json:"last_term"`
	NotCommitted   uint64          `json:"entries_not_known_committed"`
	Revision       uint64          `json:"last_revision"`
	Lost           []replicaRecord `json:"lost"`
	Others         []replicaRecord `json:"others"` // not said to be lost; removed too
	MajorityIsLeft bool            `json:"majority_may_be_left"`
	// UnappliedSplit is in the log and makes this store no base for the recovery.
	UnappliedSplit *splitEntryRecord `json:"unapplied_split,omitempty"`
	Recovered      bool              `json:"recovered"`

	refusal error
}

// splitEntryRecord is a split that waits in a log, as JSON.
type splitEntryRecord struct {
	Index    uint64 `json:"index"`
	Key      string `json:"key"`
	NewShard uint64 `json:"new_shard"`
}

func recoveryOf(p *node.Recovery) recoveryRecord {
	r := recoveryRecord{Shard: uint64(p.Before.ID), Keyspace: "user", Start: shard.FormatKey(p.Before.Span.Start), End: shard.FormatKey(p.Before.Span.End),
		Epoch:    epochRecord{p.Before.Epoch.Version, p.Before.Epoch.ConfVersion},
		NewEpoch: epochRecord{p.After.Epoch.Version, p.After.Epoch.ConfVersion},
		Replica:  uint64(p.Old.ID), Role: p.Old.Role.String(), NewReplica: uint64(p.New),
		Applied: p.Applied, AppliedTerm: p.AppliedTerm, Committed: p.Committed, Last: p.Last, LastTerm: p.LastTerm,
		NotCommitted: p.Last - p.Committed, Revision: uint64(p.LastRevision),
		Lost: replicaRecords(p.Gone), Others: replicaRecords(p.Others), MajorityIsLeft: p.Majority, refusal: p.Refusal()}
	if s := p.Unapplied; s != nil {
		r.UnappliedSplit = &splitEntryRecord{s.Index, shard.FormatKey(s.Key), uint64(s.Right)}
	}
	if p.Before.ID == shard.MetaID {
		r.Keyspace = "system"
	}
	return r
}

func replicaRecords(rs []shard.Replica) []replicaRecord {
	out := []replicaRecord{}
	for _, r := range rs {
		out = append(out, replicaRecord{uint64(r.Node), uint64(r.ID), r.Role.String()})
	}
	return out
}

// recoverFlags are those of debug recover.
type recoverFlags struct {
	store            string
	lost             []uint
	shards           []uint
	yes, force, look bool
}

func (a *app) debugRecoverCommand() *cobra.Command {
	var f recoverFlags
	cmd := &cobra.Command{
		Use:   "recover --store DIR --lost NODE",
		Short: "Make shards that have lost their majority for ever serve again, with what one store has",
		Long: "Make shards serve again of whose voters a majority is lost for ever, with the replica in the store of a\n" +
			"stopped node. The replica becomes its shard's only voter and serves what it has; placement adds others later.\n" +
			"Writes that were acknowledged by the lost replicas and had not reached this one are lost, and writes that were\n" +
			"never acknowledged may appear. Recover a shard from one store only, and see to it that the lost nodes never\n" +
			"run again: those that meet a recovered one delete what they have, and two that do not meet it may go on as\n" +
			"if nothing had happened. Nothing is done while something answers at the address of a lost node, unless it says\n" +
			"that it is another one; to ask it over TLS give --certs-dir. A replica that has not applied a split which is in\n" +
			"its log is no base for a recovery; a store in which the shard's epoch has a higher version is. If the shard's\n" +
			"epoch in the cluster's directory (kiloraft shard list) has a higher version than here, it was split since:\n" +
			"recovered from here nobody would find it.",
		Example: `  kiloraft debug recover --store ./n3 --lost 1 --lost 2 --dry-run
  kiloraft debug recover --store ./n3 --lost 1 --lost 2`,
		Args: takes(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.recover(cmd.Context(), &f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.store, "store", "", "`DIR` of the stopped node whose replicas are left")
	flags.UintSliceVar(&f.lost, "lost", nil, "`NODE` that is gone for good, with its disk; may be repeated")
	flags.UintSliceVar(&f.shards, "shard", nil, "recover this shard `ID` only; may be repeated (default: all that have lost their majority)")
	flags.BoolVar(&f.look, "dry-run", false, "say what would be done, and do nothing")
	flags.BoolVar(&f.yes, "yes", false, "do not ask")
	flags.BoolVar(&f.force, "force", false, "also if a majority may still be there, or something answers at the address of a lost node")
	return cmd
}

func (a *app) recover(ctx context.Context, f *recoverFlags) (err error) {
	switch {
	case f.store == "":
		return usagef("--store is missing: the folder of the stopped node's data")
	case len(f.lost) == 0:
		return usagef("--lost is missing: the nodes that are gone for good")
	case f.force && len(f.shards) == 0:
		return usagef("--force needs --shard: which shards to recover although a majority may be left")
	}
	store, err := server.OpenOffline(f.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var gone []shard.NodeID
	for _, n := range f.lost {
		gone = append(gone, shard.NodeID(n))
	}
	plans, err := choosePlans(store, f, gone)
	if err != nil {
		return err
	}
	creds, err := a.credentials()
	if err != nil {
		return err
	}
	answering, err := store.Answering(ctx, gone, creds)
	if err != nil {
		return err
	}
	if len(answering) > 0 && !f.force {
		return fmt.Errorf("nothing was done: there is an answer from %s, so it is not lost; stop what runs there for good, or give --force", strings.Join(answering, ", "))
	}
	id, err := store.Identity()
	if err != nil {
		return err
	}
	records := make([]recoveryRecord, 0, len(plans))
	for i := range plans {
		records = append(records, recoveryOf(&plans[i]))
	}
	writeRecovery(a.stderr, uint64(id.Node), records)
	if f.look {
		return a.print(records, func(io.Writer) error { return nil })
	}
	if err := refused(records); err != nil {
		return err
	}
	if !f.yes && !a.confirmed() {
		return errors.New("nothing was done: it was not confirmed")
	}
	if err := store.Recover(ctx, plans); err != nil {
		return err
	}
	for i := range records {
		records[i].Recovered = true
	}
	return a.print(records, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s recovered; start node %d\n", shardsText(len(records)), id.Node)
		return err
	})
}

func shardsText(n int) string {
	if n == 1 {
		return "1 shard"
	}
	return count(uint64(n)) + " shards"
}

// choosePlans takes the shards that were named, or all that have lost their majority.
func choosePlans(store *server.Offline, f *recoverFlags, gone []shard.NodeID) ([]node.Recovery, error) {
	all, err := store.PlanRecovery(gone)
	if err != nil {
		return nil, err
	}
	var plans []node.Recovery
	for _, p := range all {
		switch named := slices.Contains(f.shards, uint(p.Before.ID)); {
		case len(f.shards) > 0 && !named:
		case !p.Majority || f.force:
			plans = append(plans, p)
		case named:
			return nil, fmt.Errorf("nothing was done: shard %d may have a majority still: of its replicas those on nodes %s are not said to be lost; start them, or give --force",
				p.Before.ID, replicasText(replicaRecords(append(slices.Clone(p.Others), p.Old))))
		}
	}
	for _, id := range f.shards {
		if !slices.ContainsFunc(plans, func(p node.Recovery) bool { return uint(p.Before.ID) == id }) {
			return nil, fmt.Errorf("nothing was done: the store has no replica of shard %d that could be recovered", id)
		}
	}
	if len(plans) == 0 {
		return nil, fmt.Errorf("nothing was done: none of the %s in the store has lost its majority with these nodes", shardsText(len(all)))
	}
	return plans, nil
}

// refused says why nothing is done if one of the shards cannot be recovered from the
// store, and how the others are; nil: all can.
func refused(records []recoveryRecord) error {
	var why []error
	var others []string
	for _, r := range records {
		if r.refusal != nil {
			why = append(why, r.refusal)
		} else {
			others = append(others, number(r.Shard))
		}
	}
	switch {
	case len(why) == 0:
		return nil
	case len(others) > 0:
		why = append(why, fmt.Errorf("to recover the others only, give --shard %s", strings.Join(others, ",")))
	}
	return fmt.Errorf("nothing was done: %w", errors.Join(why...))
}

// writeRecovery says what will be done and what may be lost by it.
func writeRecovery(w io.Writer, self uint64, records []recoveryRecord) {
	recoverable := 0
	for _, r := range records {
		if r.refusal == nil {
			recoverable++
		}
	}
	if recoverable > 0 {
		fmt.Fprintf(w, "node %d becomes the only voter of %s. For each of them:\n"+
			"  what the lost replicas had acknowledged above LAST INDEX is lost;\n"+
			"  the entries NOT KNOWN COMMITTED will be committed, whether they had been acknowledged or not;\n"+
			"  the replicas that are given up delete their data if they ever come back.\n\n", self, shardsText(recoverable))
	}
	var rows [][]string
	for _, r := range records {
		rows = append(rows, []string{number(r.Shard), r.Keyspace, fmt.Sprintf("%d.%d", r.Epoch.Version, r.Epoch.ConfVersion), r.Role, number(r.Applied), number(r.Last), number(r.LastTerm), number(r.NotCommitted), number(r.Revision),
			given(r.Lost), given(r.Others)})
	}
	_ = table(w, []string{"SHARD", "KEYSPACE", "EPOCH", "ROLE HERE", "APPLIED", "LAST INDEX", "LAST TERM", "NOT KNOWN COMMITTED", "LAST REVISION", "LOST", "ALSO GIVEN UP"}, rows)
	for _, r := range records {
		if r.Keyspace == "system" {
			fmt.Fprint(w, "\nshard 1 is the meta shard: IDs of nodes and shards, and revisions, will jump ahead.\n")
		}
		if r.refusal != nil {
			fmt.Fprintf(w, "\nNOT FROM THIS STORE: %v\n", r.refusal)
		}
		if len(r.Others) > 0 {
			fmt.Fprintf(w, "\nshard %d has replicas on nodes that are not said to be lost: %s. If one of them has a later LAST TERM, or the\n"+
				"same and a larger LAST INDEX (look with --dry-run there), recover from that one instead.\n", r.Shard, replicasText(r.Others))
		}
		if r.MajorityIsLeft {
			fmt.Fprintf(w, "\nshard %d MAY STILL HAVE A MAJORITY. If those replicas run, it will be served twice, differently.\n", r.Shard)
		}
	}
	fmt.Fprintln(w)
}

// given names replicas that are given up, and their nodes.
func given(rs []replicaRecord) string {
	var texts []string
	for _, r := range rs {
		texts = append(texts, fmt.Sprintf("%d on node %d", r.Replica, r.Node))
	}
	if len(texts) == 0 {
		return "–"
	}
	return strings.Join(texts, ", ")
}

// confirmed asks, and tells whether the answer was the word.
func (a *app) confirmed() bool {
	fmt.Fprintf(a.stderr, "Type %q to go on: ", recoveryWord)
	line, _ := bufio.NewReader(a.stdin).ReadString('\n')
	return strings.TrimSpace(line) == recoveryWord
}
