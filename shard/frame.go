package shard

// The client stream. A frame is the unit of the stream; its first byte says
// what it holds. The client begins with its hello, the server answers with a
// greeting; only then may request frames flow one way and response frames the
// other, each with as many operations as were waiting.
//
// So a server knows of every stream that may carry operations: when a session
// opens a newer one, what the older ones still had queued is dropped, and whatever
// they still bring is too.
const (
	frameGreeting  byte = 1
	frameHello     byte = 2
	frameRequests  byte = 3
	frameResponses byte = 4
)

// Greeting is the first frame that a server sends, in answer to a hello that it
// accepts.
type Greeting struct {
	Cluster     ClusterID
	Node        NodeID
	Incarnation uint64
	Newest      Revision // see DecodeResponses
}

// Hello is the first frame that a client sends.
type Hello struct {
	Cluster ClusterID // the cluster that the client pinned; never zero
	Session Session
	// Stream is larger than that of every stream that the session opened before.
	Stream uint64
	// Node is whom the stream is meant for. Another node that answers at its address,
	// since the machine was given to it, greets and takes nothing: the session may have a
	// stream to that one too, which this one must not supersede.
	Node NodeID
}

// Target is whom an attempt is meant for. A leader that it does not describe
// refuses the attempt with the current values. Reads compare all but Term.
type Target struct {
	Shard   ID
	Version uint64 // of the shard's epoch
	Replica ReplicaID
	Term    uint64
}

// Request is one attempt of one operation on a client stream.
type Request struct {
	// ID is the client's choice, unique among those outstanding on the stream.
	ID      uint64
	Target  Target
	Command []byte // see AppendCommand; aliases the frame when decoded
}

// Response answers the request with the same ID. Exactly one is sent for each
// request, in any order.
type Response struct {
	ID     uint64
	Err    error // one of the closed set, or nil
	Result Result
}

// Row is one key of a scan.
type Row struct {
	Key      []byte // full key
	Value    []byte
	Revision Revision
}

// Result is the outcome of a command that was done. Slices alias the frame when
// decoded.
type Result struct {
	// Revision of the write, 0 if it wrote nothing; of the version that a get
	// found; at which a scan's page was read; the first one of a draw.
	Revision Revision
	// Found: a get found a value; all compares held.
	Found bool
	// Value that a get found; the counter after an increment (8 bytes, big
	// endian); the present value when a compare did not hold; the term (8 bytes) in
	// which the draw of a voter was granted, if the voter has to confirm it.
	Value []byte
	// Rows of a scan's page; or one for each operation of the batch's list that
	// was carried out, in its order: a get's row has the value and its revision, or
	// revision 0 if there is none.
	Rows []Row
	// Resume is where the next page of the scan starts (its Start; or its End
	// when scanning in reverse), or the next piece of a delete-range; nil when the
	// end of the range was reached.
	Resume []byte
	// Count of the keys that a delete-range removed; of the revisions drawn.
	Count uint64
}

// AppendGreeting appends a greeting frame to b.
func AppendGreeting(b []byte, g Greeting) []byte {
	b = append(b, frameGreeting)
	b = append(b, g.Cluster[:]...)
	return appendUvarints(b, uint64(g.Node), g.Incarnation, uint64(g.Newest))
}

// DecodeGreeting reads a greeting frame.
func DecodeGreeting(b []byte) (Greeting, error) {
	r := reader{b: b}
	var g Greeting
	r.format(frameGreeting)
	g.Cluster = r.clusterID()
	g.Node = NodeID(r.uvarint())
	g.Incarnation = r.uvarint()
	g.Newest = r.revision()
	return g, r.done()
}

// AppendHello appends a hello frame to b.
func AppendHello(b []byte, h Hello) []byte {
	b = append(b, frameHello)
	b = append(b, h.Cluster[:]...)
	return appendUvarints(b, uint64(h.Session), h.Stream, uint64(h.Node))
}

// DecodeHello reads a hello frame.
func DecodeHello(b []byte) (Hello, error) {
	r := reader{b: b}
	var h Hello
	r.format(frameHello)
	h.Cluster = r.clusterID()
	h.Session = Session(r.uvarint())
	h.Stream = r.uvarint()
	h.Node = NodeID(r.uvarint())
	return h, r.done()
}

func (r *reader) clusterID() ClusterID {
	var id ClusterID
	if len(r.b) < len(id) {
		r.fail("cut short")
		return id
	}
	copy(id[:], r.b)
	r.b = r.b[len(id):]
	return id
}

