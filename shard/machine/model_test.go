package machine

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/kiloraft/kiloraft/shard"
)

// model is what the machine must be to its callers, in the simplest words: states
// are maps, every one of them is kept, and what became of an operation is written
// down instead of looked for.
type model struct {
	now    map[string]cell
	last   shard.Revision
	floor  shard.Revision
	done   map[uint64]outcome // of operations that wrote something, or left a trace
	writes uint64
}

type cell struct {
	value string
	rev   shard.Revision
}

type outcome struct {
	rev  shard.Revision
	told string
}

func (m *model) apply(rev shard.Revision, op uint64, c shard.Command) string {
	switch c.Kind {
	case shard.KindRaise:
		m.last = max(m.last, rev)
		return "at 0"
	case shard.KindFloor:
		m.floor = max(m.floor, min(c.Revision, m.last))
		return "at 0"
	}
	if rev <= m.last {
		return "*errors.errorString: " + ErrStaleRevision.Error()
	}
	if c.Retry {
		if c.Birth >= rev {
			return "*shard.InvalidError: birth is not below the revisions that the operation may have"
		}
		if c.Birth < m.floor {
			return tooOld
		}
		if before, ok := m.done[op]; ok && before.rev > c.Birth {
			return before.told
		}
	}
	s, written := m.carryOut(rev, c)
	m.last = rev
	if written == 0 && c.Retry && tracePlace(&c) != nil {
		written = 1
	}
	if written > 0 {
		m.done[op] = outcome{rev, s}
		m.writes += written
	}
	return s
}

