package transport

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// The first byte of every frame between nodes says what it holds.
const (
	frameHello         byte = 1 // sender to acceptor, first on each stream
	frameGreeting      byte = 2 // acceptor to sender, in answer
	frameRefusal       byte = 3 // acceptor to sender, instead of a greeting
	frameMessages      byte = 4 // concatenated messages of package raftgroup
	frameSnapshotHead  byte = 5
	frameSnapshotChunk byte = 6
	frameSnapshotEnd   byte = 7 // counts of chunks and bytes
	frameSnapshotTaken byte = 8 // acceptor to sender: all of it is here
	frameSnapshotReady byte = 9 // acceptor to sender: there is room for it
)

const (
	handshakeFormat = 1
	// helloBytesMax bounds a hello, greeting or refusal.
	helloBytesMax = 4 << 10
	// addressBytesMax bounds an advertised address.
	addressBytesMax = 1 << 10
	// refusalTextBytesMax bounds the words of a refusal.
	refusalTextBytesMax = 1 << 10
)

// hello is how a node introduces itself on each stream that it opens.
type hello struct {
	Cluster     shard.ClusterID
	Node        shard.NodeID
	Incarnation uint64
	Process     uint64       // random, drawn by each process at start
	Target      shard.NodeID // whom the sender believes to be talking to
	Address     string       // where the sender is reached; "" if unknown
}

// greeting is the acceptor's answer.
type greeting struct {
	Cluster     shard.ClusterID
	Node        shard.NodeID
	Incarnation uint64
	Process     uint64
}

func appendHello(b []byte, h *hello) []byte {
	b = append(b, frameHello, handshakeFormat)
	b = append(b, h.Cluster[:]...)
	b = binary.AppendUvarint(b, uint64(h.Node))
	b = binary.AppendUvarint(b, h.Incarnation)
	b = binary.AppendUvarint(b, h.Process)
	b = binary.AppendUvarint(b, uint64(h.Target))
	b = binary.AppendUvarint(b, uint64(len(h.Address)))
	return append(b, h.Address...)
}

func decodeHello(b []byte) (hello, error) {
	d := decoder{b: b}
	var h hello
	d.expect(frameHello)
	d.expect(handshakeFormat)
	copy(h.Cluster[:], d.take(len(h.Cluster)))
	h.Node = shard.NodeID(d.uvarint())
	h.Incarnation = d.uvarint()
	h.Process = d.uvarint()
	h.Target = shard.NodeID(d.uvarint())
	h.Address = d.text(addressBytesMax)
	return h, d.done("hello")
}

func appendGreeting(b []byte, g *greeting) []byte {
	b = append(b, frameGreeting, handshakeFormat)
	b = append(b, g.Cluster[:]...)
	b = binary.AppendUvarint(b, uint64(g.Node))
	b = binary.AppendUvarint(b, g.Incarnation)
	return binary.AppendUvarint(b, g.Process)
}

// decodeAnswer reads the acceptor's first frame: a greeting, or a refusal,
// which it returns as a *RefusedError.
func decodeAnswer(b []byte) (greeting, error) {
	if len(b) > 0 && b[0] == frameRefusal {
		refused, err := decodeRefusal(b)
		if err != nil {
			return greeting{}, err
		}
		return greeting{}, refused
	}
	d := decoder{b: b}
	var g greeting
	d.expect(frameGreeting)
	d.expect(handshakeFormat)
	copy(g.Cluster[:], d.take(len(g.Cluster)))
	g.Node = shard.NodeID(d.uvarint())
	g.Incarnation = d.uvarint()
	g.Process = d.uvarint()
	return g, d.done("greeting")
}

func appendRefusal(b []byte, r *RefusedError) []byte {
	text := r.Text[:min(len(r.Text), refusalTextBytesMax)]
	b = append(b, frameRefusal, handshakeFormat, byte(r.Reason))
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

func decodeRefusal(b []byte) (*RefusedError, error) {
	d := decoder{b: b}
	var r RefusedError
	d.expect(frameRefusal)
	d.expect(handshakeFormat)
	if reason := d.take(1); reason != nil {
		r.Reason = Reason(reason[0])
	}
	r.Text = d.text(refusalTextBytesMax)
	return &r, d.done("refusal")
}

// appendSnapshotHead appends the first frame of a snapshot after the hello.
func appendSnapshotHead(b, header []byte, large bool) []byte {
	flag := byte(0)
	if large {
		flag = 1
	}
	return append(append(b, frameSnapshotHead, flag), header...)
}

// decodeSnapshotHead reads what appendSnapshotHead wrote. header aliases b.
func decodeSnapshotHead(b []byte) (header []byte, large bool, err error) {
	if len(b) < 2 || b[0] != frameSnapshotHead || b[1] > 1 {
		return nil, false, fmt.Errorf("%w: a snapshot without a header", shard.ErrMalformed)
	}
	return b[2:], b[1] == 1, nil
}

// appendSnapshotEnd appends the frame that ends a snapshot.
func appendSnapshotEnd(b []byte, chunks, bytes uint64) []byte {
	b = append(b, frameSnapshotEnd)
	b = binary.AppendUvarint(b, chunks)
	return binary.AppendUvarint(b, bytes)
}

func decodeSnapshotEnd(b []byte) (chunks, bytes uint64, err error) {
	d := decoder{b: b}
	d.expect(frameSnapshotEnd)
	chunks, bytes = d.uvarint(), d.uvarint()
	return chunks, bytes, d.done("end of a snapshot")
}

// decoder reads fields one after another. Once one is bad, the others are zero.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.b, d.bad = nil, true
		return nil
	}
	field := d.b[:n]
	d.b = d.b[n:]
	return field
}

func (d *decoder) expect(want byte) {
	if field := d.take(1); field == nil || field[0] != want {
		d.b, d.bad = nil, true
	}
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) text(bytesMax uint64) string {
	n := d.uvarint()
	if n > bytesMax {
		d.b, d.bad = nil, true
		return ""
	}
	return string(d.take(int(n)))
}

func (d *decoder) done(what string) error {
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: not a %s of a peer", shard.ErrMalformed, what)
	}
	return nil
}
