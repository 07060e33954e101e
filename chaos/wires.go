package main

import (
	"fmt"
	"net"
	"sync"
)

// wires are the network of a cell: each node has a network namespace with one
// interface, whose other end is here.
//
//	10.55.N.1  this end of node N's wire      10.55.N.2  node N
//	10.55.100.N  the proxy in front of node N, here: its listener for those who dial N, and where
//	             connections to others seem to come from when N dialled them
//
// So nodes know each other by the last kind of address alone, and a route of node N says what
// becomes of every packet that it sends to one of them.
type wires struct {
	mu    sync.Mutex
	holes map[[2]int]int // how many faults want packets of the first node to the second lost
	down  map[int]int    // and a node's wire unplugged
}

func ownAddress(number int) string   { return fmt.Sprintf("10.55.%d.2", number) }
func frontAddress(number int) string { return fmt.Sprintf("10.55.100.%d", number) }
func wireName(number int) string     { return fmt.Sprintf("wire%d", number) }
func namespace(number int) string    { return fmt.Sprintf("node%d", number) }

// inNamespaces gives every node a network namespace, and connects it.
func (c *cluster) inNamespaces() error {
	c.wires = &wires{holes: map[[2]int]int{}, down: map[int]int{}}
	for _, n := range c.nodes {
		n.namespace = namespace(n.number)
		n.listen = net.JoinHostPort(ownAddress(n.number), peerPort)
		n.advertise = net.JoinHostPort(frontAddress(n.number), peerPort)
		if err := lay(n.number); err != nil {
			return err
		}
		front, err := net.Listen("tcp", n.advertise)
		if err != nil {
			return err
		}
		c.board.serve(n.number, front, func(from int) (net.Conn, error) {
			d := net.Dialer{}
			if from != outside {
				d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(frontAddress(from))}
			}
			return d.Dial("tcp", n.listen)
		}, c.neighbour)
	}
	return nil
}

// lay lays a node's wire.
func lay(number int) error {
	ns, wire := namespace(number), wireName(number)
	here := fmt.Sprintf("10.55.%d.1", number)
	for _, args := range [][]string{
		{"netns", "add", ns},
		{"link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", ns},
		{"address", "add", here + "/24", "dev", wire},
		{"address", "add", frontAddress(number) + "/32", "dev", "lo"},
		{"link", "set", wire, "up"},
		{"-n", ns, "link", "set", "lo", "up"},
		{"-n", ns, "address", "add", ownAddress(number) + "/24", "dev", "eth0"},
		{"-n", ns, "link", "set", "eth0", "up"},
		{"-n", ns, "route", "add", "default", "via", here},
	} {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// neighbour is the node that a connection comes from, or outside.
func (c *cluster) neighbour(conn net.Conn) int {
	host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	for _, n := range c.nodes {
		if host == ownAddress(n.number) {
			return n.number
		}
	}
	return outside
}

// dig has all packets of node from to node to lost; fill ends that.
func (w *wires) dig(from, to int) error { return w.hole(from, to, 1) }

func (w *wires) fill(from, to int) error { return w.hole(from, to, -1) }

func (w *wires) hole(from, to, more int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.holes[[2]int{from, to}]
	w.holes[[2]int{from, to}] += more
	verb := ""
	switch after := before + more; {
	case before == 0 && after > 0:
		verb = "add"
	case before > 0 && after == 0:
		verb = "del"
	default:
		return nil
	}
	return ip("-n", namespace(from), "route", verb, "blackhole", frontAddress(to)+"/32")
}

// unplug takes a node off the network; plug puts it back.
func (w *wires) unplug(number int) error { return w.pull(number, 1) }

func (w *wires) plug(number int) error { return w.pull(number, -1) }

func (w *wires) pull(number, more int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[number] += more
	state := "up"
	if w.down[number] > 0 {
		state = "down"
	}
	return ip("link", "set", wireName(number), state)
}
