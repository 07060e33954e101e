package storage

import (
	"bytes"
	"errors"
	"testing"

	"github.com/kiloraft/kiloraft/shard"
)

// FuzzRecordKey: whatever key lies among the replicas' records, it is refused or
// read as what it was made of.
func FuzzRecordKey(f *testing.F) {
	f.Add(recordKey(300, stateRecord))
	f.Add(recordKey(1, voteRecord))
	f.Add(logKey(7, 1<<40))
	f.Add([]byte{localPrefix, replicaRecords, sentinel})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, kind, err := parseRecordKey(b)
		if err == nil && kind == logRecords && len(b) == logKeyLen && b[0] == localPrefix && b[1] == replicaRecords && b[len(b)-1] == sentinel {
			index, err := logIndex(b)
			if err != nil || !bytes.Equal(logKey(id, index), b) {
				t.Fatalf("%x is read as entry %d of shard %d, %v", b, index, id, err)
			}
		}
		if err == nil && len(b) == recordKeyLen && b[0] == localPrefix && b[1] == replicaRecords && b[len(b)-1] == sentinel && !bytes.Equal(recordKey(id, kind), b) {
			t.Fatalf("%x is read as record %d of shard %d", b, kind, id)
		}
		if _, indexErr := logIndex(b); err != nil && !errors.Is(err, shard.ErrMalformed) || indexErr != nil && !errors.Is(indexErr, shard.ErrMalformed) {
			t.Fatalf("%v, %v", err, indexErr)
		}
	})
}
