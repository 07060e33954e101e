package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"
)

// line is a connection through a switchboard, from one party to another, and its far end.
type line struct {
	board     *switchboard
	near, far net.Conn
}

// call connects party 1 with node 2. The dialled node keeps its end.
func call(t *testing.T) *line {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := &line{board: newSwitchboard(2, rand.New(rand.NewPCG(1, 1)))}
	front, own := listen(), listen()
	t.Cleanup(func() { _ = own.Close() })
	l.board.serve(2, front, func(int) (net.Conn, error) { return net.Dial("tcp", own.Addr().String()) }, func(net.Conn) int { return 1 })
	t.Cleanup(l.board.close)
	near, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := own.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.near, l.far = near, far
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return l
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hears waits for a text.
func hears(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("heard %q, %v; want %q", got, err, text)
	}
}

// hearsNothing looks whether something comes that should not.
func hearsNothing(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("heard %d bytes, %v", n, err)
	}
}

// What is sent over a way that is cut in one direction arrives when it is mended; the other
// direction is not concerned.
func TestOneWayCutHoldsWhatIsSent(t *testing.T) {
	l := call(t)
	send(t, l.near, "before")
	hears(t, l.far, "before")
	mend := l.board.cut([]pair{{1, 2}})
	again := l.board.cut([]pair{{1, 2}}) // by another fault
	send(t, l.near, "held")
	hearsNothing(t, l.far)
	send(t, l.far, "back")
	hears(t, l.near, "back")
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	hearsNothing(t, l.far)
	if err := again(); err != nil {
		t.Fatal(err)
	}
	hears(t, l.far, "held")
}

// The end of a connection crosses a cut as little as its bytes do.
func TestEndOfAConnectionDoesNotCrossACut(t *testing.T) {
	l := call(t)
	mend := l.board.cut([]pair{{1, 2}})
	_ = l.near.Close()
	hearsNothing(t, l.far)
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	_ = l.far.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := l.far.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection has not ended: %v", err)
	}
}

func TestDelayHoldsEveryPiece(t *testing.T) {
	l := call(t)
	const by = 150 * time.Millisecond
	mend := l.board.spoil([]pair{{1, 2}}, func(w *way, times int) { w.delay += time.Duration(times) * by })
	sent := time.Now()
	send(t, l.near, "late")
	hears(t, l.far, "late")
	if took := time.Since(sent); took < by {
		t.Errorf("it took %v", took)
	}
	if err := mend(); err != nil {
		t.Fatal(err)
	}
	if w := l.board.ways[1][2]; w != (way{}) {
		t.Errorf("the way is left as %+v", w)
	}
}

// On a way that loses everything a connection breaks, at both ends, sooner or later.
func TestLossBreaksConnections(t *testing.T) {
	l := call(t)
	l.board.spoil([]pair{{1, 2}}, func(w *way, times int) { w.loss += float64(times) })
	send(t, l.near, "lost")
	for _, end := range []net.Conn{l.near, l.far} {
		_ = end.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := end.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection lives: %v", err)
		}
	}
}

// On loopback it is the owner of its other end that says whom a connection comes from.
func TestOwnerOfALoopbackConnection(t *testing.T) {
	l := call(t)
	inode := socketInode(l.near.LocalAddr().(*net.TCPAddr), l.near.RemoteAddr().(*net.TCPAddr))
	if inode == "" || !hasSocket(os.Getpid(), inode) {
		t.Errorf("socket %q is not this process's", inode)
	}
	if hasSocket(os.Getppid(), inode) {
		t.Error("it is the parent's, too")
	}
}
