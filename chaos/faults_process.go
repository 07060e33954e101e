package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// processFaults are what happens to processes and their disks.
var processFaults = []fault{
	{kind: "kill", least: 200 * time.Millisecond, most: 4 * time.Second, inflict: kill},
	{kind: "kill-all", least: 100 * time.Millisecond, most: time.Second, inflict: killAll},
	// Past an election, with which others go on; the one that was paused knows nothing of it.
	{kind: "pause", least: 2 * time.Second, most: 4 * time.Second, inflict: pause},
	// Past everything: elections, the time after which a node counts as dead, and the
	// 15 s in which connections that say nothing are given up.
	{kind: "long-pause", least: 16 * time.Second, most: 18 * time.Second, aside: true, inflict: pause},
	{kind: "full-disk", least: 3 * time.Second, most: 5 * time.Second, cell: true, inflict: fillDisk},
	{kind: "lost-disk", least: 500 * time.Millisecond, most: time.Second, aside: true, inflict: loseDisk},
	{kind: "rolling", least: 0, most: 0, inflict: restartInTurn},
}

func kill(f *fire, rnd *rand.Rand) (string, func() error, error) {
	victims, err := f.take(rnd, 1, nil)
	if err != nil {
		return "", nil, err
	}
	f.stop(victims[0], syscall.SIGKILL)
	return fmt.Sprintf("node %d gets SIGKILL", victims[0].number), func() error {
		defer giveBack(victims)
		return f.start(victims[0])
	}, nil
}

// killAll kills whoever is not busy with something else.
func killAll(f *fire, rnd *rand.Rand) (string, func() error, error) {
	var victims []*node
	for _, n := range f.nodes {
		if n.occupy() {
			victims = append(victims, n)
		}
	}
	var killing sync.WaitGroup
	for _, n := range victims {
		killing.Go(func() { f.stop(n, syscall.SIGKILL) })
	}
	killing.Wait()
	return fmt.Sprintf("nodes %s get SIGKILL at once", numbers(victims)), func() error {
		defer giveBack(victims)
		var errs []error
		for _, n := range victims {
			errs = append(errs, f.start(n))
		}
		return errors.Join(errs...)
	}, nil
}

func pause(f *fire, rnd *rand.Rand) (string, func() error, error) {
	victims, err := f.take(rnd, 1, nil)
	if err != nil {
		return "", nil, err
	}
	victims[0].signal(syscall.SIGSTOP)
	return fmt.Sprintf("node %d gets SIGSTOP, SIGCONT later", victims[0].number), func() error {
		defer giveBack(victims)
		victims[0].signal(syscall.SIGCONT)
		return nil
	}, nil
}

// fillDisk fills a node's file system to the last byte. The node ends, as it must when
// a write fails, and is started when there is room again.
func fillDisk(f *fire, rnd *rand.Rand) (string, func() error, error) {
	victims, err := f.take(rnd, 1, func(n *node) bool { return n.smallDisk })
	if err != nil {
		return "", nil, err
	}
	n := victims[0]
	n.allow(true)
	ballast := filepath.Join(n.store, "ballast")
	if err := fill(ballast); err != nil {
		giveBack(victims)
		return "", nil, err
	}
	return fmt.Sprintf("the disk of node %d is full", n.number), func() error {
		defer giveBack(victims)
		if err := os.Remove(ballast); err != nil {
			return err
		}
		if !n.runs() {
			f.say("%-10s node %d had ended", "", n.number)
		}
		// One that has just met the full disk is still ending.
		f.stop(n, syscall.SIGKILL)
		n.allow(false)
		return f.start(n)
	}, nil
}

// fill writes a file until nothing more can be written.
func fill(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err == nil {
			continue
		} else if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		size /= 2
	}
	return nil
}

// rejoinPatience is how long a node that lost its disk may take to be one of the
// cluster again, whatever happens meanwhile.
const rejoinPatience = 60 * time.Second

// loseDisk kills a node and empties its store. It joins as a new member, and the one
// that it was is taken off the list. No other disk is lost before all that was on it has
// been rebuilt: a majority of the replicas of a shard would be gone.
func loseDisk(f *fire, rnd *rand.Rand) (string, func() error, error) {
	if !f.disks.TryLock() {
		return "", nil, errBusy
	}
	victims, err := f.take(rnd, 1, nil)
	if err != nil {
		f.disks.Unlock()
		return "", nil, err
	}
	n := victims[0]
	f.stop(n, syscall.SIGKILL)
	if err := empty(n.store); err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("node %d gets SIGKILL, loses its store and joins as a new one", n.number), func() error {
		defer f.disks.Unlock()
		defer giveBack(victims)
		return f.rejoin(n)
	}, nil
}

// empty removes all that is in a folder.
func empty(folder string) error {
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(folder, e.Name())))
	}
	return err
}

// rejoin starts a node that has no store until it is a member, and waits until nothing is
// left on the one that it was. What does not succeed because of other faults is left to the end
// of the run.
func (f *fire) rejoin(n *node) error {
	n.allow(true) // it gives up joining when nobody answers
	deadline := time.Now().Add(rejoinPatience)
	for time.Now().Before(deadline) && !f.verdict.failed() {
		if err := f.start(n); err != nil {
			return err
		}
		if f.settleGhosts(n) {
			n.allow(false)
			return nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}

// settleGhosts has the members decommissioned that a node was, and tells whether it
// is a member and they are gone.
func (c *cluster) settleGhosts(n *node) bool {
	const patience = 5 * time.Second
	ctx := context.Background()
	all, err := c.members(ctx, patience)
	if err != nil {
		return false
	}
	now := newest(all, n.advertise)
	joined := slices.ContainsFunc(all, func(m member) bool { return m.ID == now && m.Live })
	gone := true
	for _, m := range all {
		if m.Address == n.advertise && m.ID != now {
			gone = c.kiloraft(ctx, patience, nil, "node", "decommission", fmt.Sprint(m.ID)) == nil && gone
		}
	}
	return joined && gone
}

// restartInTurn stops and starts every node that is not busy, one after the other; about half
// of them are drained before.
func restartInTurn(f *fire, rnd *rand.Rand) (string, func() error, error) {
	order, drained := rnd.Perm(len(f.nodes)), rnd.Uint64()
	return fmt.Sprintf("all nodes are restarted in turn, beginning with node %d", f.nodes[order[0]].number), func() error {
		for k, i := range order {
			n := f.nodes[i]
			if f.ctx.Err() != nil || !n.occupy() {
				continue
			}
			if drained>>k&1 == 1 {
				f.drain(n) // whether it succeeds or not
			}
			f.stop(n, syscall.SIGTERM)
			err := f.start(n)
			f.awaitLive(n)
			giveBack([]*node{n})
			if err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// drain has a node's leaders leave.
func (f *fire) drain(n *node) {
	all, err := f.members(f.ctx, 2*time.Second)
	if id := newest(all, n.advertise); err == nil && id != 0 {
		_ = f.kiloraft(f.ctx, 5*time.Second, nil, "node", "drain", fmt.Sprint(id))
	}
}

// awaitLive waits a while for a node to answer.
func (f *fire) awaitLive(n *node) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && f.ctx.Err() == nil; {
		all, err := f.members(f.ctx, 2*time.Second)
		id := newest(all, n.advertise)
		if err == nil && slices.ContainsFunc(all, func(m member) bool { return m.ID == id && m.Live }) {
			return
		}
		f.sleep(100 * time.Millisecond)
	}
}
