package mapping

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// copies is what a file in a mode that copies has beside the rest. Its mapping is
// one anonymous reservation; over its beginning, up to fileEnd, the file is mapped
// MAP_PRIVATE. A store copies a page of the file, or fills one of the rest, which
// is where the file grows in memory.
//
// mode does not change while the value is in use. The rest is guarded by File.mu,
// exclusively for changes.
type copies struct {
	mode Mode
	// fileEnd is where the mapped file ends and anonymous memory begins: a
	// multiple of the page size.
	fileEnd int64
	// own says that the file's size and what lies past fileEnd are the engine's.
	// Otherwise the size is the backing file's, also when others change it.
	own bool
	// cut is the least size since the last write-back: what the backing file has
	// past it is not the file's any more. It means something if own is set.
	cut int64
	// growing says that the size is about to become the engine's own, so a
	// write-back that ends now must not take own back.
	growing atomic.Bool
	// A write-back changes the inode's ctime, though for who has the mount nothing
	// happens to the file: as long as it is fileCtime, shownCtime is shown in its
	// place. Both are nanoseconds since 1970, 0 if there was no write-back.
	fileCtime, shownCtime int64
	// holes are the pages that are not the file's though it is mapped around them.
	holes holePages
	// count is the number of pages with dirty.Copied in the record.
	count atomic.Int64
}

// reach returns up to where memory of the given length may be used.
func (c *copies) reach(length int64) int64 {
	if !c.own {
		return min(c.fileEnd, length)
	}
	return length
}

// setHeld notes whether the file has something that only the engine's memory has:
// then it stays open and mapped. f.mu must be held.
func (f *File) setHeld(held bool) {
	if f.held.Load() == held {
		return
	}
	t := f.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.held.Swap(held) == held {
		return
	}
	if held {
		f.heldAt = t.held.PushBack(f)
		f.heldMode = f.copies.mode
	} else {
		t.held.Remove(f.heldAt)
		f.heldAt = nil
	}
	t.holding.Store(int64(t.held.Len()))
}

// checkHeld clears what setHeld has set when nothing is held any more. f.mu must be
// held exclusively.
func (f *File) checkHeld() {
	if f.copies.count.Load() == 0 && !f.copies.own {
		f.setHeld(false)
	}
}

// StatHeld puts size, times and blocks in place in what stat(2) says of an inode,
// if the engine's memory has something of the file that the backing file does not
// have, or had until lately. It costs nothing while no file is so.
//
// name in the directory dirfd is where st was found.
func (t *Table) StatHeld(st *unix.Stat_t, dirfd int, name string) {
	if t.holding.Load() == 0 && t.restamped.Load() == 0 && t.parkedN.Load() == 0 {
		return
	}
	f, p := t.find(IDOf(st))
	switch {
	case p != nil:
		p.stat(t, st, dirfd, name)
	case f != nil:
		f.mu.RLock()
		if f.copies != nil && (f.held.Load() || f.copies.fileCtime != 0) {
			f.statCopiesLocked(st)
		}
		f.mu.RUnlock()
		f.Unref()
	}
}

// TimesSet is told that somebody has set the inode's times: those of stores so far
// do not count any more.
func (f *File) TimesSet() { f.mtime.Store(0) }

// KeepTimes sets the times of a private file that has changes in memory, in memory too,
// and reports whether it could: the inode shows its own if they are later. A time is as
// for utimensat(2), UTIME_NOW and UTIME_OMIT included.
func (f *File) KeepTimes(atime, mtime unix.Timespec) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	if f.modeLocked() != Private || !f.held.Load() || sys.Fstat(f.fd, &st) != nil {
		return false
	}
	now := time.Now().UnixNano()
	for _, t := range []struct {
		set    unix.Timespec
		inode  unix.Timespec
		stored *atomic.Int64
	}{{mtime, st.Mtim, &f.mtime}, {atime, st.Atim, &f.atime.shown}} {
		ns := unix.TimespecToNsec(t.set)
		switch {
		case t.set.Nsec == unix.UTIME_OMIT:
			continue
		case t.set.Nsec == unix.UTIME_NOW:
			ns = now
		case ns < unix.TimespecToNsec(t.inode):
			return false
		}
		t.stored.Store(ns)
	}
	return true
}

// CopiedBytes returns how many bytes the copied pages of all files take in memory.
func (t *Table) CopiedBytes() int64 { return t.copied.Taken() * paging.PageSize }

// keepCtime is told that a write-back has changed the inode, whose ctime was shown
// as shown. f.mu must be held exclusively.
func (f *File) keepCtime(shown int64) {
	var st unix.Stat_t
	if shown == 0 || sys.Fstat(f.fd, &st) != nil {
		return
	}
	f.table.mu.Lock()
	f.last.looks(&st) // it was not somebody else who changed it
	f.table.mu.Unlock()
	c := f.copies
	if c.fileCtime == 0 {
		f.table.restamped.Add(1)
	}
	c.fileCtime, c.shownCtime = unix.TimespecToNsec(st.Ctim), shown
}

