package dirty

import (
	"sync/atomic"

	"mapfs/mapping/paging"
)

// seenPages is a set of pages, one bit each.
type seenPages [PagesPerChunk / 32]atomic.Uint32

// see adds the pages [first, end) and reports whether one of them is new.
func (s *seenPages) see(first, end int64) (fresh bool) {
	for first < end {
		w := first / 32
		stop := min(end, (w+1)*32)
		if seeIn(&s[w], first-w*32, stop-w*32) {
			fresh = true
		}
		first = stop
	}
	return fresh
}

// seeIn sets the bits [first, end) of a word and reports whether one of them is new.
func seeIn(word *atomic.Uint32, first, end int64) bool {
	mask := uint32(1<<end - 1<<first)
	return word.Load()&mask != mask && word.Or(mask)&mask != mask
}

// See notes that the pages of g are read and reports whether one of them was not
// before. The first pages have their bits in the record itself: a small file that is
// read once needs no chunk.
func (r *Record) See(g paging.Range) (fresh bool) {
	first, end := g.Pages()
	if end <= 32 {
		return seeIn(&r.seen, first, end)
	}
	for first < end {
		c := r.makeChunk(first / PagesPerChunk)
		start := c.index * PagesPerChunk
		stop := min(end, start+PagesPerChunk)
		if c.seen.see(first-start, stop-start) {
			fresh = true
		}
		first = stop
	}
	return fresh
}