func (m *model) carryOut(rev shard.Revision, c shard.Command) (s string, written uint64) {
	set := func(key []byte, value string) { m.now[string(key)] = cell{value, rev}; written++ }
	unset := func(key []byte) { delete(m.now, string(key)); written++ }
	at := func() string {
		if written == 0 {
			return "at 0"
		}
		return fmt.Sprintf("at %d", rev)
	}
	switch c.Kind {
	case shard.KindPut:
		set(c.Key, string(c.Value))
		return at(), written
	case shard.KindDelete:
		unset(c.Key)
		return at(), written
	case shard.KindDeleteRange:
		var keys []string
		for k := range m.now {
			if k >= string(c.Start) && k < string(c.End) {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		rest := ""
		if n := int(c.Limit); len(keys) >= n {
			keys = keys[:n]
			if next := keys[n-1] + "\x00"; next < string(c.End) {
				rest = fmt.Sprintf(" resume %q", next[1:])
			}
		}
		for _, k := range keys {
			unset([]byte(k))
		}
		s = at()
		if written > 0 {
			s += fmt.Sprintf(" count %d", written)
		}
		return s + rest, written
	}
	ops, holds := c.Then, " holds"
	for _, x := range c.Compares {
		v, ok := m.now[string(x.Key)]
		good := map[shard.CompareKind]bool{
			shard.CompareValue: ok && v.value == string(x.Value), shard.CompareRevision: ok && v.rev == x.Revision,
			shard.CompareAbsent: !ok, shard.ComparePresent: ok,
		}[x.Kind]
		if !good {
			ops, holds = c.Else, ""
		}
	}
	before := make(map[string]cell)
	for _, o := range ops {
		before[string(o.Key)] = m.now[string(o.Key)]
	}
	rows := ""
	for _, o := range ops {
		switch o.Kind {
		case shard.KindPut:
			set(o.Key, string(o.Value))
		case shard.KindDelete:
			unset(o.Key)
		default:
			v := before[string(o.Key)]
			rows += fmt.Sprintf(" [%s @%d]", v.value, v.rev)
			continue
		}
		rows += fmt.Sprintf(" [ @%d]", rev)
	}
	return at() + holds + rows, written
}

func (m *model) content() string {
	var keys []string
	for k := range m.now {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	s := ""
	for i, k := range keys {
		if i > 0 {
			s += " "
		}
		s += fmt.Sprintf("%s=%s@%d", k[1:], m.now[k].value, m.now[k].rev)
	}
	return s
}

// sweep moves the replica to a store without what it may drop by its floor: of each
// key, all below the newest version at or below the floor that is no trace, that one
// too if it is a tombstone, and the traces at or below the floor.
func (b *bench) sweep(keys []string) {
	state := *b.m.State()
	fs := vfs.NewMem()
	engine := openEngine(b.t, fs)
	batch := engine.NewBatch()
	batch.PutInitialReplica(1, userState())
	batch.PutReplicaState(b.id, &state)
	v := b.engine.NewView()
	for _, name := range keys {
		versions, err := v.Versions(key(name), 1000)
		if err != nil {
			b.t.Fatalf("versions: %v", err)
		}
		for _, x := range versions {
			if x.Revision <= state.Floor && x.Header.Trace {
				continue
			}
			if x.Revision <= state.Floor && x.Header.Tombstone {
				break
			}
			_, value, _, _, err := v.VersionAt(key(name), x.Revision)
			if err != nil {
				b.t.Fatalf("version: %v", err)
			}
			batch.PutVersion(key(name), x.Revision, x.Header, value)
			if x.Revision <= state.Floor {
				break
			}
		}
	}
	if err := v.Close(); err != nil {
		b.t.Fatalf("view: %v", err)
	}
	b.close()
	if err := engine.Commit(batch); err != nil {
		b.t.Fatalf("commit: %v", err)
	}
	b.fs, b.engine = fs, engine
	b.load()
}

var modelKeys = []string{"b", "c", "c\x00", "cc", "d", "x"}

// Whatever commands come, in whatever turns, after whatever restarts and with
// whatever versions dropped that the floor allows: callers are told what the model
// says, and a later attempt what the first was told.
func TestCommandsAgainstAModel(t *testing.T) { rapid.Check(t, commandsAgainstAModel) }

// FuzzCommands is the same with the choices of a fuzzer.
func FuzzCommands(f *testing.F) { f.Fuzz(rapid.MakeFuzz(commandsAgainstAModel)) }

func commandsAgainstAModel(t *rapid.T) {
	m := &model{now: make(map[string]cell), done: make(map[uint64]outcome)}
	one, cut := newBench(t, userState()), newBench(t, userState())
	defer one.close()
	defer func() { cut.close() }()
	var made []shard.Command // operations, by number
	for range rapid.IntRange(1, 40).Draw(t, "steps") {
		c, op := drawCommand(t, m, &made)
		rev := m.last + shard.Revision(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 0}).Draw(t, "revision"))
		switch c.Kind {
		case shard.KindFloor:
			rev = 0
		case shard.KindRaise:
			rev -= min(rev, shard.Revision(rapid.IntRange(0, 3).Draw(t, "late")))
		}
		want := m.apply(rev, op, c)
		entry := versioned(rev, op, c)
		for i, b := range []*bench{one, cut} {
			b.turn()
			apply := b.apply
			if b.index > 10 && b == cut && b.index > b.m.State().Applied && rapid.IntRange(0, 3).Draw(t, "same entry") == 0 {
				apply = b.more
			}
			res, err := apply(entry)
			if got := told(res); err != nil || got != want {
				t.Fatalf("replica %d: %+v at %d: %s, %v; want %s", i, c, rev, got, err, want)
			}
			if s := b.m.State(); s.LastRevision != m.last || s.Floor != m.floor || s.Versions != m.writes {
				t.Fatalf("replica %d: %+v, want last revision %d, floor %d, %d versions", i, s, m.last, m.floor, m.writes)
			}
		}
		switch rapid.IntRange(0, 6).Draw(t, "then") {
		case 0, 1:
			cut.end()
		case 2:
			cut.end()
			cut.restart()
		case 3:
			cut.end()
			cut.sweep(modelKeys)
		}
	}
	one.end()
	cut.end()
	for _, b := range []*bench{one, cut} {
		if got, want := b.content(), m.content(); got != want {
			t.Fatalf("content %s, want %s", got, want)
		}
	}
}

// drawCommand draws a new operation or a later attempt of one that was made.
func drawCommand(t *rapid.T, m *model, made *[]shard.Command) (shard.Command, uint64) {
	name := func(label string) string { return rapid.SampledFrom(modelKeys).Draw(t, label) }
	value := func() []byte { return []byte(rapid.SampledFrom([]string{"", "v", "w"}).Draw(t, "value")) }
	if n := len(*made); n > 0 && rapid.IntRange(0, 2).Draw(t, "again") == 0 {
		op := rapid.IntRange(max(0, n-6), n-1).Draw(t, "operation")
		c := (*made)[op]
		c.Retry = true
		return c, uint64(op)
	}
	var c shard.Command
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1:
		c = shard.Command{Kind: shard.KindPut, Key: key(name("key")), Value: value()}
	case 2:
		c = remove(name("key"))
	case 3, 4:
		ends := []string{"b", "c", "c\x00", "d", "y"}
		from := rapid.IntRange(0, len(ends)-2).Draw(t, "from")
		to := rapid.IntRange(from+1, len(ends)-1).Draw(t, "to")
		c = deleteRange(ends[from], ends[to], uint64(rapid.IntRange(1, 4).Draw(t, "limit")))
	case 5:
		return shard.Command{Kind: shard.KindRaise}, 0
	case 6:
		back := shard.Revision(rapid.IntRange(0, 8).Draw(t, "back"))
		return shard.Command{Kind: shard.KindFloor, Revision: m.last + 1 - min(m.last+1, back)}, 0
	default:
		c = shard.Command{Kind: shard.KindBatch}
		for range rapid.IntRange(0, 2).Draw(t, "compares") {
			x := shard.Compare{Kind: shard.CompareKind(rapid.IntRange(1, 4).Draw(t, "compare")), Key: key(name("key"))}
			switch x.Kind {
			case shard.CompareValue:
				x.Value = value()
			case shard.CompareRevision:
				x.Revision = m.now[string(x.Key)].rev
				if x.Revision == 0 || rapid.Bool().Draw(t, "another") {
					x.Revision = shard.Revision(rapid.IntRange(1, 20).Draw(t, "of"))
				}
			}
			c.Compares = append(c.Compares, x)
		}
		draw := func() (ops []shard.BatchOp) {
			for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(modelKeys), 0, 3, rapid.ID[string]).Draw(t, "keys") {
				o := shard.BatchOp{Kind: rapid.SampledFrom([]shard.Kind{shard.KindPut, shard.KindDelete, shard.KindGet}).Draw(t, "do"), Key: key(k)}
				if o.Kind == shard.KindPut {
					o.Value = value()
				}
				ops = append(ops, o)
			}
			return ops
		}
		c.Then, c.Else = draw(), draw()
		if len(c.Compares) == 0 && len(c.Then)+len(c.Else) == 0 {
			c.Then = batchOps("?b")
		}
	}
	// The session may not have heard of the newest revision.
	c.Birth = m.last - min(m.last, shard.Revision(rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "unheard")))
	*made = append(*made, c)
	return c, uint64(len(*made) - 1)
}
