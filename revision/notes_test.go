package revision

import "testing"

// FuzzNote: whatever a node sends as a note is dropped or read as it was written.
func FuzzNote(f *testing.F) {
	f.Add(appendNote(nil, noteDraw, 1, 300, 2))
	f.Add(appendNote(nil, noteGrant, 1, 1<<40, 7))
	f.Add(appendNote(nil, noteGrant, 1<<63, 0, 0))
	f.Add([]byte{})
	f.Add([]byte{noteDraw, 0x80})
	f.Fuzz(func(t *testing.T, note []byte) {
		kind, number, a, b, ok := decodeNote(note)
		if !ok {
			return
		}
		again := appendNote(nil, kind, number, a, b)
		k, n, x, y, ok := decodeNote(again)
		if !ok || k != kind || n != number || x != a || y != b || len(again) > len(note) {
			t.Fatalf("%x is read as %d %d %d %d, and that as %d %d %d %d", note, kind, number, a, b, k, n, x, y)
		}
	})
}
