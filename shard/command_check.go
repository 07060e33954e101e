package shard

import (
	"bytes"
	"fmt"
)

// Check refuses a command whose fields are outside their limits or do not fit
// its keyspace, and those that only a shard's leader proposes. Both the client
// library and the server call it.
func (c *Command) Check() error {
	switch c.Kind {
	case KindPut, KindDelete, KindIncrement, KindCompareAndPut, KindGet:
		if err := c.checkKey(); err != nil {
			return err
		}
	case KindScan, KindDeleteRange:
		if err := c.checkSpan(); err != nil {
			return err
		}
	case KindBatch:
		if err := c.checkBatch(); err != nil {
			return err
		}
	case KindDraw:
		if c.Limit == 0 || c.Limit > DrawMax {
			return &InvalidError{Field: "draw", Reason: fmt.Sprintf("asks for %d revisions, the limits are 1 and %s", c.Limit, group(DrawMax))}
		}
	default:
		return &InvalidError{Field: "command", Reason: "is of an unknown kind"}
	}
	if c.AnyReplica && c.Revision == 0 {
		return &InvalidError{Field: "revision", Reason: "is missing: only a read at a revision may be served by any replica"}
	}
	return nil
}

func (c *Command) checkKey() error {
	if err := CheckKey(c.Key); err != nil {
		return err
	}
	if err := CheckValue(c.Value); err != nil {
		return err
	}
	if err := CheckValue(c.Expect); err != nil {
		return err
	}
	switch ks := c.Key[0]; {
	case ks != SystemKeyspace && ks != UserKeyspace:
		return &InvalidError{Field: "key", Reason: "is in no keyspace"}
	case (c.Kind == KindIncrement || c.Kind == KindCompareAndPut) && ks != SystemKeyspace:
		return &InvalidError{Field: "key", Reason: "is outside the system keyspace, which this command is for"}
	}
	return nil
}

func (c *Command) checkSpan() error {
	span := Span{Start: c.Start, End: c.End}
	switch {
	case !span.Valid():
		return &InvalidError{Field: "range", Reason: "is empty, inverted or outside one keyspace"}
	case len(c.Start)-1 > KeyBytesMax+1 || len(c.End)-1 > KeyBytesMax+1:
		return &InvalidError{Field: "range", Reason: "has a bound that is longer than any key"}
	case c.Kind != KindDeleteRange:
	case c.Start[0] != UserKeyspace:
		return &InvalidError{Field: "range", Reason: "is outside the user keyspace, which this command is for"}
	case c.Reverse || c.KeysOnly || c.AnyReplica:
		return &InvalidError{Field: "range", Reason: "is to be deleted with options that scans have"}
	case c.Limit == 0 || c.Limit > DeleteRangeMax:
		return &InvalidError{Field: "limit", Reason: fmt.Sprintf("is %d keys, the limits are 1 and %s", c.Limit, group(DeleteRangeMax))}
	}
	return nil
}

// System tells which keyspace the command is for.
func (c *Command) System() bool {
	anchor := c.Anchor()
	return len(anchor) > 0 && anchor[0] == SystemKeyspace
}

// Anchor is the key by which a command is routed: its key, or the bound at which
// its span begins, which is the End of a reverse scan. A batch goes by its first
// key, a draw to the meta shard. Commands that a leader proposes itself have none.
func (c *Command) Anchor() []byte {
	switch c.Kind {
	case KindScan, KindDeleteRange:
		if c.Reverse {
			return c.End
		}
		return c.Start
	case KindBatch:
		switch {
		case len(c.Compares) > 0:
			return c.Compares[0].Key
		case len(c.Then) > 0:
			return c.Then[0].Key
		case len(c.Else) > 0:
			return c.Else[0].Key
		}
		return nil
	case KindDraw:
		return SystemSpan().Start
	}
	return c.Key
}

// Within tells whether a command that changes or names keys one by one concerns
// none outside s; one about a span, whether it lies in s.
func (c *Command) Within(s Span) bool {
	switch c.Kind {
	case KindRaise, KindFloor, KindDraw, KindDigest, KindVerify, KindSplit:
		return true
	case KindScan, KindDeleteRange:
		return bytes.Compare(c.Start, c.End) < 0 && s.Covers(Span{Start: c.Start, End: c.End})
	case KindBatch:
		for i := range c.Compares {
			if !s.Contains(c.Compares[i].Key) {
				return false
			}
		}
		for _, ops := range [...][]BatchOp{c.Then, c.Else} {
			for i := range ops {
				if !s.Contains(ops[i].Key) {
					return false
				}
			}
		}
		return true
	}
	return s.Contains(c.Key)
}
