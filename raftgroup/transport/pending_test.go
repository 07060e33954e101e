package transport

import (
	"bytes"
	"testing"
)

func newPending(bytesMax, frameMax int) *pending {
	return &pending{bytesMax: bytesMax, frameMax: frameMax, buffer: func() []byte { return nil }}
}

func filler(n int) (int, func([]byte) []byte) {
	return n, func(b []byte) []byte { return append(b, make([]byte, n)...) }
}

// TestPendingPacks: messages share a frame up to its size; a larger one goes alone.
func TestPendingPacks(t *testing.T) {
	p := newPending(1000, 100)
	for _, size := range []int{30, 30, 30, 30, 500, 1} {
		if !p.add(filler(size)) {
			t.Fatalf("%d bytes did not fit", size)
		}
	}
	var got []packedFrame
	for f, ok := p.take(); ok; f, ok = p.take() {
		if f.bytes[0] != frameMessages {
			t.Errorf("a frame begins with %d", f.bytes[0])
		}
		got = append(got, f)
	}
	want := []struct{ bytes, messages int }{{91, 3}, {31, 1}, {501, 1}, {2, 1}}
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i, w := range want {
		if len(got[i].bytes) != w.bytes || got[i].messages != w.messages {
			t.Errorf("frame %d has %d bytes and %d messages, want %+v", i, len(got[i].bytes), got[i].messages, w)
		}
	}
	if !p.empty() || p.bytes != 0 {
		t.Errorf("%d bytes are left", p.bytes)
	}
}

// TestPendingBound: the bound holds to the byte, and is free again after take.
func TestPendingBound(t *testing.T) {
	p := newPending(100, 10)
	if p.add(filler(100)) {
		t.Error("100 bytes and the frame's own fitted into 100")
	}
	if !p.add(filler(99)) || p.bytes != 100 {
		t.Errorf("99 bytes did not fit, or count as %d", p.bytes)
	}
	if p.add(filler(0)) {
		t.Error("a full queue took a message")
	}
	p.take()
	if p.bytes != 0 || !p.add(filler(99)) {
		t.Error("the room was not given back")
	}
}

// TestPendingNeverEmpty: a queue that is never drained keeps its memory bounded
// and its order.
func TestPendingNeverEmpty(t *testing.T) {
	p := newPending(1<<20, 1)
	add := func(i int) {
		p.add(2, func(b []byte) []byte { return append(b, byte(i>>8), byte(i)) })
	}
	for i := range 3 {
		add(i)
	}
	for i := 3; i < 10_000; i++ {
		add(i)
		f, ok := p.take()
		if want := []byte{frameMessages, byte((i - 3) >> 8), byte(i - 3)}; !ok || !bytes.Equal(f.bytes, want) {
			t.Fatalf("took %v, want %v", f.bytes, want)
		}
	}
	if cap(p.frames) > 64 {
		t.Errorf("3 waiting frames take room for %d", cap(p.frames))
	}
}

func TestPendingLyingEncoder(t *testing.T) {
	for _, encode := range []func([]byte) []byte{
		func(b []byte) []byte { return append(b, 1, 2, 3) },
		func(b []byte) []byte { return nil },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("an encoder that broke its word went unnoticed")
				}
			}()
			newPending(100, 100).add(2, encode)
		}()
	}
}