// BeginRequests starts a request frame in b; AppendRequest adds to it.
func BeginRequests(b []byte) []byte { return append(b, frameRequests) }

// AppendRequest appends q to a request frame.
func AppendRequest(b []byte, q *Request) []byte {
	b = appendUvarints(b, q.ID, uint64(q.Target.Shard), q.Target.Version, uint64(q.Target.Replica), q.Target.Term)
	return appendBytes(b, q.Command)
}

// DecodeRequests calls each for every request of a frame, in order, and stops
// at the first malformed one with an error. Requests alias b.
func DecodeRequests(b []byte, each func(Request)) error {
	r := reader{b: b}
	r.format(frameRequests)
	for len(r.b) > 0 {
		q := Request{ID: r.uvarint(), Target: Target{Shard: ID(r.uvarint()), Version: r.uvarint(),
			Replica: ReplicaID(r.uvarint()), Term: r.uvarint()}, Command: r.bytes()}
		if r.err != nil {
			break
		}
		each(q)
	}
	return r.done()
}

// BeginResponses starts a response frame in b; AppendResponse adds to it. newest
// is the newest revision that the node knows to have been handed out. A frame
// without responses is one, too: on an idle stream the node tells by it what is newest.
func BeginResponses(b []byte, newest Revision) []byte {
	return appendUvarints(append(b, frameResponses), uint64(newest))
}

const (
	resultFound  = 1 << 0
	resultValue  = 1 << 1
	resultRows   = 1 << 2
	resultResume = 1 << 3
	resultCount  = 1 << 4
	resultKnown  = 1<<5 - 1
)

// AppendResponse appends p to a response frame.
func AppendResponse(b []byte, p *Response) []byte {
	b = appendUvarints(b, p.ID)
	b = AppendError(b, p.Err)
	if p.Err != nil {
		return b
	}
	res := &p.Result
	var flags byte
	if res.Found {
		flags |= resultFound
	}
	if len(res.Value) > 0 {
		flags |= resultValue
	}
	if len(res.Rows) > 0 {
		flags |= resultRows
	}
	if res.Resume != nil {
		flags |= resultResume
	}
	if res.Count > 0 {
		flags |= resultCount
	}
	b = append(b, flags)
	b = appendUvarints(b, uint64(res.Revision))
	if flags&resultValue != 0 {
		b = appendBytes(b, res.Value)
	}
	if flags&resultRows != 0 {
		b = appendUvarints(b, uint64(len(res.Rows)))
		for i := range res.Rows {
			row := &res.Rows[i]
			b = appendBytes(b, row.Key)
			b = appendUvarints(b, uint64(row.Revision))
			b = appendBytes(b, row.Value)
		}
	}
	if flags&resultResume != 0 {
		b = appendBytes(b, res.Resume)
	}
	if flags&resultCount != 0 {
		b = appendUvarints(b, res.Count)
	}
	return b
}

// DecodeResponses calls each for every response of a frame, in order, and stops
// at the first malformed one with an error. Responses alias b. newest is the
// newest revision that the node knew when it began the frame: every operation
// that has not begun yet will be given a larger one.
func DecodeResponses(b []byte, each func(Response)) (newest Revision, err error) {
	r := reader{b: b}
	r.format(frameResponses)
	newest = r.revision()
	for len(r.b) > 0 {
		p := Response{ID: r.uvarint(), Err: r.error()}
		if r.err == nil && p.Err == nil {
			p.Result = r.result()
		}
		if r.err != nil {
			break
		}
		each(p)
	}
	return newest, r.done()
}

func (r *reader) result() Result {
	var res Result
	flags := r.byte()
	if r.err == nil && flags&^byte(resultKnown) != 0 {
		r.fail("result flags %#x", flags)
		return res
	}
	res.Found = flags&resultFound != 0
	res.Revision = r.revision()
	if flags&resultValue != 0 {
		res.Value = r.bytes()
	}
	if flags&resultRows != 0 {
		n := r.uvarint()
		// A row in memory is many times the three bytes that it has at least on
		// the wire: no more of them are made room for than a page can have.
		if n > PageRowsMax || n > uint64(len(r.b))/3 {
			r.fail("%d rows in %d bytes", n, len(r.b))
			return res
		}
		res.Rows = make([]Row, 0, n)
		for range n {
			res.Rows = append(res.Rows, Row{Key: r.bytes(), Revision: r.revision(), Value: r.bytes()})
		}
	}
	if flags&resultResume != 0 {
		res.Resume = r.bytes()
	}
	if flags&resultCount != 0 {
		res.Count = r.uvarint()
	}
	return res
}
