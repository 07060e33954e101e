package sim

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/shard"
)

// Call is a batch or a delete-range, as its client saw it. Before the check it
// becomes one Op for every key that it concerns.
type Call struct {
	Client  int
	Name    string   // see callName
	Shard   shard.ID // where it begins
	Command shard.Command
	Result  shard.Result
	Call    int64
	Return  int64
	Outcome outcome
	At      time.Duration // virtual time of the call
}

func (c *Call) String() string {
	what := fmt.Sprintf("delete [%q, %q) limit %d", c.Command.Start, c.Command.End, c.Command.Limit)
	if c.Command.Kind == shard.KindBatch {
		what = "batch if" + comparesText(c.Command.Compares) + " then" + opsText(c.Command.Then) + " else" + opsText(c.Command.Else)
	}
	return fmt.Sprintf("[%d,%d] client %d %s: %s outcome=%d at=%v", c.Call, c.Return, c.Client, what, resultText(&c.Result), c.Outcome, c.At)
}

func comparesText(cs []shard.Compare) (s string) {
	for i := range cs {
		s += fmt.Sprintf(" %q:%d/%q/%d", cs[i].Key, cs[i].Kind, short(string(cs[i].Value)), cs[i].Revision)
	}
	return s
}

func opsText(ops []shard.BatchOp) (s string) {
	for i := range ops {
		s += fmt.Sprintf(" %d %q=%q", ops[i].Kind, ops[i].Key, short(string(ops[i].Value)))
	}
	return s
}

// BeginCall notes the call of a batch or a delete-range.
func (h *History) BeginCall(c *Call) *Call {
	h.clock++
	c.Call = h.clock
	c.Name = callName(&c.Command)
	h.calls = append(h.calls, c)
	return c
}

// EndCall notes that it returned.
func (h *History) EndCall(c *Call, how outcome) {
	h.clock++
	c.Return = h.clock
	c.Outcome = how
}

// expand turns every call into what it says of each key, and gives all
// operations in the order of their calls. A call whose outcome its client does not know
// counts as what the logs say that it did.
func (h *History) expand() []*Op {
	ops := make([]*Op, 0, len(h.ops))
	for _, o := range h.ops {
		ops = append(ops, h.settlePut(o))
	}
	keys := h.keys()
	for _, c := range h.calls {
		if c.Command.Kind == shard.KindDeleteRange {
			ops = append(ops, h.rangeOps(c, keys)...)
		} else {
			ops = append(ops, h.batchOps(c)...)
		}
	}
	slices.SortStableFunc(ops, func(a, b *Op) int { return int(a.Call - b.Call) })
	return ops
}

// settlePut gives a put whose outcome is unknown the revision that the logs say it
// had: though nobody read its value, a compare may have met it.
func (h *History) settlePut(o *Op) *Op {
	if o.Kind != shard.KindPut || o.Outcome != pending && o.Outcome != undetermined {
		return o
	}
	e := h.puts[written{o.Key, o.Value}]
	if e == nil {
		return o
	}
	settled := *o
	settled.Rev = e.rev
	return &settled
}

