package sim

import (
	"fmt"
	"hash/fnv"

	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// content compares what every replica of a node holds with what others held at
// the same applied index. It reads everything: it is for drawn moments and the end.
func (w *Witness) content(node string, e *storage.Engine) {
	w.eachState(e, func(r storage.ReplicaRecord, s *storage.ReplicaState) {
		sum, rows, err := contentHash(e, s.Descriptor.Span)
		if err != nil {
			w.Fail("%s shard %d: reading its content: %v", node, r.Shard, err)
			return
		}
		at := shardIndex{r.Shard, s.Applied}
		mark := stateMark{fmt.Sprintf("%d keys, hash %016x", rows, sum), node}
		switch first, known := w.contents[at]; {
		case !known:
			w.contents[at] = mark
		case first.text != mark.text:
			w.Fail("shard %d has different content at index %d: %s: %s; %s: %s", r.Shard, s.Applied, first.by, first.text, node, mark.text)
		}
	})
}

// contentHash is a hash over the newest version of every key of a span.
func contentHash(e *storage.Engine, span shard.Span) (sum uint64, rows int, err error) {
	v := e.NewView()
	defer v.Close()
	h := fnv.New64a()
	for {
		page, resume, err := v.Scan(storage.ScanOptions{Span: span, At: shard.MaxRevision, RowsMax: shard.PageRowsMax, BytesMax: shard.PageBytesMax})
		if err != nil {
			return 0, 0, err
		}
		for i := range page {
			rows++
			fmt.Fprintf(h, "%x %d %x\n", page[i].Key, page[i].Revision, page[i].Value)
		}
		if resume == nil {
			return h.Sum64(), rows, nil
		}
		span.Start = resume
	}
}
