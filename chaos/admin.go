package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// commandPatience is how much longer than its own --timeout a command may take.
const commandPatience = 20 * time.Second

// kiloraft runs a command on the cluster, as an operator does, and decodes its JSON
// document into v, if v is not nil.
func (c *cluster) kiloraft(ctx context.Context, timeout time.Duration, v any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout+commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.binary, append(args, "--timeout", timeout.String(), "-o", "json",
		"--certs-dir", c.certs, "--client", chaosClient, "--endpoints", strings.Join(c.endpoints(), ","))...)
	cmd.Env = withoutFlags(os.Environ())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	cmd.WaitDelay = time.Second
	err := c.starter.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if v != nil && stdout.Len() > 0 {
		if jsonErr := json.Unmarshal(stdout.Bytes(), v); err == nil {
			err = jsonErr
		}
	}
	if err != nil {
		return fmt.Errorf("kiloraft %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// withoutFlags drops the variables that stand for flags.
func withoutFlags(environ []string) []string {
	var kept []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "KILORAFT_") {
			kept = append(kept, e)
		}
	}
	return kept
}

// The records of the commands' answers, as far as they are of use here.

type status struct {
	Healthy         bool     `json:"healthy"`
	Nodes           int      `json:"nodes"`
	NodesLive       int      `json:"nodes_live"`
	Shards          int      `json:"shards"`
	UnderReplicated int      `json:"under_replicated"`
	Leaderless      int      `json:"leaderless"`
	Problems        []string `json:"problems"`
	Members         []member `json:"node_details"`
}

type member struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	Live    bool   `json:"live"`
	State   string `json:"state"`
}

type shardRecord struct {
	ID       uint64 `json:"id"`
	Keyspace string `json:"keyspace"`
	Start    string `json:"start"` // as text; "": of the keyspace
	End      string `json:"end"`
	Leader   uint64 `json:"leader"`
	Replicas []struct {
		Node uint64 `json:"node"`
		Role string `json:"role"`
	} `json:"replicas"`
}

func (s *shardRecord) has(node uint64) bool {
	for _, r := range s.Replicas {
		if r.Node == node {
			return true
		}
	}
	return false
}

type checkRecord struct {
	Shard   uint64 `json:"shard"`
	Verdict string `json:"verdict"`
	Error   string `json:"error"`
}

func (c *cluster) status(ctx context.Context, timeout time.Duration) (s status, err error) {
	err = c.kiloraft(ctx, timeout, &s, "status")
	return s, err
}

func (c *cluster) members(ctx context.Context, timeout time.Duration) (all []member, err error) {
	err = c.kiloraft(ctx, timeout, &all, "node", "list")
	return all, err
}

func (c *cluster) shards(ctx context.Context, timeout time.Duration) (all []shardRecord, err error) {
	err = c.kiloraft(ctx, timeout, &all, "shard", "list")
	return all, err
}

// newest is the member that a node is now: with each lost store it becomes another one
// at the same address. 0: it is none.
func newest(all []member, address string) (id uint64) {
	for _, m := range all {
		if m.Address == address {
			id = max(id, m.ID)
		}
	}
	return id
}

// ghosts are the members that the nodes were, and are no more.
func (c *cluster) ghosts(all []member) (ids []uint64) {
	for _, m := range all {
		if m.ID != newest(all, m.Address) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}
