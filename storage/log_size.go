package storage

// logSizes tells how many bytes the entries of any part of a log have, roughly,
// without looking at them: it keeps the running total at some indexes, and takes
// the entries between two of them to be of one size.
//
// Invariants: points are in ascending order of index and of bytes; the first is
// the anchor, the last is the log's end.
type logSizes struct {
	points []sizePoint
}

type sizePoint struct {
	index uint64
	bytes int64 // of all entries up to and including index, from an arbitrary origin
}

// sizePointBytes is the distance of two points: the error of a truncation is
// below it, and does not add up over truncations.
const sizePointBytes = 128 << 10

func (s *logSizes) reset(anchor uint64) {
	s.points = append(s.points[:0], sizePoint{index: anchor})
}

func (s *logSizes) bytes() int64 {
	if len(s.points) == 0 {
		return 0
	}
	return s.points[len(s.points)-1].bytes - s.points[0].bytes
}

// add counts an entry of n bytes at index, the one after the last.
func (s *logSizes) add(index uint64, n int64) {
	if len(s.points) == 0 {
		s.reset(index - 1)
	}
	end := len(s.points) - 1
	total := s.points[end].bytes + n
	if end == 0 || s.points[end].bytes-s.points[end-1].bytes >= sizePointBytes {
		s.points = append(s.points, sizePoint{index, total})
		return
	}
	s.points[end] = sizePoint{index, total}
}

// at is the running total at index, which lies between the first and last point.
func (s *logSizes) at(index uint64) int64 {
	i := len(s.points) - 1
	for i > 0 && s.points[i-1].index >= index {
		i--
	}
	p := s.points[i]
	if i == 0 || p.index <= index {
		return p.bytes
	}
	before := s.points[i-1]
	share := float64(index-before.index) / float64(p.index-before.index)
	return before.bytes + int64(share*float64(p.bytes-before.bytes))
}

// cutAbove forgets what is above index.
func (s *logSizes) cutAbove(index uint64) {
	if len(s.points) == 0 {
		return
	}
	end := sizePoint{index, s.at(index)}
	n := len(s.points)
	for n > 1 && s.points[n-1].index >= index {
		n--
	}
	s.points = s.points[:n]
	if end.index > s.points[n-1].index {
		s.points = append(s.points, end)
	}
}

// cutBelow makes index the anchor.
func (s *logSizes) cutBelow(index uint64) {
	if len(s.points) == 0 {
		return
	}
	anchor := sizePoint{index, s.at(index)}
	n := 0
	for n < len(s.points) && s.points[n].index <= index {
		n++
	}
	rest := s.points[n:]
	s.points = append(append(s.points[:0:0], anchor), rest...)
}
