package sim

import (
	"time"

	pb "github.com/kiloraft/kiloraft/api/kiloraftpb"
	"github.com/kiloraft/kiloraft/node"
	"github.com/kiloraft/kiloraft/shard"
)

// ask carries a question from n to the node at an address, and its answer back.
// serve runs there, in a step; it calls answer once, with what is to run here.
// Instead lost runs here if nothing is heard within timeout. A question that is
// lost may have been carried out.
func (n *Node) ask(address string, timeout time.Duration, serve func(at *Node, answer func(func())), lost func(error)) {
	net, env := n.cluster.net, n.env
	over := false
	end := func(step func()) func() {
		return func() {
			if !over {
				over = true
				step()
			}
		}
	}
	net.in(env, timeout, "ask: timeout", end(func() { lost(errTimeout) }))
	at := net.at(address)
	if at == nil {
		net.in(env, net.latency(), "ask: refused", end(func() { lost(errRefused) }))
		return
	}
	if net.cut(n.Name, at.Name) {
		return
	}
	there := at.env
	net.in(there, net.latency(), "asked", func() {
		if at.env != there || !at.Serving() {
			return
		}
		serve(at, func(step func()) {
			if !net.cut(n.Name, at.Name) {
				net.in(env, net.latency(), "answered", end(step))
			}
		})
	})
}

// peerCalls is a node's way to ask others: the twin of the gRPC one.
type peerCalls Node

var _ node.Peers = (*peerCalls)(nil)

// Report implements node.Peers.
func (p *peerCalls) Report(address string, q node.ReportQuery, timeout time.Duration, done func(*pb.NodeReportResponse, error)) {
	(*Node)(p).ask(address, timeout, func(at *Node, answer func(func())) {
		r := at.node.Report(q)
		answer(func() { done(r, nil) })
	}, func(err error) { done(nil, err) })
}

// ChangeMembership implements node.Peers.
func (p *peerCalls) ChangeMembership(address string, m shard.MembershipChange, timeout time.Duration, done func(shard.Descriptor, error)) {
	(*Node)(p).ask(address, timeout, func(at *Node, answer func(func())) {
		at.node.ChangeMembership(m, func(d shard.Descriptor, err error) { answer(func() { done(d, err) }) })
	}, func(err error) { done(shard.Descriptor{}, err) })
}

// SplitShard implements node.Peers.
func (p *peerCalls) SplitShard(address string, s shard.Split, timeout time.Duration, done func(left, right shard.Descriptor, err error)) {
	(*Node)(p).ask(address, timeout, func(at *Node, answer func(func())) {
		at.node.SplitShard(s, func(left, right shard.Descriptor, err error) { answer(func() { done(left, right, err) }) })
	}, func(err error) { done(shard.Descriptor{}, shard.Descriptor{}, err) })
}

// TransferShard implements node.Peers.
func (p *peerCalls) TransferShard(address string, id shard.ID, to shard.ReplicaID, timeout time.Duration, done func(error)) {
	(*Node)(p).ask(address, timeout, func(at *Node, answer func(func())) {
		at.node.TransferShard(id, to, func(err error) { answer(func() { done(err) }) })
	}, done)
}
