package mapping

import (
	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// Inspect calls emit for runs of the pages [first, end) of an inode that the table
// does not hold open, until emit returns false. fd is a descriptor of it, size its
// length. Nothing of the file is changed or loaded by it.
func (t *Table) Inspect(id ID, k *pagestate.Sources, fd int, size, first, end int64, emit func(pagestate.Run) bool) {
	if p := t.parkedAs(id, fd); p != nil {
		inspect(k, fd, p.sizeNow(size), first, end, nil, &copyView{k: k}, p.record, emit)
		return
	}
	inspect(k, fd, size, first, end, nil, nil, t.remembered.record(id), emit)
}

// Inspect calls emit for runs of the file's pages [first, end), until emit
// returns false; pages past the end of the file are left out. Looking changes
// nothing: what is not mapped stays so.
func (f *File) Inspect(k *pagestate.Sources, first, end int64, emit func(pagestate.Run) bool) error {
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
	inspect(k, fd, st.Size, first, end, mem, view, f.unsyncedRecord(), emit)
	return nil
}

// inspect merges what the kernel says with the record. view is nil for files that
// do not copy.
func inspect(k *pagestate.Sources, fd int, size, first, end int64, mem []byte, view *copyView, record *dirty.Record, emit func(pagestate.Run) bool) {
	_, count := paging.Range{Off: 0, End: size}.Pages()
	end = min(end, count)
	if first >= end {
		return
	}
	joiner := pagestate.Joiner{Emit: emit}
	k.Pages(fd, mem, first, end, func(kernel pagestate.Run) bool {
		more := true
		record.Runs(kernel.First, kernel.End, func(own pagestate.Run, states dirty.State) bool {
			view.runs(own, states, func(run pagestate.Run) bool {
				run.Flags |= kernel.Flags
				if states&dirty.Unsynced != 0 {
					run.Flags |= pagestate.Unsynced
				}
				if run.End == count {
					more = joiner.Add(pagestate.Run{First: run.First, End: run.End - 1, Flags: run.Flags}) &&
						joiner.Add(pagestate.Run{First: run.End - 1, End: run.End, Flags: run.Flags | pagestate.Tail})
				} else {
					more = joiner.Add(run)
				}
				return more
			})
			return more
		})
		return more
	})
	joiner.Flush()
}

// Unsynced calls emit for every range of bytes that a power cut now would take,
// until emit returns false. Ranges are whole pages, the last cut off at the end
// of the file.
//
// Of a file that clients use past the engine nobody knows the cause.
func (f *File) Unsynced(emit func(paging.Range, dirty.Cause) bool) {
	record := f.unsyncedRecord()
	if f.passed.Load() {
		record.UnsyncedRanges(f.size.Load(), func(g paging.Range, _ dirty.Cause) bool { return emit(g, dirty.Unknown) })
		return
	}
	record.UnsyncedRanges(f.size.Load(), emit)
}

// unsyncedRecord returns the record for who asks what is unsynced. Where a staged file was
// cut and grew again, the backing file still has what was cut off: the zeros there are in
// no page that anybody stored to, and a power cut would take them. f.mu must not be held.
func (f *File) unsyncedRecord() *dirty.Record {
	if f.passed.Load() {
		var st unix.Stat_t
		_ = f.Stat(&st) // the size is whatever others have made it
		f.askKernel()
	}
	f.mu.RLock()
	regrown := f.regrownLocked()
	f.mu.RUnlock()
	if regrown.Empty() {
		return f.record
	}
	f.mu.Lock() // nobody changes the record meanwhile
	defer f.mu.Unlock()
	r := f.record.Clone()
	r.Set(regrown, dirty.UnsyncedTruncate)
	return r
}

// regrownLocked returns the pages of the file past the last cut for which the backing file
// has other bytes. f.mu must be held.
func (f *File) regrownLocked() (g paging.Range) {
	c := f.copies
	if c == nil || c.mode != Staged || !c.own || c.cut >= f.size.Load() {
		return g
	}
	var st unix.Stat_t
	if sys.Fstat(f.fd, &st) != nil {
		return g
	}
	first, _ := paging.PageUp(c.cut) // the page before was changed by the cut
	if end := min(f.size.Load(), st.Size); first < end {
		g = paging.Range{Off: first, End: end}
	}
	return g
}

// Unsynced is [File.Unsynced] of an inode that the table need not hold open. size
// is its length.
func (t *Table) Unsynced(id ID, size int64, emit func(paging.Range, dirty.Cause) bool) {
	f, p := t.find(id)
	switch {
	case f != nil:
		defer f.Unref()
		f.Unsynced(emit)
		return
	case p != nil:
		p.record.UnsyncedRanges(size, emit)
		return
	}
	t.remembered.record(id).UnsyncedRanges(size, emit)
}

// UnsyncedBytes returns how many bytes a power cut now would take.
func (f *File) UnsyncedBytes() int64 { return f.unsyncedRecord().UnsyncedBytes(f.size.Load()) }

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
	return guard.AddressOf(f.mem), int64(len(f.mem)), perms
}

// BackingSize returns the length of the backing file, which is not [File.Size] in
// the modes that copy.
func (f *File) BackingSize() (int64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	err := sys.Fstat(f.fd, &st)
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
	end, ok := paging.PageUp(st.Size)
	g, fits := paging.RangeOf(off, int64(len(p)))
	if !ok || !fits {
		return 0, nil
	}
	g = g.Intersect(paging.Range{Off: 0, End: end})
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
		present = present && (!f.FillsHoles || guard.Resident(mem[paging.PageDown(g.Off):g.End]))
	}
	if present {
		fault := guard.Load(p, mem[g.Off:g.End])
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

// Inside is what the engine decides by itself of a file that copies. It is for tests of
// what is built on the engine: how others may change the backing file follows from it.
type Inside struct {
	// OwnsSize says that the size is the engine's, and not the backing file's.
	OwnsSize bool
	// FileEnd is up to where the backing file is mapped.
	FileEnd int64
	// Locked are the ranges that [File.Mlock] keeps in memory.
	Locked []paging.Range
	// Copied reports whether every page that a range touches is a copy.
	Copied func(g paging.Range) bool
}

// Inside returns how the file is kept.
func (f *File) Inside() Inside {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.RLock()
	defer f.mu.RUnlock()
	in := Inside{Locked: f.locked, Copied: func(g paging.Range) bool { return f.record.All(g, dirty.Copied) }}
	if f.copies != nil {
		in.OwnsSize, in.FileEnd = f.copies.own, f.copies.fileEnd
	}
	return in
}
