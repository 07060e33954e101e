package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The manifest is Pebble's log of which files make up the store, in the format of
// LevelDB's logs: blocks of 32 KiB, and in them chunks
//
//	checksum(4) length(2) type(1) data
//
// of which a record has one (full), or several (first, middle, last). A first one has no
// data if just its header fits into its block.
const (
	manifestBlockBytes = 32 << 10
	chunkHeaderBytes   = 7
	fullRecord         = 1
	firstOfRecord      = 2
	lastOfRecord       = 4
)

// checkManifest refuses a store whose manifest is corrupt before its last record.
//
// Pebble takes the first record that it cannot read for one that a crash has cut
// short, and opens the store as it was before that. Of what was written since it
// deletes the files: replicas would come back that have forgotten what they have
// promised. But each record is synced before the next one is written, so what a
// crash has left of the last one is followed by no other record's beginning.
func checkManifest(fs vfs.FS, dir string) error {
	desc, err := pebble.Peek(dir, fs)
	if err != nil || !desc.Exists {
		return err // what pebble.Open makes of it
	}
	f, err := fs.Open(desc.ManifestFilename)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	at := 0
	for next, kind := manifestChunk(b, at); kind != 0; next, kind = manifestChunk(b, at) {
		at = next
	}
	for p := at + 1; p < len(b); p++ {
		if _, kind := manifestChunk(b, p); kind == fullRecord || kind == firstOfRecord {
			return fmt.Errorf("%s: the record at byte %d cannot be read, and one at byte %d can", fs.PathBase(desc.ManifestFilename), at, p)
		}
	}
	return nil
}

// manifestChunk reads the chunk at a place, and tells where the next one is. kind 0:
// there is none.
func manifestChunk(b []byte, at int) (next int, kind byte) {
	if left := manifestBlockBytes - at%manifestBlockBytes; left < chunkHeaderBytes {
		at += left // too little for a header: it is filled up
	}
	if at+chunkHeaderBytes > len(b) {
		return at, 0
	}
	data := at + chunkHeaderBytes
	next = data + int(binary.LittleEndian.Uint16(b[at+4:]))
	kind = b[at+6]
	if next > len(b) || next > at-at%manifestBlockBytes+manifestBlockBytes || kind < fullRecord || kind > lastOfRecord {
		return at, 0
	}
	const mask = 0xa282ead8
	sum := crc32.Checksum(b[at+6:next], castagnoli)
	if (sum>>15|sum<<17)+mask != binary.LittleEndian.Uint32(b[at:]) {
		return at, 0
	}
	return next, kind
}
