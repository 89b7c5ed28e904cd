package explicit

import (
	"encoding/binary"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// Bits of an entry of /proc/PID/pagemap that tell whose a page is. A page that is
// swapped out was copied: pages of files go back to their file instead.
const (
	framePresent = 1 << 63
	frameSwapped = 1 << 62
	frameOfFile  = 1 << 61
)

// copiesWindow is how many pages' entries are read at a time.
const copiesWindow = 1 << 15

// pagemap returns /proc/self/pagemap, or nil where that cannot be read.
func (a *Arena) pagemap() *os.File {
	a.copiesOnce.Do(func() { a.copies, _ = os.Open("/proc/self/pagemap") })
	return a.copies
}

// frames returns the entries of pagemap for the pages of s, or nil.
func (a *Arena) frames(s span) []uint64 {
	f := a.pagemap()
	if f == nil {
		return nil
	}
	first, end := int64(s.start)/paging.PageSize, (int64(s.end)-1)/paging.PageSize+1
	buf := make([]byte, (end-first)*8)
	if _, err := f.ReadAt(buf, first*8); err != nil {
		return nil
	}
	frames := make([]uint64, end-first)
	for i := range frames {
		frames[i] = binary.NativeEndian.Uint64(buf[i*8:])
	}
	return frames
}

// copiedFrame reports whether the page of an entry is a private copy.
func copiedFrame(frame uint64) bool {
	return frame&frameSwapped != 0 || frame&framePresent != 0 && frame&frameOfFile == 0
}

// copiedPages says which pages of s a private mapping has copied; nil for a shared
// one, for loads, and if the kernel does not tell.
func (m *Mapping) copiedPages(s span, prot int) []bool {
	if m.shared() || prot != unix.PROT_WRITE {
		return nil
	}
	frames := m.arena.frames(s)
	copied := make([]bool, len(frames))
	for i, frame := range frames {
		copied[i] = copiedFrame(frame)
	}
	return copied
}

// Inspect calls emit for runs of the mapping's pages [first, end), counted from its
// beginning, until emit returns false. Pages that are not mapped any more, and
// those past the end of the file, have no flags. A page that was copied is the
// mapping's own: what the kernel says of the file's is not said of it.
func (m *Mapping) Inspect(k *pagestate.Sources, first, end int64, emit func(pagestate.Run) bool) error {
	m.use.RLock()
	defer m.use.RUnlock()
	if m.gone.Load() {
		return os.NewSyscallError("inspect", syscall.ESTALE)
	}
	end = min(end, m.len()/paging.PageSize)
	joiner := pagestate.Joiner{Emit: emit}
	at := first
	// fill passes on pages of which nothing can be said, up to page.
	fill := func(page int64) {
		joiner.Add(pagestate.Run{First: at, End: max(page, at), Flags: 0})
		at = max(page, at)
	}
	wanted := span{m.start + uintptr(first*paging.PageSize), m.start + uintptr(max(first, end)*paging.PageSize)}
	for _, part := range m.arena.list().in(wanted, m) {
		fill(int64(part.start-m.start) / paging.PageSize)
		shift := m.off / paging.PageSize // from pages of the mapping to those of the file
		stop := int64(part.end-m.start) / paging.PageSize
		err := m.file.Inspect(k, at+shift, stop+shift, func(run pagestate.Run) bool {
			m.runs(pagestate.Run{First: run.First - shift, End: run.End - shift, Flags: run.Flags}, &joiner)
			at = run.End - shift
			return !joiner.Done
		})
		if err != nil {
			return err
		}
		fill(stop)
	}
	fill(end)
	joiner.Flush()
	return nil
}

// runs passes on a run of the file's pages as those of the mapping. m.use must be
// held.
func (m *Mapping) runs(run pagestate.Run, joiner *pagestate.Joiner) {
	if m.shared() {
		joiner.Add(run)
		return
	}
	run.Flags &^= pagestate.Unsynced | pagestate.Copied // nothing of a private mapping is ever synced
	for run.First < run.End && !joiner.Done {
		stop := min(run.End, run.First+copiesWindow)
		frames := m.arena.frames(span{m.start + uintptr(run.First*paging.PageSize), m.start + uintptr(stop*paging.PageSize)})
		for i := range stop - run.First {
			page := pagestate.Run{First: run.First + i, End: run.First + i + 1, Flags: run.Flags}
			if frames != nil && copiedFrame(frames[i]) {
				page.Flags = pagestate.Copied | run.Flags&pagestate.Tail
				if frames[i]&framePresent != 0 {
					page.Flags |= pagestate.Resident
				}
			}
			joiner.Add(page)
		}
		run.First = stop
	}
}

// CopiedPages returns how many pages of the file a private mapping has copied, as
// far as the kernel tells.
func (m *Mapping) CopiedPages() (copied int64) {
	m.use.RLock()
	defer m.use.RUnlock()
	if m.shared() {
		return 0
	}
	for _, part := range m.arena.list().in(m.span, m) {
		for part.start < part.end {
			window := part.span
			window.end = min(part.end, part.start+uintptr(copiesWindow*paging.PageSize))
			for _, frame := range m.arena.frames(window) {
				if copiedFrame(frame) {
					copied++
				}
			}
			part.start = window.end
		}
	}
	return copied
}

// UnsyncedBytes returns how many of the file's bytes that a shared mapping still
// has a power cut now would take; 0 for a private one.
func (m *Mapping) UnsyncedBytes() (unsynced int64) {
	if !m.shared() {
		return 0
	}
	parts := m.arena.list().in(m.span, m)
	m.file.Unsynced(func(g paging.Range, _ dirty.Cause) bool {
		for _, part := range parts {
			unsynced += g.Intersect(m.fileRange(part.span)).Len()
		}
		return true
	})
	return unsynced
}
