// Package dirty is the dirty record: what the engine remembers of each page of a file
// since it was last written back.
package dirty

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"mapfs/mapping/paging"
)

// State is what the engine remembers of one page. Four pages share a
// machine word, so every change is an atomic And or Or.
type State uint8

const (
	// Loaded: the page has been read through the mapping, so it is in the
	// page table and a load will most likely not fault.
	Loaded State = 1 << iota
	// Written: the page has changed since the last write-back began.
	Written
	// Stored: the page was stored to through the mapping since the last
	// write-back, so it is writable in the page table and a store costs a copy
	// and nothing more.
	Stored
	// Syncing: the page is being written back by a Sync that is under way.
	Syncing
	// The page holds bytes that a power cut would take. The cause is kept: a
	// write(2), a store through somebody's mapping, or a change of size.
	UnsyncedWrite
	UnsyncedStore
	UnsyncedTruncate
	// Copied: the page's bytes are in the engine's memory and not in the
	// file, in the modes that copy.
	Copied
)

const (
	Unsynced = UnsyncedWrite | UnsyncedStore | UnsyncedTruncate
	// everyPage spreads a State over the four pages of a word.
	everyPage = 0x01010101
)

const (
	pagesPerWord  = 4
	wordsPerChunk = 256
	PagesPerChunk = pagesPerWord * wordsPerChunk
)

// chunk is the state of pagesPerChunk neighbouring pages. A file has only the
// chunks that were touched, so a sparse file of any size costs what is used of
// it: one byte a page.
type chunk struct {
	index int64 // of the first page, divided by pagesPerChunk
	words [wordsPerChunk]atomic.Uint32
	seen  seenPages
	// unsynced is set after a page of the chunk became unsynced and before the
	// change is acknowledged, and cleared by the Sync that finds none, so a Sync
	// can pass over clean chunks.
	unsynced atomic.Bool
}

// Record is the engine's own record of a file's pages, kept beside the
// kernel's because the kernel tells less: tmpfs and overlayfs never say dirty,
// and a dirty folio says nothing of which page was written.
//
// Lookups are safe at any time. The zero value is an empty record.
type Record struct {
	last atomic.Pointer[chunk] // the chunk used last
	seen atomic.Uint32         // of the first pages; see seenPages

	mu     sync.RWMutex
	chunks map[int64]*chunk
}

// Chunks returns how many chunks were made, of [PagesPerChunk] pages each.
func (r *Record) Chunks() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.chunks)
}

// chunk returns the chunk with the given index, or nil if it was never made.
func (r *Record) chunk(index int64) *chunk {
	if c := r.last.Load(); c != nil && c.index == index {
		return c
	}
	r.mu.RLock()
	c := r.chunks[index]
	r.mu.RUnlock()
	if c != nil {
		r.last.Store(c)
	}
	return c
}

