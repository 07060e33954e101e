package storage

import (
	"encoding/binary"
	"fmt"

	"github.com/kiloraft/kiloraft/shard"
)

// Every key follows the rules of Pebble's cockroachkvs package: a prefix that
// ends in the sentinel byte 0x00, then perhaps a suffix whose last byte is the
// suffix's length. Prefixes order as bytes, an empty suffix comes before all
// others, and suffixes order descending, so that the newest version is first.
//
//	0x01 's' 'i' 00                               identity
//	0x01 's' 'a' node(8) 00                       address of a node
//	0x01 'r' shard(8) kind(1) 00                  a replica's record; see the kinds
//	0x01 'r' shard(8) 0x10 index(8) 00            an entry of a replica's log
//	0x02 key 00                                   an unversioned key (system keyspace)
//	0x02 key 00 revision(8) 09                    a version of a key (user keyspace)
//	0x02 key 00 ff transaction(16) 12             reserved: a lock of a transaction
//
// key is a full key: keyspace byte and user key. Numbers are big endian.
//
// Keys order as bytes.Compare of full keys does, whatever bytes they hold:
// where one key is a prefix of another, its sentinel meets a byte of the longer
// one that is larger, or is 00 too and then the shorter prefix ends first.
//
// A lock's suffix (17 bytes and their length) lies inside the user's span, so
// that locks move with their keys through splits, snapshots and range deletions.
// Its first byte ff is above that of every revision (below 1<<63), so locks come
// before the versions of their key. Nothing writes them yet; a View refuses them.
const (
	localPrefix byte = 0x01
	dataPrefix  byte = 0x02
	sentinel    byte = 0x00

	storeRecords   byte = 's'
	identityRecord byte = 'i'
	addressRecord  byte = 'a'

	replicaRecords byte = 'r'

	versionSuffixLen = 9
)

// recordKind is a kind of record of a replica. All others come before the log,
// so that a replica's records are found without a walk through its entries.
type recordKind byte

const (
	stateRecord     recordKind = 0x01 // replicated state
	voteRecord      recordKind = 0x02 // term and vote
	commitRecord    recordKind = 0x03
	tombstoneRecord recordKind = 0x04
	birthRecord     recordKind = 0x05 // whose state a split wrote
	logRecords      recordKind = 0x10
	afterLogRecords recordKind = 0x11
)

func identityKey() []byte { return []byte{localPrefix, storeRecords, identityRecord, sentinel} }

const addressKeyLen = 3 + 8 + 1

func addressKey(node shard.NodeID) []byte {
	k := make([]byte, 0, addressKeyLen)
	k = append(k, localPrefix, storeRecords, addressRecord)
	k = binary.BigEndian.AppendUint64(k, uint64(node))
	return append(k, sentinel)
}

func addressBounds() (lower, upper []byte) {
	return []byte{localPrefix, storeRecords, addressRecord, sentinel},
		[]byte{localPrefix, storeRecords, addressRecord + 1, sentinel}
}

const (
	recordKeyLen = 2 + 8 + 1 + 1
	logKeyLen    = 2 + 8 + 1 + 8 + 1
)

// recordKey is the key of a replica's record; with logRecords and
// afterLogRecords it bounds the log.
func recordKey(id shard.ID, kind recordKind) []byte {
	k := make([]byte, 0, recordKeyLen)
	k = append(k, localPrefix, replicaRecords)
	k = binary.BigEndian.AppendUint64(k, uint64(id))
	return append(k, byte(kind), sentinel)
}

func logKey(id shard.ID, index uint64) []byte {
	k := make([]byte, logKeyLen)
	putLogKey(k, id, index)
	return k
}

func putLogKey(k []byte, id shard.ID, index uint64) {
	k[0], k[1] = localPrefix, replicaRecords
	putUint64(k[2:], uint64(id))
	k[10] = byte(logRecords)
	putUint64(k[11:], index)
	k[19] = sentinel
}

func logIndex(key []byte) (uint64, error) {
	if len(key) != logKeyLen || key[10] != byte(logRecords) {
		return 0, malformed("key %x is not of a log", key)
	}
	return binary.BigEndian.Uint64(key[11:]), nil
}

// replicaBounds enclose the records of all replicas.
func replicaBounds() (lower, upper []byte) {
	return []byte{localPrefix, replicaRecords, sentinel}, []byte{localPrefix, replicaRecords + 1, sentinel}
}

func parseRecordKey(key []byte) (shard.ID, recordKind, error) {
	if len(key) < recordKeyLen {
		return 0, 0, malformed("key %x is not of a replica", key)
	}
	return shard.ID(binary.BigEndian.Uint64(key[2:])), recordKind(key[10]), nil
}

// dataKeyLen is the length of the key of an unversioned record.
func dataKeyLen(key []byte) int { return 1 + len(key) + 1 }

// appendDataKey appends the bare prefix of key: the key of an unversioned
// record, and the lower bound of all of a key's versions.
func appendDataKey(b, key []byte) []byte {
	b = append(b, dataPrefix)
	b = append(b, key...)
	return append(b, sentinel)
}

func appendVersionKey(b, key []byte, rev shard.Revision) []byte {
	b = appendDataKey(b, key)
	b = binary.BigEndian.AppendUint64(b, uint64(rev))
	return append(b, versionSuffixLen)
}

// dataBounds enclose all data.
func dataBounds() (lower, upper []byte) {
	return []byte{dataPrefix, sentinel}, []byte{dataPrefix + 1, sentinel}
}

// spanBounds enclose the data of a span, with all versions of its keys.
func spanBounds(span shard.Span) (lower, upper []byte) {
	return appendDataKey(nil, span.Start), appendDataKey(nil, span.End)
}

// parseDataKey splits a data key into the full key, which aliases k, and the
// revision, 0 for an unversioned key.
func parseDataKey(k []byte) (key []byte, rev shard.Revision, err error) {
	if len(k) < 3 || k[0] != dataPrefix {
		return nil, 0, malformed("key %x is not of data", k)
	}
	suffix := int(k[len(k)-1])
	end := len(k) - suffix - 1
	if suffix == 0 && k[1] == shard.SystemKeyspace {
		return k[1:end], 0, nil
	}
	if suffix == versionSuffixLen && end > 1 && k[end] == sentinel && k[1] == shard.UserKeyspace {
		rev = shard.Revision(binary.BigEndian.Uint64(k[end+1:]))
		if rev == 0 || rev > shard.MaxRevision {
			return nil, 0, malformed("revision %d in a key", uint64(rev))
		}
		return k[1:end], rev, nil
	}
	return nil, 0, malformed("data key %x has a suffix of %d bytes", k, suffix)
}

// versioned tells which keyspace key is in.
func versioned(key []byte) bool { return len(key) > 0 && key[0] == shard.UserKeyspace }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", shard.ErrMalformed, fmt.Sprintf(format, args...))
}