// forgetCtime ends what keepCtime began. f.mu must be held exclusively.
func (f *File) forgetCtime() {
	if c := f.copies; c != nil && c.fileCtime != 0 {
		c.fileCtime = 0
		f.table.restamped.Add(-1)
	}
}

// addCopied counts n more copied pages, or fewer.
func (f *File) addCopied(n int64) {
	f.copies.count.Add(n)
	f.table.copied.Force(f.owner, n)
}

// mapCopiesLocked maps the file so that its first end bytes are covered, keeping
// the copies it has. f.syncMu and f.mu must be held exclusively, and a mapping of room
// bytes be reserved; took says that it was used.
func (f *File) mapCopiesLocked(end, room int64) (took bool, err error) {
	c := f.copies
	if f.unmapped || !f.readable {
		f.unmapped = true
		return false, os.NewSyscallError("mmap", syscall.EACCES)
	}
	var st unix.Stat_t
	if err := sys.Fstat(f.fd, &st); err != nil {
		return false, err
	}
	limit := st.Size // of what the backing file can give
	if c.own {
		limit = min(limit, c.cut)
	}
	fileEnd, ok := paging.PageUp(limit)
	if c.own && f.mem != nil {
		fileEnd = c.fileEnd // what lies past it is in use
	}
	if !ok {
		return false, os.NewSyscallError("mmap", syscall.ENOMEM)
	}
	span, ok := paging.SpanFor(max(end, f.size.Load(), fileEnd))
	if !ok {
		return false, os.NewSyscallError("mmap", syscall.ENOMEM)
	}
	if span = min(span, room); span > int64(len(f.mem)) {
		if err := f.reserveSpan(span, room); err != nil {
			return false, err
		}
		took = true
	}
	fileEnd = min(fileEnd, int64(len(f.mem)))
	if fileEnd > c.fileEnd {
		err := f.mapFilePart(c.fileEnd, fileEnd)
		if err == nil {
			c.fileEnd = fileEnd
		} else if took && c.fileEnd == 0 && c.count.Load() == 0 {
			// A filesystem without mmap: nothing is kept that would be of use.
			f.dropMappingLocked()
			f.unmapped = true
			f.table.warnUnmappable(err)
			return true, err
		} else {
			return took, err
		}
	}
	f.relockLocked()
	return took, nil
}

// reserveSpan moves the mapping into an area of span bytes, copies and all. room bytes are
// reserved for it.
func (f *File) reserveSpan(span, room int64) error {
	mem, err := f.sys.Mmap(-1, span, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	old := f.mem
	if old != nil {
		for _, g := range f.piecesLocked(int64(len(old))) {
			if err := f.sys.Mremap(old[g.Off:g.End], mem[g.Off:g.End]); err != nil {
				// The cap on mappings leaves areas for this; without it half a
				// file would be here and half there.
				panic(err)
			}
		}
		f.table.removeMapping(f, int64(len(old)))
		f.observe(Event{Kind: EventUnmap, Addr: guard.AddressOf(old), Length: int64(len(old))})
	}
	f.mem = mem
	f.table.addMapping(f, span, room)
	f.observe(Event{Kind: EventMap, Addr: guard.AddressOf(mem), Length: span})
	return nil
}

// mapFilePart maps the bytes [from, to) of the file privately in their place.
func (f *File) mapFilePart(from, to int64) error {
	f.beforeRead(true)
	return f.sys.MmapAt(f.mem[from:to], f.fd, from, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
}

// mapNothing puts zeros in the place of the bytes [from, to).
func (f *File) mapNothing(from, to int64) error {
	return f.sys.MmapAt(f.mem[from:to], -1, 0, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
}

// discardLocked discards the copies of the pages that g touches: the file shows
// again where there is one, zeros elsewhere. f.syncMu and f.mu must be held
// exclusively.
func (f *File) discardLocked(g paging.Range) error {
	g = g.Intersect(paging.Range{Off: 0, End: int64(len(f.mem))})
	if g.Empty() {
		return nil
	}
	mem := f.mem[g.Off:g.End]
	locked := f.lockedIn(g)
	if locked {
		if err := unix.Munlock(mem); err != nil { // the kernel gives no locked page up
			return os.NewSyscallError("munlock", err)
		}
	}
	err := f.sys.Madvise(mem, unix.MADV_DONTNEED)
	if err == nil {
		err = f.emptyHolesLocked(g)
	}
	if locked {
		f.relockLocked()
	}
	return err
}

// lockedIn reports whether pages of g are kept in memory by mlock(2). f.syncMu must
// be held.
func (f *File) lockedIn(g paging.Range) bool {
	for _, l := range f.locked {
		if !l.Intersect(g).Empty() {
			return true
		}
	}
	return false
}

// discardCopiesLocked gives everything up that is not in the backing file, the
// size too. f.syncMu and f.mu must be held exclusively.
func (f *File) discardCopiesLocked() {
	c := f.copies
	f.dropMappingLocked()
	f.addCopied(-f.record.Uncopy(paging.WholeFile))
	f.mtime.Store(0)
	c.fileEnd, c.own, c.cut = 0, false, 0
	f.checkHeld()
}
