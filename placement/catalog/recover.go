package catalog

// Counters of a meta shard that is recovered from a replica that may lag jump ahead by
// more than the lost ones can have handed out: no ID is ever given twice.
const (
	recoveredNodes      = 1_000
	recoveredShards     = 100_000
	recoveredOperations = 1_000_000
)

// RecoveredCounters are the counters' records after a recovery of the meta shard. get
// reads a record as it is, nil if there is none.
func RecoveredCounters(get func(key []byte) ([]byte, error)) ([]Write, error) {
	var ws []Write
	for _, c := range []struct {
		name string
		jump uint64
	}{{nodeCounter, recoveredNodes}, {shardCounter, recoveredShards}, {opCounter, recoveredOperations}} {
		key := counterKey(c.name)
		record, err := get(key)
		if err != nil {
			return nil, err
		}
		var last uint64
		if record != nil || c.name != opCounter { // the one that a cluster is not born with
			if last, err = decodeCounter(record); err != nil {
				return nil, err
			}
		}
		ws = append(ws, Write{Key: key, Value: encodeCounter(last + c.jump)})
	}
	return ws, nil
}
