package mapping

// runs calls emit for runs of the pages [first, end) with equal states, in order
// and without gaps, until emit returns false. Pages of which nothing is recorded
// have no states.
func (r *pageRecord) runs(first, end int64, emit func(run PageRun, states pageState) bool) {
	at := first
	var current pageState
	start := first
	// step extends the run to [.., page) or ends it where the states change.
	step := func(page int64, states pageState) bool {
		if states == current {
			return true
		}
		if page > start && !emit(PageRun{First: start, End: page}, current) {
			return false
		}
		start, current = page, states
		return true
	}
	for _, c := range r.within(first, end) {
		base := c.index * pagesPerChunk
		if base > at && !step(at, 0) {
			return
		}
		for at = max(at, base); at < min(end, base+pagesPerChunk); at++ {
			i := at - base
			states := pageState(c.words[i/pagesPerWord].Load() >> (8 * (i % pagesPerWord)))
			if !step(at, states) {
				return
			}
		}
	}
	if at < end && !step(at, 0) {
		return
	}
	if end > start {
		emit(PageRun{First: start, End: end}, current)
	}
}

// Cause says what made bytes unsynced.
type Cause string

// The causes.
const (
	CauseWrite    Cause = "write"    // write(2)
	CauseStore    Cause = "store"    // a store through a client's mapping
	CauseTruncate Cause = "truncate" // a change of size, or of holes
)

// cause returns the cause in a page's state; a store before a write before a
// truncation, if there were several.
func (p pageState) cause() Cause {
	switch {
	case p&pageUnsyncedStore != 0:
		return CauseStore
	case p&pageUnsyncedWrite != 0:
		return CauseWrite
	}
	return CauseTruncate
}

// unsyncedRanges calls emit for the unsynced ranges of a file of the given size.
func (r *pageRecord) unsyncedRanges(size int64, emit func(Range, Cause) bool) {
	var held Range
	var cause Cause
	_, count := Range{0, size}.Pages()
	r.runs(0, count, func(run PageRun, states pageState) bool {
		if states&pageUnsynced == 0 {
			return true
		}
		g := Range{run.First * PageSize, min(run.End*PageSize, size)}
		if held.End == g.Off && cause == states.cause() && !held.Empty() {
			held.End = g.End
			return true
		}
		if !held.Empty() && !emit(held, cause) {
			held = Range{}
			return false
		}
		held, cause = g, states.cause()
		return true
	})
	if !held.Empty() {
		emit(held, cause)
	}
}

// unsyncedBytes counts the unsynced bytes of a file of the given size.
func (r *pageRecord) unsyncedBytes(size int64) int64 {
	if !r.unsynced() {
		return 0
	}
	var total int64
	r.unsyncedRanges(size, func(g Range, _ Cause) bool {
		total += g.Len()
		return true
	})
	return total
}
