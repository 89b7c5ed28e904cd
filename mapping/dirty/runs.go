package dirty

import (
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// Runs calls emit for runs of the pages [first, end) with equal states, in order
// and without gaps, until emit returns false. Pages of which nothing is recorded
// have no states.
func (r *Record) Runs(first, end int64, emit func(run pagestate.Run, states State) bool) {
	at := first
	var current State
	start := first
	// step extends the run to [.., page) or ends it where the states change.
	step := func(page int64, states State) bool {
		if states == current {
			return true
		}
		if page > start && !emit(pagestate.Run{First: start, End: page}, current) {
			return false
		}
		start, current = page, states
		return true
	}
	for _, c := range r.within(first, end) {
		base := c.index * PagesPerChunk
		if base > at && !step(at, 0) {
			return
		}
		for at = max(at, base); at < min(end, base+PagesPerChunk); at++ {
			i := at - base
			states := State(c.words[i/pagesPerWord].Load() >> (8 * (i % pagesPerWord)))
			if !step(at, states) {
				return
			}
		}
	}
	if at < end && !step(at, 0) {
		return
	}
	if end > start {
		emit(pagestate.Run{First: start, End: end}, current)
	}
}

// Cause says what made bytes unsynced.
type Cause string

// The causes.
const (
	Write    Cause = "write"    // write(2)
	Store    Cause = "store"    // a store through a client's mapping
	Truncate Cause = "truncate" // a change of size, or of holes
	Unknown  Cause = "unknown"  // the kernel says that there are any, and no more
)

// cause returns the cause in a page's state; a store before a write before a
// truncation, if there were several.
func (p State) cause() Cause {
	switch {
	case p&UnsyncedStore != 0:
		return Store
	case p&UnsyncedWrite != 0:
		return Write
	}
	return Truncate
}

// UnsyncedRanges calls emit for the unsynced ranges of a file of the given size.
func (r *Record) UnsyncedRanges(size int64, emit func(paging.Range, Cause) bool) {
	var held paging.Range
	var cause Cause
	_, count := paging.Range{Off: 0, End: size}.Pages()
	r.Runs(0, count, func(run pagestate.Run, states State) bool {
		if states&Unsynced == 0 {
			return true
		}
		g := paging.Range{Off: run.First * paging.PageSize, End: min(run.End*paging.PageSize, size)}
		if held.End == g.Off && cause == states.cause() && !held.Empty() {
			held.End = g.End
			return true
		}
		if !held.Empty() && !emit(held, cause) {
			held = paging.Range{}
			return false
		}
		held, cause = g, states.cause()
		return true
	})
	if !held.Empty() {
		emit(held, cause)
	}
}

// UnsyncedBytes counts the unsynced bytes of a file of the given size.
func (r *Record) UnsyncedBytes(size int64) int64 {
	if !r.Unsynced() {
		return 0
	}
	var total int64
	r.UnsyncedRanges(size, func(g paging.Range, _ Cause) bool {
		total += g.Len()
		return true
	})
	return total
}
