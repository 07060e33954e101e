package machine

import (
	"bytes"
	"encoding/binary"

	"github.com/kiloraft/kiloraft/raftgroup"
	"github.com/kiloraft/kiloraft/shard"
	"github.com/kiloraft/kiloraft/storage"
)

// applyUnversioned carries out a command on the system keyspace. Its keys hold
// one value each; commands that depend on it see everything before them in the
// log, this turn's writes included.
func (m *Machine) applyUnversioned(b *storage.Batch, c *shard.Command) (raftgroup.Result, error) {
	switch c.Kind {
	case shard.KindPut:
		m.set(b, c.Key, c.Value)
		return raftgroup.Result{}, nil
	case shard.KindDelete:
		m.remove(b, c.Key)
		return raftgroup.Result{}, nil
	case shard.KindIncrement:
		return m.increment(b, c)
	default:
		return m.compareAndPut(b, c)
	}
}

// increment adds to a counter: 8 bytes, big endian, 0 while the key is missing.
func (m *Machine) increment(b *storage.Batch, c *shard.Command) (raftgroup.Result, error) {
	value, found, err := m.lookup(c.Key)
	if err != nil {
		return raftgroup.Result{}, err
	}
	var n uint64
	if found {
		if len(value) != 8 {
			return raftgroup.Result{Err: &shard.InvalidError{Field: "key", Reason: "holds no counter"}}, nil
		}
		n = binary.BigEndian.Uint64(value)
	}
	if n+c.Delta < n {
		return raftgroup.Result{Err: &shard.InvalidError{Field: "delta", Reason: "makes the counter larger than 64 bits"}}, nil
	}
	sum := binary.BigEndian.AppendUint64(nil, n+c.Delta)
	m.set(b, c.Key, sum)
	return raftgroup.Result{Found: found, Data: sum}, nil
}

// compareAndPut writes or removes the key if its value is the expected one.
// ExpectAbsent takes precedence over Expect.
func (m *Machine) compareAndPut(b *storage.Batch, c *shard.Command) (raftgroup.Result, error) {
	value, found, err := m.lookup(c.Key)
	if err != nil {
		return raftgroup.Result{}, err
	}
	holds := !found
	if !c.ExpectAbsent {
		holds = found && bytes.Equal(value, c.Expect)
	}
	if !holds {
		return raftgroup.Result{Data: bytes.Clone(value)}, nil
	}
	if c.Remove {
		m.remove(b, c.Key)
	} else {
		m.set(b, c.Key, c.Value)
	}
	return raftgroup.Result{Found: true}, nil
}

func (m *Machine) set(b *storage.Batch, key, value []byte) {
	b.PutUnversioned(key, value)
	m.staged.put(key, bytes.Clone(value), true)
	m.counted(key, value)
}

func (m *Machine) remove(b *storage.Batch, key []byte) {
	b.DeleteUnversioned(key)
	m.staged.put(key, nil, false)
	m.counted(key, nil)
}
