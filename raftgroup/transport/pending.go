package transport

import "fmt"

// pending holds the frames that wait for one node, in order. The last one is
// being filled. The owner serializes calls.
//
// Invariant: bytes is the sum of the lengths of all frames, and never exceeds
// bytesMax; every frame has at least one message.
type pending struct {
	bytesMax int // of all frames together
	frameMax int // above it the next message begins a new frame
	buffer   func() []byte

	frames []packedFrame
	head   int // frames[:head] are taken
	bytes  int
}

// packedFrame is a frame with its count of messages.
type packedFrame struct {
	bytes    []byte
	messages int
}

// add encodes a message of at most size bytes, or tells that it does not fit.
func (p *pending) add(size int, encode func([]byte) []byte) bool {
	if p.bytes+size+1 > p.bytesMax {
		return false
	}
	last := len(p.frames) - 1
	if last < p.head || len(p.frames[last].bytes)+size > p.frameMax {
		frame := append(p.buffer(), frameMessages)
		p.bytes++
		if len(p.frames) == cap(p.frames) && p.head > 0 {
			// Reuse the room of taken frames: a queue that never runs empty
			// must not grow.
			p.frames = p.frames[:copy(p.frames, p.frames[p.head:])]
			p.head = 0
		}
		p.frames = append(p.frames, packedFrame{bytes: frame})
		last = len(p.frames) - 1
	}
	f := &p.frames[last]
	before := len(f.bytes)
	f.bytes = encode(f.bytes)
	if added := len(f.bytes) - before; added < 0 || added > size {
		panic(fmt.Sprintf("a message was announced with at most %d bytes and encoded with %d", size, added))
	}
	f.messages++
	p.bytes += len(f.bytes) - before
	return true
}

// take removes the first frame; ok is false if nothing waits.
func (p *pending) take() (f packedFrame, ok bool) {
	if p.head == len(p.frames) {
		return packedFrame{}, false
	}
	f = p.frames[p.head]
	p.frames[p.head] = packedFrame{}
	p.head++
	p.bytes -= len(f.bytes)
	if p.head == len(p.frames) {
		p.frames, p.head = p.frames[:0], 0
	}
	return f, true
}

// empty tells whether nothing waits.
func (p *pending) empty() bool { return p.head == len(p.frames) }
