package clienttest

import (
	"sync"
	"time"

	"github.com/kiloraft/kiloraft/client"
	"github.com/kiloraft/kiloraft/shard"
)

// Direct connects clients of the real environment with a Cluster in the same
// process, without a network between them. It implements client.Dialer and is
// safe for concurrent use.
type Direct struct {
	Cluster *Cluster
	running sync.WaitGroup
}

// Info implements client.Dialer.
func (d *Direct) Info(address string, _ time.Duration, done func(client.Info, error)) {
	node, ok := d.node(address)
	if !ok {
		done(client.Info{}, errRefused)
		return
	}
	done(d.Cluster.Info(node), nil)
}

func (d *Direct) node(address string) (shard.NodeID, bool) {
	for i := range d.Cluster.Nodes {
		if d.Cluster.AddressOf(shard.NodeID(i+1)) == address {
			return shard.NodeID(i + 1), true
		}
	}
	return 0, false
}

// Open implements client.Dialer.
func (d *Direct) Open(address string, h client.StreamHandler) client.Stream {
	s := &directStream{fills: make(chan func([]byte) []byte, 1), closed: make(chan struct{})}
	node, ok := d.node(address)
	d.running.Go(func() {
		if !ok {
			h.Closed(errRefused)
			return
		}
		end := d.Cluster.Open(node)
		var buf []byte
		for {
			select {
			case <-s.closed:
				h.Closed(errReset)
				return
			case fill := <-s.fills:
				buf = fill(buf[:0])
				if len(buf) == 0 {
					continue
				}
				answer, err := end.Handle(buf)
				if err != nil {
					panic(err)
				}
				deliver(h, answer)
			}
		}
	})
	return s
}

// Close waits until no stream is open.
func (d *Direct) Close() error {
	d.running.Wait()
	return nil
}

type directStream struct {
	fills  chan func([]byte) []byte
	once   sync.Once
	closed chan struct{}
}

// Ready implements client.Stream.
func (s *directStream) Ready(fill func([]byte) []byte) { s.fills <- fill }

// Bytes implements client.Stream.
func (s *directStream) Bytes() uint64 { return 0 }

// Close implements client.Stream.
func (s *directStream) Close() { s.once.Do(func() { close(s.closed) }) }
