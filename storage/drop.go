package storage

import (
	"bytes"
	"fmt"

	"github.com/kiloraft/kiloraft/internal/planted"
	"github.com/kiloraft/kiloraft/shard"
)

// GarbageOptions say what View.Garbage looks at, and how much of it.
type GarbageOptions struct {
	Span shard.Span // in the user keyspace
	// Floor is the lowest revision that is still read. Per key, the newest version
	// at or below it decides what is read there; what is older, nobody reads.
	Floor     shard.Revision
	VisitsMax int // versions looked at, past which no further key is begun; at least 1
	DropsMax  int // versions collected; at least 1
}

// Garbage is what a part of a span holds that is not read any more: per key the
// versions below the newest one at or below the floor, and that one too if it is a
// tombstone, since below a tombstone and without it a key is absent alike. Traces
// do not count as versions here, and are garbage at and below the floor. What those
// above it name is above it too, or the newest at or below it.
//
// Invariant: committed as a whole it changes no read at or above the floor,
// whatever else of the span is dropped or not. So all garbage of a key is in one
// Garbage: without its tombstone an older version would be read again. Of a key
// that has too much of it traces are taken that shadow nothing, or the oldest, and
// its tombstone last.
type Garbage struct {
	keys []byte // of the versions, as the engine has them, one after the other
	ends []int

	// Resume is the Start of the next part; nil if the end of the span was reached.
	Resume  []byte
	Visited int // versions looked at; runs of them above the floor are passed over
	Kept    int // those that are no garbage
	// Keys that have a value, and bytes of them and their newest values.
	Keys, Bytes uint64
}

// Drops is the number of versions that are garbage.
func (g *Garbage) Drops() int { return len(g.ends) }

// Drop removes what g lists. The batch must be committed before anything else can
// bring older versions of the keys back: an installed snapshot may hold what a
// tombstone in g shadows and was dropped here before, and g does not list it.
func (b *Batch) Drop(g *Garbage) {
	from := 0
	for _, to := range g.ends {
		b.delete(g.keys[from:to])
		from = to
	}
}

// Garbage collects garbage from the start of a span on. The result is the
// caller's. Options out of their bounds are a programmer's error.
func (v *View) Garbage(o GarbageOptions) (Garbage, error) {
	if !versioned(o.Span.Start) || o.VisitsMax < 1 || o.DropsMax < 1 {
		panic(fmt.Sprintf("storage: garbage of %+v", o))
	}
	if err := v.bound(o.Span); err != nil {
		return Garbage{}, err
	}
	s := sweep{v: v, o: o}
	for s.ok = v.it.First(); s.ok; {
		key, rev, err := parseDataKey(v.it.Key())
		if err != nil {
			return Garbage{}, err
		}
		if s.g.Visited >= o.VisitsMax {
			s.g.Resume = bytes.Clone(key)
			return s.g, nil
		}
		s.user = append(s.user[:0], key...)
		if err := s.oneKey(rev); err != nil {
			return Garbage{}, err
		}
		if s.g.Resume != nil {
			return s.g, nil
		}
	}
	return s.g, v.it.Error()
}

// sweep is a Garbage in the making.
type sweep struct {
	v    *View
	o    GarbageOptions
	g    Garbage
	ok   bool   // the iterator is at a version
	user []byte // the key that is looked at
	key  []byte // of a seek
}

// oneKey visits the versions of s.user newest first, from its newest one, rev, at
// the iterator, to the next key. It sets Resume if the key's garbage does not fit.
func (s *sweep) oneKey(rev shard.Revision) error {
	first := len(s.g.ends) // drops of the keys before
	newest, shadowing, tombstone := true, false, false
	kept, above, bytesLive := 0, 0, 0
	var shadow shard.Revision // of the newest at or below the floor, if that is kept
	var named shard.Revision  // of the newest, if that is a trace: what has its value
	for same := true; same; {
		s.g.Visited++
		garbage := shadowing
		if newest || !shadowing && rev <= s.o.Floor {
			h, value, _, err := s.v.version(s.user)
			if err != nil {
				return err
			}
			if newest && !h.Tombstone {
				bytesLive = len(s.user) + len(value)
			}
			switch {
			case rev > s.o.Floor:
			case h.Trace:
				garbage = true
			default:
				shadowing, tombstone = true, h.Tombstone
				if garbage = tombstone; !garbage {
					shadow = rev
				}
			}
			newest, named = newest && h.Origin != 0, h.Origin // what it names has the value
		}
		switch {
		case !garbage:
			kept++
		case len(s.g.ends) == s.o.DropsMax:
			return s.tooMuch(first, shadowing, shadow)
		default:
			s.drop()
		}
		if shadowing || rev <= s.o.Floor {
			s.ok = s.v.it.Next()
		} else {
			above++
			to := s.o.Floor
			if newest {
				to = max(to, named)
			}
			s.ok = s.next(above, to)
		}
		var err error
		if same, rev, err = s.same(); err != nil {
			return err
		}
	}
	if tombstone && planted.On(planted.DropWithoutItsShadow) {
		s.cut(first + 1)
	}
	s.g.Kept += kept
	if bytesLive > 0 {
		s.g.Keys++
		s.g.Bytes += uint64(bytesLive)
	}
	return nil
}

// next passes over the versions of s.user above the floor, down to those of which
// more is to be known than that they are there. Most keys have few.
func (s *sweep) next(above int, to shard.Revision) bool {
	if above%(versionsSkipped+1) != 0 {
		return s.v.it.Next()
	}
	s.key = appendVersionKey(s.key[:0], s.user, to)
	return s.v.it.SeekGE(s.key)
}

// same tells whether the iterator is still at a version of s.user, and which.
func (s *sweep) same() (bool, shard.Revision, error) {
	if !s.ok {
		return false, 0, s.v.it.Error()
	}
	key, rev, err := parseDataKey(s.v.it.Key())
	return bytes.Equal(key, s.user), rev, err
}

// tooMuch ends the part at a key whose garbage does not fit into what is left of
// it. The next part begins with that key; if this one did, it takes the traces above
// all else at or below the floor, if those alone are too many, or the oldest versions
// that fit, below the one at shadow. The tombstone, if there is one instead, is the
// last of them.
func (s *sweep) tooMuch(first int, shadowing bool, shadow shard.Revision) error {
	s.g.Resume = bytes.Clone(s.user)
	if first == 0 && !shadowing {
		return nil
	}
	s.cut(first)
	if first > 0 {
		return nil
	}
	// The shortest key that is larger than s.user is a zero byte longer.
	s.key = appendDataKey(s.key[:0], append(s.user, 0))
	for ok := s.v.it.SeekLT(s.key); ok && len(s.g.ends) < s.o.DropsMax; ok = s.v.it.Prev() {
		_, rev, err := parseDataKey(s.v.it.Key())
		if err != nil {
			return err
		}
		if rev == shadow {
			break
		}
		s.g.Visited++
		s.drop()
	}
	return s.v.it.Error()
}

// drop adds the version at the iterator.
func (s *sweep) drop() {
	s.g.keys = append(s.g.keys, s.v.it.Key()...)
	s.g.ends = append(s.g.ends, len(s.g.keys))
}

// cut takes back all but the first n drops.
func (s *sweep) cut(n int) {
	s.g.ends = s.g.ends[:n]
	end := 0
	if n > 0 {
		end = s.g.ends[n-1]
	}
	s.g.keys = s.g.keys[:end]
}