// makeChunk returns the chunk with the given index and makes it if need be.
func (r *Record) makeChunk(index int64) *chunk {
	if c := r.chunk(index); c != nil {
		return c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.chunks[index]
	if c == nil {
		if r.chunks == nil {
			r.chunks = make(map[int64]*chunk)
		}
		c = &chunk{index: index}
		r.chunks[index] = c
	}
	return c
}

// wordMask returns the bits of word w (counted from the chunk's start) that
// belong to the pages [first, end) of the chunk, one bit a page at its lowest.
func wordMask(w, first, end int64) uint32 {
	mask := uint32(everyPage)
	base := w * pagesPerWord
	if first > base {
		mask &= everyPage << (8 * (first - base)) // a shift past the word leaves nothing
	}
	if end < base+pagesPerWord {
		mask &= everyPage >> (8 * (base + pagesPerWord - end))
	}
	return mask
}

// Set adds the given states to the pages that g touches.
func (r *Record) Set(g paging.Range, states State) {
	first, end := g.Pages()
	for first < end {
		c := r.makeChunk(first / PagesPerChunk)
		start := c.index * PagesPerChunk
		stop := min(end, start+PagesPerChunk)
		for w := (first - start) / pagesPerWord; w*pagesPerWord < stop-start; w++ {
			bits := wordMask(w, first-start, stop-start) * uint32(states)
			if c.words[w].Load()&bits != bits {
				c.words[w].Or(bits)
			}
		}
		if states&Unsynced != 0 && !c.unsynced.Load() {
			c.unsynced.Store(true)
		}
		first = stop
	}
}

// Clear takes the given states from the pages that g touches. It returns how many
// pages are copied no longer.
func (r *Record) Clear(g paging.Range, states State) (copied int64) {
	first, end := g.Pages()
	for _, c := range r.sorted() {
		start := c.index * PagesPerChunk
		if start >= end || start+PagesPerChunk <= first {
			continue
		}
		from, to := max(first-start, 0), min(end-start, PagesPerChunk)
		for w := from / pagesPerWord; w*pagesPerWord < to; w++ {
			gone := wordMask(w, from, to) * uint32(states)
			old := c.words[w].And(^gone)
			copied += int64(bits.OnesCount32(old & gone & (everyPage * uint32(Copied))))
		}
	}
	return copied
}

// Copy adds the given states to the pages that g touches, and that they are
// copied. It returns for how many that is new.
func (r *Record) Copy(g paging.Range, states State) (fresh int64) {
	states |= Copied
	first, end := g.Pages()
	for first < end {
		c := r.makeChunk(first / PagesPerChunk)
		start := c.index * PagesPerChunk
		stop := min(end, start+PagesPerChunk)
		for w := (first - start) / pagesPerWord; w*pagesPerWord < stop-start; w++ {
			add := wordMask(w, first-start, stop-start) * uint32(states)
			if c.words[w].Load()&add == add {
				continue
			}
			old := c.words[w].Or(add)
			fresh += int64(bits.OnesCount32(add &^ old & (everyPage * uint32(Copied))))
		}
		if states&Unsynced != 0 && !c.unsynced.Load() {
			c.unsynced.Store(true)
		}
		first = stop
	}
	return fresh
}

// Uncopy forgets everything about those pages that g touches that are copied, and
// returns how many they are.
func (r *Record) Uncopy(g paging.Range) (copied int64) {
	first, end := g.Pages()
	for _, c := range r.sorted() {
		start := c.index * PagesPerChunk
		if start >= end || start+PagesPerChunk <= first {
			continue
		}
		from, to := max(first-start, 0), min(end-start, PagesPerChunk)
		for w := from / pagesPerWord; w*pagesPerWord < to; w++ {
			for {
				v := c.words[w].Load()
				pages := v / uint32(Copied) & wordMask(w, from, to)
				if c.words[w].CompareAndSwap(v, v&^(pages*0xff)) {
					copied += int64(bits.OnesCount32(pages))
					break
				}
			}
		}
	}
	return copied
}

// All reports whether every page that g touches has all of the given states.
func (r *Record) All(g paging.Range, states State) bool {
	first, end := g.Pages()
	for first < end {
		c := r.chunk(first / PagesPerChunk)
		if c == nil {
			return false
		}
		start := c.index * PagesPerChunk
		stop := min(end, start+PagesPerChunk)
		for w := (first - start) / pagesPerWord; w*pagesPerWord < stop-start; w++ {
			bits := wordMask(w, first-start, stop-start) * uint32(states)
			if c.words[w].Load()&bits != bits {
				return false
			}
		}
		first = stop
	}
	return true
}

// Forget clears everything about the pages from the first wholly past size:
// they are gone, and whatever appears there later is new. It returns how many of
// them were copied.
func (r *Record) Forget(size int64) (copied int64) {
	if up, ok := paging.PageUp(size); ok {
		return r.Clear(paging.Range{Off: up, End: math.MaxInt64}, ^State(0))
	}
	return 0
}

// Unmapped clears what is known of page tables: the mapping is gone.
func (r *Record) Unmapped() {
	for _, c := range r.sorted() {
		for w := range c.words {
			if v := c.words[w].Load(); v&(everyPage*uint32(Loaded|Stored)) != 0 {
				c.words[w].And(^uint32(everyPage * uint32(Loaded|Stored)))
			}
		}
	}
}

// Clone returns a copy of the record. Nobody may change r meanwhile.
func (r *Record) Clone() *Record {
	c := &Record{chunks: make(map[int64]*chunk)}
	for _, from := range r.sorted() {
		to := &chunk{index: from.index}
		for w := range from.words {
			to.words[w].Store(from.words[w].Load())
		}
		to.unsynced.Store(from.unsynced.Load())
		c.chunks[to.index] = to
	}
	return c
}

// sorted returns the chunks in the order of the file.
func (r *Record) sorted() []*chunk {
	r.mu.RLock()
	chunks := make([]*chunk, 0, len(r.chunks))
	for _, c := range r.chunks {
		chunks = append(chunks, c)
	}
	r.mu.RUnlock()
	slices.SortFunc(chunks, func(a, b *chunk) int {
		if a.index < b.index {
			return -1
		}
		return 1
	})
	return chunks
}

// within returns the chunks that have pages of [first, end), in the order of the
// file. It takes time for the smaller of the span and all chunks, so that a look
// at a file run by run costs no more than a look at once.
func (r *Record) within(first, end int64) []*chunk {
	low, high := first/PagesPerChunk, (end+PagesPerChunk-1)/PagesPerChunk
	r.mu.RLock()
	known := int64(len(r.chunks))
	r.mu.RUnlock()
	var chunks []*chunk
	if high-low <= known {
		for index := low; index < high; index++ {
			if c := r.chunk(index); c != nil {
				chunks = append(chunks, c)
			}
		}
		return chunks
	}
	for _, c := range r.sorted() {
		if c.index >= low && c.index < high {
			chunks = append(chunks, c)
		}
	}
	return chunks
}

// BeginSync marks every unsynced page that g touches as being written back and
// returns how many there are. A page that changes from now on is Written
// again and stays unsynced after the endSync that follows. The pages also lose
// their warmth: write-back makes them read-only in the page table.
func (r *Record) BeginSync(g paging.Range) int64 {
	first, end := g.Pages()
	count := 0
	for _, c := range r.sorted() {
		start := c.index * PagesPerChunk
		if !c.unsynced.Load() || start >= end || start+PagesPerChunk <= first {
			continue
		}
		from, to := max(first-start, 0), min(end-start, PagesPerChunk)
		for w := from / pagesPerWord; w*pagesPerWord < to; w++ {
			mask := wordMask(w, from, to)
			for {
				v := c.words[w].Load()
				pages := causes(v) & mask
				if pages == 0 {
					break
				}
				next := v&^(pages*uint32(Written|Stored)) | pages*uint32(Syncing)
				if c.words[w].CompareAndSwap(v, next) {
					count += bits.OnesCount32(pages)
					break
				}
			}
		}
	}
	return int64(count)
}

// causes returns one bit, at its lowest, for each page of word v that is
// unsynced for whatever cause.
func causes(v uint32) uint32 {
	return (v/uint32(UnsyncedWrite) | v/uint32(UnsyncedStore) | v/uint32(UnsyncedTruncate)) & everyPage
}

// EndSync ends what beginSync began: the pages that were being written back and
// have not changed since are clean, or, when the write-back failed, unsynced as
// before.
func (r *Record) EndSync(failed bool) {
	for _, c := range r.sorted() {
		if !c.unsynced.Load() {
			continue
		}
		c.unsynced.Store(false) // before the look: a change from now on sets it again
		left := false
		for w := range c.words {
			for {
				v := c.words[w].Load()
				syncing := v / uint32(Syncing) & everyPage
				done := syncing &^ (v / uint32(Written))
				if failed {
					done = 0
				}
				next := v &^ (syncing*uint32(Syncing) | done*uint32(Unsynced))
				if next == v || c.words[w].CompareAndSwap(v, next) {
					left = left || causes(next) != 0
					break
				}
			}
		}
		if left {
			c.unsynced.Store(true)
		}
	}
}

// EachSyncing calls fn for every page that is being written back, until fn
// returns false.
func (r *Record) EachSyncing(fn func(page int64) bool) {
	for _, c := range r.sorted() {
		if !c.unsynced.Load() {
			continue
		}
		for w := range c.words {
			syncing := c.words[w].Load() / uint32(Syncing) & everyPage
			for ; syncing != 0; syncing &= syncing - 1 {
				at := int64(w*pagesPerWord + bits.TrailingZeros32(syncing)/8)
				if !fn(c.index*PagesPerChunk + at) {
					return
				}
			}
		}
	}
}

// Unsynced reports whether any page may be unsynced.
func (r *Record) Unsynced() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, c := range r.chunks {
		if c.unsynced.Load() {
			return true
		}
	}
	return false
}

// UnsyncedPages returns the number of pages that are not known to be on the
// device.
func (r *Record) UnsyncedPages() int64 {
	n := 0
	for _, c := range r.sorted() {
		if !c.unsynced.Load() {
			continue
		}
		for w := range c.words {
			n += bits.OnesCount32(causes(c.words[w].Load()))
		}
	}
	return int64(n)
}