// keys are all that operations on one key, and batches, name.
func (h *History) keys() []string {
	var keys []string
	for _, o := range h.ops {
		keys = append(keys, o.Key)
	}
	for _, c := range h.calls {
		for _, ops := range [...][]shard.BatchOp{c.Command.Then, c.Command.Else} {
			for i := range ops {
				keys = append(keys, string(ops[i].Key))
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (c *Call) op(kind shard.Kind, key string) *Op {
	return &Op{Client: c.Client, Kind: kind, Shard: c.Shard, Key: key, Call: c.Call, Return: c.Return, Outcome: c.Outcome, At: c.At}
}

// rangeOps: the keys that were removed, and those that had no value to remove.
func (h *History) rangeOps(c *Call, keys []string) (ops []*Op) {
	var removed []string
	e := h.effects[c.Name]
	if e != nil {
		removed = e.removed
	}
	if c.Outcome == refused || c.Outcome != done && e == nil {
		return nil
	}
	for _, key := range removed {
		o := c.op(shard.KindDelete, key)
		o.Rev = e.rev
		ops = append(ops, o)
	}
	if c.Outcome != done {
		return ops
	}
	covered := shard.Span{Start: c.Command.Start, End: c.Command.End}
	if c.Result.Resume != nil {
		covered.End = c.Result.Resume
	}
	for _, key := range keys {
		if covered.Contains([]byte(key)) && !slices.Contains(removed, key) {
			ops = append(ops, c.op(shard.KindGet, key))
		}
	}
	return ops
}

// batchOps: what the list that was carried out did to its keys, and what it tells
// of those that were compared. Of the list that was not, every put is a write that
// was refused.
func (h *History) batchOps(c *Call) (ops []*Op) {
	res, known := &c.Result, c.Outcome == done
	if e := h.effects[c.Name]; e != nil && c.Outcome != refused {
		res, known = &e.result.Result, true
	}
	ran, idle := c.Command.Then, c.Command.Else
	if known && !res.Found {
		ran, idle = idle, ran
	}
	for i := range idle {
		if idle[i].Kind == shard.KindPut {
			o := c.op(shard.KindPut, string(idle[i].Key))
			o.Value = string(idle[i].Value)
			if known {
				o.Outcome = refused
			}
			ops = append(ops, o)
		}
	}
	for i := range ran {
		o := c.op(ran[i].Kind, string(ran[i].Key))
		switch {
		case o.Kind == shard.KindPut:
			o.Value = string(ran[i].Value)
			if known {
				o.Rev = res.Revision
			}
		case !known:
			continue // nobody knows of a delete that the logs do not
		case o.Kind == shard.KindDelete:
			o.Rev = res.Revision
		default:
			row := &res.Rows[i]
			o.Found, o.Value, o.Rev = row.Revision != 0, string(row.Value), row.Revision
		}
		if known && res.Found {
			o.Conds = conditions(c.Command.Compares, o.Key)
		}
		ops = append(ops, o)
	}
	if known {
		ops = append(ops, c.tests(ran, res.Found)...)
	}
	return ops
}

// tests: compares on keys that the list which was carried out does not name. That
// they did not all hold says something of one key only if there is one.
func (c *Call) tests(ran []shard.BatchOp, held bool) (ops []*Op) {
	compares := c.Command.Compares
	for i := range compares {
		key := compares[i].Key
		named := slices.ContainsFunc(ran, func(o shard.BatchOp) bool { return bytes.Equal(o.Key, key) })
		if held && !named || !held && len(compares) == 1 {
			o := c.op(shard.KindBatch, string(key))
			o.Conds, o.Unmet = compares[i:i+1], !held
			ops = append(ops, o)
		}
	}
	return ops
}

func conditions(compares []shard.Compare, key string) (cs []shard.Compare) {
	for i := range compares {
		if string(compares[i].Key) == key {
			cs = append(cs, compares[i])
		}
	}
	return cs
}

// checkCalls refuses a batch whose own answer contradicts its compares: a get of a
// compared key tells what the compare saw.
func (h *History) checkCalls() error {
	for _, c := range h.calls {
		if c.Outcome != done || c.Command.Kind != shard.KindBatch {
			continue
		}
		ran := c.Command.Then
		if !c.Result.Found {
			ran = c.Command.Else
		}
		if len(c.Result.Rows) != len(ran) {
			return fmt.Errorf("a batch of %d operations has %d results: %v", len(ran), len(c.Result.Rows), c)
		}
		met, unmet, unseen := 0, 0, 0
		for i := range c.Command.Compares {
			x := &c.Command.Compares[i]
			k := slices.IndexFunc(ran, func(o shard.BatchOp) bool { return o.Kind == shard.KindGet && bytes.Equal(o.Key, x.Key) })
			switch {
			case k < 0:
				unseen++
			case holds(x, version{rev: c.Result.Rows[k].Revision, found: c.Result.Rows[k].Revision != 0, value: string(c.Result.Rows[k].Value)}):
				met++
			default:
				unmet++
			}
		}
		switch {
		case c.Result.Found && unmet > 0:
			return fmt.Errorf("a batch went on although a compare did not hold: %v", c)
		case !c.Result.Found && unmet+unseen == 0:
			return fmt.Errorf("a batch did not go on although all of %d compares held: %v", met, c)
		}
	}
	return nil
}
