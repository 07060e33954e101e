package sim

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// undirected says where the directory differs from the shards' own descriptors, or
// nothing: it has an entry of each, in order of key, and no other.
func (c *Cluster) undirected() string {
	meta, _ := c.leads(shard.MetaID)
	if meta == nil {
		return "nobody leads the meta shard"
	}
	v := meta.engine.NewView()
	defer v.Close()
	rows, resume, err := v.Scan(storage.ScanOptions{Span: router.DirectorySpan(), At: shard.MaxRevision, RowsMax: shard.PageRowsMax, BytesMax: shard.PageBytesMax})
	switch {
	case err != nil:
		return "the directory cannot be read: " + err.Error()
	case resume != nil || len(rows) != len(c.shards()):
		return fmt.Sprintf("the directory has %d entries, and there are %d shards", len(rows), len(c.shards()))
	}
	for i := range rows {
		e, err := router.DecodeEntry(rows[i].Value)
		if err != nil {
			return "an entry of the directory does not decode: " + err.Error()
		}
		_, state := c.leads(e.Descriptor.ID)
		said, is := shard.AppendDescriptor(nil, &e.Descriptor), shard.AppendDescriptor(nil, &state.Descriptor)
		if !bytes.Equal(said, is) {
			return fmt.Sprintf("the directory says of shard %d %v, and it is %v", e.Descriptor.ID, e.Descriptor, state.Descriptor)
		}
	}
	return ""
}
