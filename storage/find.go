package storage

import (
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// Version is one version of a key, without its value.
type Version struct {
	Revision shard.Revision
	Header   VersionHeader
	Bytes    int // of the value
}

// VersionAt finds the newest version of a key in the user keyspace at or below
// at, tombstones and traces included. found is false if there is none. value is
// valid until the next call.
func (v *View) VersionAt(key []byte, at shard.Revision) (h VersionHeader, value []byte, rev shard.Revision, found bool, err error) {
	if err := v.unbound(key); err != nil {
		return h, nil, 0, false, err
	}
	v.key = appendVersionKey(v.key[:0], key, at)
	if !v.it.SeekPrefixGE(v.key) {
		return h, nil, 0, false, v.it.Error()
	}
	h, value, rev, err = v.version(key)
	return h, value, rev, err == nil, err
}

// Versions lists the versions of a key in the user keyspace that are still
// there, newest first and at most max of them. It is for inspection: which
// versions below the floor are left differs from replica to replica.
func (v *View) Versions(key []byte, max int) ([]Version, error) {
	var found []Version
	err := v.eachVersion(key, func(rev shard.Revision, h VersionHeader, value []byte) bool {
		if len(found) == max {
			return false
		}
		found = append(found, Version{Revision: rev, Header: h, Bytes: len(value)})
		return true
	})
	return found, err
}

// FindOp finds the newest version of a key in the user keyspace that op wrote
// above revision above. It looks at all versions above that one: their number is
// the bound of its cost.
func (v *View) FindOp(key []byte, op shard.OpID, above shard.Revision) (rev shard.Revision, found bool, err error) {
	err = v.eachVersion(key, func(at shard.Revision, h VersionHeader, _ []byte) bool {
		if at <= above {
			return false
		}
		if h.Op == op {
			rev, found = at, true
		}
		return !found
	})
	return rev, found, err
}

// FindOpInSpan finds the newest revision above revision above at which op wrote
// keys of a span in the user keyspace, and how many of them: 0 if it wrote none.
// It looks at every key of the span, and at every version above that revision.
func (v *View) FindOpInSpan(span shard.Span, op shard.OpID, above shard.Revision) (rev shard.Revision, keys int, err error) {
	if err := v.bound(span); err != nil {
		return 0, 0, err
	}
	for ok := v.it.First(); ok; {
		key, at, err := parseDataKey(v.it.Key())
		if err != nil {
			return 0, 0, err
		}
		if at <= above {
			ok = v.it.NextPrefix()
			continue
		}
		h, _, _, err := v.version(key)
		if err != nil {
			return 0, 0, err
		}
		if h.Op == op {
			if at > rev {
				rev, keys = at, 0
			}
			if at == rev {
				keys++
			}
		}
		ok = v.it.Next()
	}
	return rev, keys, v.it.Error()
}

// Walk counts the steps of a walk over a span in the user keyspace that looks at
// every key, and at every version above revision above; MaxRevision: at the newest
// of each key alone. It ends after max steps.
func (v *View) Walk(span shard.Span, above shard.Revision, max int) (steps int, err error) {
	if err := v.bound(span); err != nil {
		return 0, err
	}
	for ok := v.it.First(); ok && steps < max; steps++ {
		_, rev, err := parseDataKey(v.it.Key())
		if err != nil {
			return 0, err
		}
		if rev > above {
			ok = v.it.Next()
		} else {
			ok = v.it.NextPrefix()
		}
	}
	return steps, v.it.Error()
}

// eachVersion visits the versions of a key newest first, until each is false.
// value is valid during the call.
func (v *View) eachVersion(key []byte, each func(rev shard.Revision, h VersionHeader, value []byte) bool) error {
	if err := v.unbound(key); err != nil {
		return err
	}
	v.key = appendDataKey(v.key[:0], key)
	// In the mode of a prefix seek the iterator ends with the key's versions.
	for ok := v.it.SeekPrefixGE(v.key); ok; ok = v.it.Next() {
		h, value, rev, err := v.version(key)
		if err != nil {
			return err
		}
		if !each(rev, h, value) {
			return nil
		}
	}
	return v.it.Error()
}

// version decodes the version at the iterator's position. value aliases it.
func (v *View) version(key []byte) (h VersionHeader, value []byte, rev shard.Revision, err error) {
	_, rev, err = parseDataKey(v.it.Key())
	if err != nil {
		return h, nil, 0, err
	}
	raw, err := v.it.ValueAndErr()
	if err == nil {
		h, value, err = decodeVersion(raw)
	}
	if err != nil {
		return h, nil, 0, fmt.Errorf("key %x at revision %d: %w", key, rev, err)
	}
	return h, value, rev, nil
}
