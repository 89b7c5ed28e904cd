package mapping

import (
	"golang.org/x/sys/unix"
)

// PageFlags say in what state a page of a file is.
type PageFlags uint8

// What can be said of a page. The first three are the kernel's word, Unsynced is
// the engine's own record; where the two differ both are shown.
const (
	PageResident  PageFlags = 1 << iota // in the page cache
	PageDirty                           // modified in memory
	PageWriteback                       // on its way to the device
	PageCopied                          // copied on write: no longer the file's
	PageUnsynced                        // has bytes that a power cut would take
	PageTail                            // has the end of the file
)

// flagLetters are the letters of the flags, in the order of their bits.
const flagLetters = "RDWCUT"

// String returns the letters of the flags that are set, or "-".
func (p PageFlags) String() string {
	if p == 0 {
		return "-"
	}
	var b []byte
	for i := range len(flagLetters) {
		if p&(1<<i) != 0 {
			b = append(b, flagLetters[i])
		}
	}
	return string(b)
}

// PageRun is a run of pages in the same state, from First to before End.
type PageRun struct {
	First, End int64
	Flags      PageFlags
}

// runJoiner passes runs on, neighbours of equal flags joined.
type runJoiner struct {
	run  PageRun
	emit func(PageRun) bool
	done bool
}

// add takes the next run and reports whether more are wanted.
func (j *runJoiner) add(r PageRun) bool {
	if r.First == r.End || j.done {
		return !j.done
	}
	if j.run.End == r.First && j.run.Flags == r.Flags && j.run.First != j.run.End {
		j.run.End = r.End
		return true
	}
	j.flush()
	j.run = r
	return !j.done
}

// flush passes on what is held back.
func (j *runJoiner) flush() {
	if j.run.First != j.run.End && !j.done && !j.emit(j.run) {
		j.done = true
	}
	j.run = PageRun{}
}

// Inspect calls emit for runs of the pages [first, end) of an inode that the table
// does not hold open, until emit returns false. fd is a descriptor of it, size its
// length. Nothing of the file is changed or loaded by it.
func (t *Table) Inspect(id ID, k *KernelSources, fd int, size, first, end int64, emit func(PageRun) bool) {
	if p := t.parkedAs(id, fd); p != nil {
		inspect(k, fd, p.sizeNow(size), first, end, nil, &copyView{k: k}, p.record, emit)
		return
	}
	inspect(k, fd, size, first, end, nil, nil, t.remembered.record(id), emit)
}

// Inspect calls emit for runs of the file's pages [first, end), until emit
// returns false; pages past the end of the file are left out. Looking changes
// nothing: what is not mapped stays so.
func (f *File) Inspect(k *KernelSources, first, end int64, emit func(PageRun) bool) error {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return err
	}
	// The lock keeps mapping and descriptor; reads and writes go on.
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.RLock()
	fd, mem := f.fd, f.mem
	var view *copyView
	if f.copies != nil {
		view = &copyView{k: k, mem: mem[:min(f.copies.fileEnd, int64(len(mem)))], locked: len(f.locked) > 0}
		mem = nil // its page frames are not the file's
	}
	f.mu.RUnlock()
	inspect(k, fd, st.Size, first, end, mem, view, f.record, emit)
	return nil
}

// inspect merges what the kernel says with the record. view is nil for files that
// do not copy.
func inspect(k *KernelSources, fd int, size, first, end int64, mem []byte, view *copyView, record *pageRecord, emit func(PageRun) bool) {
	_, count := Range{0, size}.Pages()
	end = min(end, count)
	if first >= end {
		return
	}
	joiner := runJoiner{emit: emit}
	k.pages(fd, mem, first, end, func(kernel PageRun) bool {
		more := true
		record.runs(kernel.First, kernel.End, func(own PageRun, states pageState) bool {
			view.runs(own, states, func(run PageRun) bool {
				run.Flags |= kernel.Flags
				if states&pageUnsynced != 0 {
					run.Flags |= PageUnsynced
				}
				if run.End == count {
					more = joiner.add(PageRun{run.First, run.End - 1, run.Flags}) &&
						joiner.add(PageRun{run.End - 1, run.End, run.Flags | PageTail})
				} else {
					more = joiner.add(run)
				}
				return more
			})
			return more
		})
		return more
	})
	joiner.flush()
}

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

// Unsynced calls emit for every range of bytes that a power cut now would take,
// until emit returns false. Ranges are whole pages, the last cut off at the end
// of the file.
func (f *File) Unsynced(emit func(Range, Cause) bool) { f.record.unsyncedRanges(f.size.Load(), emit) }

// Unsynced is [File.Unsynced] of an inode that the table need not hold open. size
// is its length.
func (t *Table) Unsynced(id ID, size int64, emit func(Range, Cause) bool) {
	f, p := t.find(id)
	switch {
	case f != nil:
		defer f.Unref()
		f.Unsynced(emit)
		return
	case p != nil:
		p.record.unsyncedRanges(size, emit)
		return
	}
	t.remembered.record(id).unsyncedRanges(size, emit)
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

// UnsyncedBytes returns how many bytes a power cut now would take.
func (f *File) UnsyncedBytes() int64 { return f.record.unsyncedBytes(f.size.Load()) }

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

// Mapped returns where the file is mapped and how many bytes, or 0 and 0, and the
// permissions as /proc/PID/maps shows them.
func (f *File) Mapped() (addr uintptr, length int64, perms string) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.mem == nil:
		return 0, 0, ""
	case f.copies != nil:
		perms = "rw-p"
	case f.writable:
		perms = "rw-s"
	default:
		perms = "r--s"
	}
	return addressOf(f.mem), int64(len(f.mem)), perms
}

// BackingSize returns the length of the backing file, which is not [File.Size] in
// the modes that copy.
func (f *File) BackingSize() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	err := fstat(f.fd, &st)
	return st.Size, err
}

// Failure returns the error of the newest write-back if that failed, else nil.
func (f *File) Failure() error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if !f.failed {
		return nil
	}
	return f.failure
}

// ReadMemory loads len(p) bytes of the mapping from off into p: whole pages, so
// the bytes between the end of the file and the end of its last page can be
// seen. It maps the file if it is not mapped yet, and returns fewer bytes only at
// the end of the last page.
func (f *File) ReadMemory(p []byte, off int64) (int, error) {
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return 0, err
	}
	end, ok := PageUp(st.Size)
	g, fits := RangeOf(off, int64(len(p)))
	if !ok || !fits {
		return 0, nil
	}
	g = g.Intersect(Range{0, end})
	p = p[:g.Len()]
	if len(p) == 0 {
		return 0, nil
	}
	mem := f.rlock(g.End, forReading)
	defer f.mu.RUnlock()
	present := g.End <= int64(len(mem))
	if f.copies != nil {
		present = present && f.presentCopiesLocked(mem, g)
	} else {
		present = present && (!f.fillsHoles || resident(mem[PageDown(g.Off):g.End]))
	}
	if present {
		fault := load(p, mem[g.Off:g.End])
		if fault == 0 {
			return len(p), nil
		}
		f.faulted(mem, fault)
	}
	// Not to be seen through a mapping: the file's bytes, and zeros after them.
	f.beforeRead(true)
	n, err := f.readPast(p, g.Off)
	if err != nil {
		return 0, err
	}
	clear(p[n:])
	return len(p), nil
}
