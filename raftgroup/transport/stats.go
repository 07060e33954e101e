package transport

import "sync/atomic"

// Stats counts what a transport has done since it was made. All but Queued*
// and SendingSnapshots only grow.
type Stats struct {
	FramesSent, MessagesSent, BytesSent uint64
	FramesReceived, BytesReceived       uint64
	// MessagesDropped were refused by Send, or waited when their node was lost.
	MessagesDropped uint64
	// Connects counts handshakes that succeeded, Disconnects streams that broke
	// after one, ConnectsFailed attempts that did not get there.
	Connects, Disconnects, ConnectsFailed uint64
	// Refused counts streams of others that this node refused.
	Refused                                                uint64
	SnapshotsSent, SnapshotsFailed, SnapshotBytesSent      uint64
	SnapshotsReceived, SnapshotsAborted, SnapshotBytesRead uint64
	// SnapshotsPutOff counts the times that a receiver had no room for a large one.
	SnapshotsPutOff uint64
	// QueuedSnapshots wait in line, SendingSnapshots are on their way.
	QueuedBytes, QueuedSnapshots, SendingSnapshots int64
}

// counters are the live form of Stats.
type counters struct {
	framesSent, messagesSent, bytesSent                    atomic.Uint64
	framesReceived, bytesReceived, messagesDropped         atomic.Uint64
	connects, disconnects, connectsFailed, refused         atomic.Uint64
	snapshotsSent, snapshotsFailed, snapshotBytesSent      atomic.Uint64
	snapshotsReceived, snapshotsAborted, snapshotBytesRead atomic.Uint64
	snapshotsPutOff                                        atomic.Uint64
}

func (c *counters) stats() Stats {
	return Stats{
		FramesSent:        c.framesSent.Load(),
		MessagesSent:      c.messagesSent.Load(),
		BytesSent:         c.bytesSent.Load(),
		FramesReceived:    c.framesReceived.Load(),
		BytesReceived:     c.bytesReceived.Load(),
		MessagesDropped:   c.messagesDropped.Load(),
		Connects:          c.connects.Load(),
		Disconnects:       c.disconnects.Load(),
		ConnectsFailed:    c.connectsFailed.Load(),
		Refused:           c.refused.Load(),
		SnapshotsSent:     c.snapshotsSent.Load(),
		SnapshotsFailed:   c.snapshotsFailed.Load(),
		SnapshotBytesSent: c.snapshotBytesSent.Load(),
		SnapshotsReceived: c.snapshotsReceived.Load(),
		SnapshotsAborted:  c.snapshotsAborted.Load(),
		SnapshotBytesRead: c.snapshotBytesRead.Load(),
		SnapshotsPutOff:   c.snapshotsPutOff.Load(),
	}
}
