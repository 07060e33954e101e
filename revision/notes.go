package revision

import (
	"encoding/binary"

	"github.com/kiloraft/kiloraft/shard"
)

// Notes carries a few bytes to another node, which may be lost; *raftgroup.Host does.
type Notes interface {
	Note(to shard.NodeID, note []byte) bool
}

// A draw of another node's leader travels as a note among the groups' messages, and
// so does its answer, and so does what a leader asks the witness of its own draw:
// under load they share frames that leave anyway. A note that is lost costs
// noteWait; then, and whenever the note says no, the draw takes the way of any other
// command, which follows the leader wherever it goes.
//
//	draw       1, number of the draw, revisions, voter
//	its answer 2, number of the draw, first revision (0: refused), term
//	witness    3, number of the draw, replica of the meta shard that is asked, 0
//	its answer 4, number of the draw, that replica, its term (0: it is not there)
//
// All but the first byte are uvarints.
const (
	noteDraw    byte = 1
	noteGrant   byte = 2
	noteWitness byte = 3
	noteTerm    byte = 4
)

// sendNote asks the meta shard's leader by a note, or the witness if this node's
// replica leads. It is false if nobody was asked.
func (d *Draws) sendNote(number uint64, n int) bool {
	meta, here := d.cfg.Grants.meta()
	if !here || d.cfg.Notes == nil {
		return false
	}
	l := meta.Leadership()
	switch {
	case l.Leading:
		return d.askWitness(meta, number, n)
	case l.Node == 0:
		return false
	}
	return d.cfg.Notes.Note(l.Node, appendNote(nil, noteDraw, number, uint64(n), uint64(meta.Self())))
}

// Note takes a note of another node. It is the host's Config.Note.
func (d *Draws) Note(from shard.NodeID, note []byte) {
	kind, number, a, b, ok := decodeNote(note)
	switch {
	case !ok:
	case kind == noteDraw && a <= shard.DrawMax:
		d.cfg.Grants.Grant(int(a), shard.ReplicaID(b), func(first shard.Revision, term uint64, err error) {
			if err != nil {
				first = 0
			}
			d.cfg.Notes.Note(from, appendNote(nil, noteGrant, number, uint64(first), term))
		})
	case kind == noteGrant:
		d.noted(number, shard.Revision(a), b)
	case kind == noteWitness:
		d.cfg.Notes.Note(from, appendNote(nil, noteTerm, number, a, d.termOf(shard.ReplicaID(a))))
	case kind == noteTerm:
		d.witnessed(number, shard.ReplicaID(a), b)
	}
}

// noted takes the answer to a note.
func (d *Draws) noted(number uint64, first shard.Revision, term uint64) {
	d.mu.Lock()
	waits := d.number == number && d.noting && d.own.voter == 0
	d.noting = d.noting && !waits
	n := d.asked
	d.mu.Unlock()
	if !waits {
		return // it was given up, or asked for in another way
	}
	if first == 0 || first > shard.MaxRevision-shard.DrawMax || term != 0 && !d.confirm(d.voter(), term) {
		d.ask(number, n, 0)
		return
	}
	d.answered(number, first, nil)
}

// voter is this node's replica of the meta shard, 0 if it has none.
func (d *Draws) voter() shard.ReplicaID {
	if meta, here := d.cfg.Grants.meta(); here {
		return meta.Self()
	}
	return 0
}

func appendNote(b []byte, kind byte, fields ...uint64) []byte {
	b = append(b, kind)
	for _, f := range fields {
		b = binary.AppendUvarint(b, f)
	}
	return b
}

func decodeNote(note []byte) (kind byte, number, a, b uint64, ok bool) {
	if len(note) == 0 {
		return 0, 0, 0, 0, false
	}
	kind, rest := note[0], note[1:]
	for _, f := range []*uint64{&number, &a, &b} {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, 0, 0, 0, false
		}
		*f, rest = v, rest[n:]
	}
	return kind, number, a, b, len(rest) == 0
}
