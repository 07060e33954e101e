package clienttest

import (
	"bytes"
	"slices"

	"github.com/kiloraft/kiloraft/shard"
)

// version is what a write left at a key.
type version struct {
	revision  shard.Revision
	op        shard.OpID
	tombstone bool
	bytes     []byte
	// origin of a trace of a value: the revision that readers are shown.
	trace  bool
	origin shard.Revision
}

// shown is the version as readers see it.
func (v version) shown() version {
	if v.origin != 0 {
		v.revision = v.origin
	}
	return v
}

// read finds what a key has at a revision.
func (c *Cluster) read(key string, at shard.Revision) (version, bool) {
	versions := c.values[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if v := versions[i]; v.revision <= at {
			return v.shown(), !v.tombstone
		}
	}
	return version{}, false
}

// put adds a version, and gives it the next revision if it has none.
func (c *Cluster) put(key string, v version) {
	if v.revision == 0 {
		c.revision++
		v.revision = c.revision
	}
	if _, ok := c.values[key]; !ok {
		i, _ := slices.BinarySearch(c.keys, key)
		c.keys = slices.Insert(c.keys, i, key)
	}
	if key[0] == shard.SystemKeyspace {
		c.values[key] = []version{v}
		return
	}
	c.values[key] = append(c.values[key], v)
}

// write is one that a command makes.
type write struct {
	key       string
	bytes     []byte
	tombstone bool
}

// Apply carries a command out, and tells nobody. It is for Answer: an attempt whose
// answer is lost.
func (c *Cluster) Apply(cmd *shard.Command) { _, _ = c.execute(cmd) }

func (c *Cluster) execute(cmd *shard.Command) (shard.Result, error) {
	c.commands++
	if !cmd.Kind.Write() {
		return c.serve(cmd), nil
	}
	if cmd.Retry && !cmd.System() {
		if cmd.Birth < c.Floor {
			return shard.Result{}, &shard.OutcomeLostError{Reason: "it is older than the retention"}
		}
		if v, found := c.find(cmd); found {
			return c.again(cmd, v)
		}
	}
	c.executed[cmd.Op]++
	c.revision++
	res, writes := c.evaluate(cmd, c.revision-1)
	for _, w := range writes {
		c.put(w.key, version{revision: c.revision, op: cmd.Op, tombstone: w.tombstone, bytes: bytes.Clone(w.bytes)})
	}
	if cmd.Retry && len(writes) == 0 {
		c.leaveTrace(cmd)
	}
	number(&res, cmd, c.revision, len(writes))
	return res, nil
}

// leaveTrace says once more what a key has that the command could have written.
func (c *Cluster) leaveTrace(cmd *shard.Command) {
	keys := [][]byte{cmd.Start}
	if cmd.Kind == shard.KindBatch {
		keys = nil
		for _, ops := range [...][]shard.BatchOp{cmd.Then, cmd.Else} {
			for i := range ops {
				if ops[i].Kind != shard.KindGet {
					keys = append(keys, ops[i].Key)
				}
			}
		}
	}
	if len(keys) == 0 {
		return
	}
	key := string(keys[0])
	v, found := c.read(key, shard.MaxRevision)
	trace := version{revision: c.revision, op: cmd.Op, tombstone: !found, trace: true}
	if found {
		trace.bytes, trace.origin = v.bytes, v.revision
	}
	c.put(key, trace)
}

// number gives a result the revision of its writes.
func number(res *shard.Result, cmd *shard.Command, r shard.Revision, writes int) {
	if writes == 0 {
		return
	}
	res.Revision = r
	ran := cmd.Then
	if !res.Found {
		ran = cmd.Else
	}
	for i := range res.Rows {
		if ran[i].Kind != shard.KindGet {
			res.Rows[i].Revision = r
		}
	}
}

// find looks for what an earlier attempt wrote.
func (c *Cluster) find(cmd *shard.Command) (version, bool) {
	var keys []string
	switch cmd.Kind {
	case shard.KindBatch:
		for _, ops := range [...][]shard.BatchOp{cmd.Then, cmd.Else} {
			for i := range ops {
				keys = append(keys, string(ops[i].Key))
			}
		}
	case shard.KindDeleteRange:
		from, _ := slices.BinarySearch(c.keys, string(cmd.Start))
		to, _ := slices.BinarySearch(c.keys, string(cmd.End))
		keys = c.keys[from:to]
	default:
		keys = []string{string(cmd.Key)}
	}
	for _, key := range keys {
		for _, v := range c.values[key] {
			if v.op == cmd.Op && v.revision > cmd.Birth {
				return v, true
			}
		}
	}
	return version{}, false
}

