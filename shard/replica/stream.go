package replica

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// Stream is a client stream on which operations come. Its methods are safe for
// concurrent use.
//
// A session sends an operation again when the stream breaks on which it was sent,
// and the later attempt, which looks for what the earlier one wrote, must not be
// overtaken by it: by a frame that is still on its way, or by a write that waits
// here for a revision or for its group. So whoever opens a stream supersedes the
// older one of the same session: from then on that one takes nothing, and what it
// has not put into the log yet never gets there.
//
// There is one stream of a session that is not superseded; see sessions.
type Stream struct {
	store   *Store
	session shard.Session
	number  uint64
	trusted bool

	mu     sync.Mutex
	closed bool   // or superseded: nothing more is taken
	writes *write // between Execute and their reply, linked by next and prev
	news   func(newest shard.Revision)
}

// sessions finds the stream of each session: the newest that was opened, while
// it is not closed or has writes without a reply. Superseded ones are not needed any
// more. Lock order: sessions.mu before Stream.mu.
type sessions struct {
	mu      sync.Mutex
	streams map[shard.Session]*Stream
}

// OpenStream opens a stream of a session, whose number must be larger than that of
// the session's present stream: an InvalidError tells of one that comes too late.
// When it returns, nothing that came on an older stream and is not in a log yet
// will ever be: its caller is told ErrDropped. Only then may the client be greeted.
// trusted: the stream belongs to a node, which may write to the system keyspace.
// The caller closes the stream.
func (s *Store) OpenStream(session shard.Session, number uint64, trusted bool) (*Stream, error) {
	if session == 0 || number == 0 {
		return nil, &shard.InvalidError{Field: "stream", Reason: "has no session or no number"}
	}
	st := &Stream{store: s, session: session, number: number, trusted: trusted}
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	if older := s.sessions.streams[session]; older != nil {
		if older.number >= number {
			return nil, &shard.InvalidError{Field: "stream", Reason: fmt.Sprintf("has number %d, and number %d of its session is open already", number, older.number)}
		}
		if !planted.On(planted.StaleStreamNotDropped) {
			older.supersede()
		}
	}
	if s.sessions.streams == nil {
		s.sessions.streams = make(map[shard.Session]*Stream)
	}
	s.sessions.streams[session] = st
	return st, nil
}

// OnNews has news called with Store.Newest ten times in each retention or more often
// (see upkeep), for the client of a stream on which nothing else goes: the births of
// its writes come from what it has heard, and a write whose birth is below the floor
// of its shard cannot be repeated. A floor is a revision that the shard's leader had
// applied a retention ago; what this node has told since then is not below it.
// news is called from a step, which it must not block, and perhaps once more after
// Close.
func (st *Stream) OnNews(news func(newest shard.Revision)) {
	st.mu.Lock()
	st.news = news
	st.mu.Unlock()
}

// tellNews tells all streams.
func (s *Store) tellNews() {
	s.sessions.mu.Lock()
	//order-free: sorted right after
	streams := slices.AppendSeq(make([]*Stream, 0, len(s.sessions.streams)), maps.Values(s.sessions.streams))
	s.sessions.mu.Unlock()
	slices.SortFunc(streams, func(a, b *Stream) int { return cmp.Compare(a.session, b.session) })
	newest := s.Newest()
	for _, st := range streams {
		st.mu.Lock()
		news := st.news
		if st.closed {
			news = nil
		}
		st.mu.Unlock()
		if news != nil {
			news(newest)
		}
	}
}

// Newest is the newest revision that this node knows to have been handed out: it
// has drawn it, or a replica of its has applied it. 0: none.
func (s *Store) Newest() shard.Revision {
	return max(shard.Revision(s.newest.Load()), s.cfg.Revisions.Newest())
}

// applied notes a revision that a replica has applied.
func (s *Store) applied(r shard.Revision) {
	for {
		now := s.newest.Load()
		if uint64(r) <= now || s.newest.CompareAndSwap(now, uint64(r)) {
			return
		}
	}
}

// Execute carries out one request of the stream; see Store.Execute. On a stream
// that is closed or superseded a write is dropped.
func (st *Stream) Execute(q shard.Request, reply func(shard.Response)) {
	st.store.execute(&q, st.trusted, st, reply)
}

// Close says that nothing more comes. What has come goes on, until a newer
// stream of the session is opened.
func (st *Stream) Close() {
	st.mu.Lock()
	st.closed = true
	idle := st.writes == nil
	st.mu.Unlock()
	if idle {
		st.forget()
	}
}

// supersede cancels what is not in a log yet. The flag is looked at last by the
// group that packs an entry (raftgroup.Proposal); an attempt that comes on the newer
// stream is handed to the group later than the flag is set here.
func (st *Stream) supersede() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	for w := st.writes; w != nil; w = w.next {
		w.proposal.Cancelled.Store(true)
	}
}

// add takes a write in, and tells whether it may go on. A later attempt cancels the
// earlier ones of its operation on this stream: a caller may have given one up and
// repeat it, and is to be told of no outcome that the earlier one can change. Later
// attempts are rare, and so may look at all that is under way.
func (st *Stream) add(w *write, later bool) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.closed {
		return false
	}
	for o := st.writes; later && o != nil; o = o.next {
		if o.op == w.op {
			o.proposal.Cancelled.Store(true)
		}
	}
	w.stream, w.prev, w.next = st, nil, st.writes
	if w.next != nil {
		w.next.prev = w
	}
	st.writes = w
	return true
}

// remove forgets a write that is about to be replied to.
func (st *Stream) remove(w *write) {
	st.mu.Lock()
	if w.next != nil {
		w.next.prev = w.prev
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		st.writes = w.next
	}
	w.stream, w.prev, w.next = nil, nil, nil
	done := st.closed && st.writes == nil
	st.mu.Unlock()
	if done {
		st.forget()
	}
}

// forget takes a stream that has ended from the store's list, unless a newer one
// is in its place.
func (st *Stream) forget() {
	x := &st.store.sessions
	x.mu.Lock()
	if x.streams[st.session] == st {
		delete(x.streams, st.session)
	}
	x.mu.Unlock()
}
