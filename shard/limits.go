package shard

import "fmt"

// Limits are enforced where input enters: in the client library, and again by
// the server. Lengths of keys count without the keyspace prefix.
const (
	KeyBytesMax     = 8 << 10 // a key has 1 B to 8 KiB
	ValueBytesMax   = 4 << 20 // a value has 0 B to 4 MiB
	RequestBytesMax = 8 << 20 // one encoded command
	PageBytesMax    = 4 << 20 // keys and values of one page of a scan
	PageRowsMax     = 10_000  // rows of one page of a scan
	BatchOpsMax     = 1000    // compares and operations of one batch
	DeleteRangeMax  = 1000    // keys that one piece of a delete-range removes
	RangeStepsMax   = 50_000  // versions and tombstones that one piece may pass
	DrawMax         = 1 << 20 // revisions of one draw

	// StartKeyBytesMax is the length of the longest full key at which a shard may start:
	// its record in the directory has it in its own key.
	StartKeyBytesMax = KeyBytesMax - 4

	// FrameBytesMax bounds a frame on any stream. One command of the largest
	// size always fits.
	FrameBytesMax = RequestBytesMax + 64<<10
)

// CheckKey refuses a full key (keyspace prefix included) that is empty or too long.
func CheckKey(key []byte) error {
	if len(key) < 2 {
		return &InvalidError{Field: "key", Reason: "is empty; a key has at least 1 byte"}
	}
	if len(key)-1 > KeyBytesMax {
		return &InvalidError{Field: "key", Reason: fmt.Sprintf("has %s bytes, the limit is %s", group(len(key)-1), group(KeyBytesMax))}
	}
	return nil
}

// CheckValue refuses a value that is too long.
func CheckValue(value []byte) error {
	if len(value) > ValueBytesMax {
		return &InvalidError{Field: "value", Reason: fmt.Sprintf("has %s bytes, the limit is %s", group(len(value)), group(ValueBytesMax))}
	}
	return nil
}

// group writes n with commas between groups of three digits.
func group(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
