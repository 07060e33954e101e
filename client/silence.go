package client

import (
	"errors"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// A connection may outlive the node at its other end by long: the machine is paused, or its
// packets are lost, and until the connection is given up (after some fifteen seconds, by
// gRPC's pings) nothing says so. Operations that were sent there would wait, although the
// other replicas have elected a leader within two or three.
//
// That answers do not come says little by itself, because a shard without a majority cannot
// answer, while others on the same node do. So when something was sent on a link that says nothing
// at all, the node is asked something that it can answer by itself. If it does not,
// the link is given up, as if it had broken: reads are repeated elsewhere, and so are writes, with
// the mark that makes a second attempt harmless. That those who waited have given up
// changes nothing: whoever comes after them would wait as long.
//
// A link over which an answer of megabytes arrives slowly says nothing either, and leaves no
// room for the question. But bytes of it arrive.

const (
	// silencePatience is how long a link to which something was sent may say nothing before
	// its node is asked. With infoTimeout it is about what an election takes.
	silencePatience = time.Second
	// silencePause is how long a node that has answered is left alone.
	silencePause = 3 * time.Second
)

var errSilent = errors.New("the node does not answer")

// expect has a link watched to which something is sent.
func (c *Core) expect(l *link) {
	if !l.quiet {
		l.quiet, l.spoken = true, c.now
	}
	if !l.silence.set && !l.asked {
		c.alarms.put(&l.silence, c.now+silencePatience)
	}
}

// doubt asks the node of a link that has said nothing for a while.
func (c *Core) doubt(l *link) {
	if l.node.link != l {
		return
	}
	l.node.mu.Lock()
	waits := len(l.outstanding) > 0 || l.filling
	l.node.mu.Unlock()
	patient := l.heard + silencePatience
	if l.quiet {
		patient = l.spoken + silencePatience
	}
	switch {
	case !waits && !l.quiet: // watched again from the next frame on
	case c.now < patient:
		c.alarms.put(&l.silence, patient)
	default:
		l.asked = true
		asked, arrived := c.now, l.stream.Bytes()
		c.cfg.Dialer.Info(l.node.address, infoTimeout, func(i Info, err error) {
			c.post(func() { c.reassured(l, l.heard >= asked || l.stream.Bytes() != arrived, i, err) })
		})
	}
}

// reassured takes in whether the node has answered, or was heard on the link meanwhile. One
// that denies it answers, too.
func (c *Core) reassured(l *link, heard bool, i Info, err error) {
	l.asked = false
	if l.node.link != l {
		return
	}
	var denied *shard.DeniedError
	other := err == nil && (i.Cluster != c.cluster || i.Node != l.node.id)
	switch {
	case heard || errors.As(err, &denied):
	case other:
		c.abandon(l, errOtherNode)
		c.refresh()
		return
	case err != nil:
		c.abandon(l, errSilent)
		return
	}
	l.quiet = false
	c.alarms.put(&l.silence, c.now+silencePause)
}
