package client

import "sync/atomic"

// Stats counts what a core did since it was made.
type Stats struct {
	Operations       uint64 // brought by callers and by the core itself
	Attempts         uint64 // operations put into frames
	Frames           uint64 // with operations
	DirectoryLookups uint64 // of single keys
	DirectoryScans   uint64 // pages of the directory fetched ahead
	InfoRequests     uint64
	Connections      uint64 // opened
	ConnectionsLost  uint64
	Undetermined     uint64 // writes with an unknown outcome

	// Attempts that were repeated, by what was heard of them.
	RetriesNotLeader   uint64
	RetriesWrongShard  uint64
	RetriesBusy        uint64
	RetriesDropped     uint64
	RetriesUnavailable uint64
	RetriesNoRevision  uint64 // writes that no revision could be drawn for
	RetriesFaults      uint64 // reads that a server failed to do
	RetriesLost        uint64 // reads whose stream broke
	RetriesUnanswered  uint64 // writes, with the retry mark: an attempt may have taken effect
}

type counters struct {
	operations, attempts, frames                   atomic.Uint64
	directoryLookups, directoryScans, infos        atomic.Uint64
	connections, connectionsLost, undetermined     atomic.Uint64
	retriesNotLeader, retriesWrongShard            atomic.Uint64
	retriesBusy, retriesDropped                    atomic.Uint64
	retriesUnavailable, retriesFaults, retriesLost atomic.Uint64
	retriesNoRevision, retriesUnanswered           atomic.Uint64
}

// Stats is a copy of the counters; they are read one after the other.
func (c *Core) Stats() Stats {
	s := &c.stats
	return Stats{
		Operations:         s.operations.Load(),
		Attempts:           s.attempts.Load(),
		Frames:             s.frames.Load(),
		DirectoryLookups:   s.directoryLookups.Load(),
		DirectoryScans:     s.directoryScans.Load(),
		InfoRequests:       s.infos.Load(),
		Connections:        s.connections.Load(),
		ConnectionsLost:    s.connectionsLost.Load(),
		Undetermined:       s.undetermined.Load(),
		RetriesNotLeader:   s.retriesNotLeader.Load(),
		RetriesWrongShard:  s.retriesWrongShard.Load(),
		RetriesBusy:        s.retriesBusy.Load(),
		RetriesDropped:     s.retriesDropped.Load(),
		RetriesUnavailable: s.retriesUnavailable.Load(),
		RetriesNoRevision:  s.retriesNoRevision.Load(),
		RetriesUnanswered:  s.retriesUnanswered.Load(),
		RetriesFaults:      s.retriesFaults.Load(),
		RetriesLost:        s.retriesLost.Load(),
	}
}