// again is the outcome of a command that took effect before, with version v.
func (c *Cluster) again(cmd *shard.Command, v version) (shard.Result, error) {
	res, writes := c.evaluate(cmd, v.revision-1)
	if v.trace != (len(writes) == 0) || cmd.Kind == shard.KindPut && (v.tombstone || !bytes.Equal(v.bytes, cmd.Value)) || cmd.Kind == shard.KindDelete && !v.tombstone {
		return shard.Result{}, &shard.InvalidError{Field: "operation", Reason: "wrote something else before"}
	}
	number(&res, cmd, v.revision, len(writes))
	return res, nil
}

// evaluate is what a write does to the state at a revision.
func (c *Cluster) evaluate(cmd *shard.Command, at shard.Revision) (res shard.Result, writes []write) {
	switch cmd.Kind {
	case shard.KindPut:
		return res, []write{{key: string(cmd.Key), bytes: cmd.Value}}
	case shard.KindDelete:
		return res, []write{{key: string(cmd.Key), tombstone: true}}
	case shard.KindDeleteRange:
		from, _ := slices.BinarySearch(c.keys, string(cmd.Start))
		to, _ := slices.BinarySearch(c.keys, string(cmd.End))
		for _, key := range c.keys[from:to] {
			if _, ok := c.read(key, at); !ok {
				continue
			}
			if res.Count == cmd.Limit {
				res.Resume = append([]byte(writes[len(writes)-1].key), 0)
				break
			}
			writes = append(writes, write{key: key, tombstone: true})
			res.Count++
		}
		return res, writes
	case shard.KindBatch:
		return c.evaluateBatch(cmd, at)
	}
	return res, nil
}

func (c *Cluster) evaluateBatch(cmd *shard.Command, at shard.Revision) (res shard.Result, writes []write) {
	res.Found = true
	for i := range cmd.Compares {
		x := &cmd.Compares[i]
		v, ok := c.read(string(x.Key), at)
		switch x.Kind {
		case shard.CompareValue:
			ok = ok && bytes.Equal(v.bytes, x.Value)
		case shard.CompareRevision:
			ok = ok && v.revision == x.Revision
		case shard.CompareAbsent:
			ok = !ok
		}
		res.Found = res.Found && ok
	}
	ran := cmd.Then
	if !res.Found {
		ran = cmd.Else
	}
	for i := range ran {
		row := shard.Row{Key: bytes.Clone(ran[i].Key)}
		if ran[i].Kind == shard.KindGet {
			if v, ok := c.read(string(ran[i].Key), at); ok {
				row.Value, row.Revision = v.bytes, v.revision
			}
		} else {
			writes = append(writes, write{key: string(ran[i].Key), bytes: ran[i].Value, tombstone: ran[i].Kind == shard.KindDelete})
		}
		res.Rows = append(res.Rows, row)
	}
	return res, writes
}

// serve answers what writes nothing.
func (c *Cluster) serve(cmd *shard.Command) shard.Result {
	at := cmd.Revision
	if at == 0 {
		at = c.revision
	}
	switch cmd.Kind {
	case shard.KindGet:
		v, ok := c.read(string(cmd.Key), at)
		if !ok {
			return shard.Result{}
		}
		return shard.Result{Found: true, Value: v.bytes, Revision: v.revision}
	case shard.KindScan:
		res := c.scan(cmd, at)
		if !cmd.System() {
			res.Revision = at
		}
		return res
	case shard.KindDraw:
		first := c.revision + 1
		c.revision += shard.Revision(cmd.Limit)
		return shard.Result{Revision: first, Count: cmd.Limit}
	}
	return shard.Result{}
}

func (c *Cluster) scan(cmd *shard.Command, at shard.Revision) (res shard.Result) {
	from, _ := slices.BinarySearch(c.keys, string(cmd.Start))
	to, _ := slices.BinarySearch(c.keys, string(cmd.End))
	keys := slices.Clone(c.keys[from:to])
	if cmd.Reverse {
		slices.Reverse(keys)
	}
	rows, size := cmd.Limit, uint64(0)
	if rows == 0 {
		rows = shard.PageRowsMax
	}
	bytesMax := cmd.Bytes
	if bytesMax == 0 {
		bytesMax = shard.PageBytesMax
	}
	for _, k := range keys {
		v, ok := c.read(k, at)
		if !ok {
			continue
		}
		if uint64(len(res.Rows)) == rows || size >= bytesMax {
			res.Resume = []byte(k)
			if cmd.Reverse {
				res.Resume = append(res.Resume, 0)
			}
			break
		}
		row := shard.Row{Key: []byte(k), Revision: v.revision}
		if !cmd.KeysOnly {
			row.Value = v.bytes
		}
		res.Rows = append(res.Rows, row)
		size += uint64(len(row.Key) + len(row.Value))
	}
	return res
}
