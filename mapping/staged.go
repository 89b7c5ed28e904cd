package mapping

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// syncCopies is the write-back of a file that copies. Of a private one there is
// nothing to write; fsync(2) serves the rest of the inode. f.syncMu must be held.
func (f *File) syncCopies(dataOnly bool) error {
	if f.modeLocked() == Private {
		f.endSync(nil, Event{Length: f.size.Load(), Flags: unix.MS_SYNC})
		if dataOnly || !f.writable {
			return nil // a filesystem that cannot be written may know no fsync(2)
		}
		return f.sys.Fsync(f.fd)
	}
	return f.writeStaged(paging.WholeFile, unix.MS_SYNC, dataOnly)
}

// writeStaged writes the staged pages that g touches to the file, brings the
// file's size up to date, and, with MS_SYNC, waits for the device. Then the copies
// are discarded: the file has the bytes. If it fails they stay, and nothing is
// lost. f.syncMu must be held: it keeps the memory where it is, and nobody cuts the
// file meanwhile. Stores, and growth, go on.
func (f *File) writeStaged(g paging.Range, flags int, dataOnly bool) error {
	f.mu.RLock()
	c, fd, mem := f.copies, f.fd, f.mem
	own, cut, size := c.own, c.cut, f.size.Load()
	f.mu.RUnlock()
	pages := f.record.BeginSync(g)
	err := f.redirtyFailed()
	if err == nil {
		err = f.writeCopies(fd, mem, own, cut, size)
	}
	wait := flags&unix.MS_SYNC != 0
	switch {
	case err != nil:
	case wait && dataOnly:
		err = f.sys.Fdatasync(fd)
	case wait:
		err = f.sys.Fsync(fd)
	default:
		err = f.startWriteBack(g.Intersect(paging.Range{Off: 0, End: size}))
	}
	if err == nil {
		err = f.discardWritten(size)
	}
	if !wait {
		f.record.EndSync(true) // in the file, but not on the device
	}
	event := Event{Off: g.Off, Length: g.Intersect(paging.Range{Off: 0, End: size}).Len(), Pages: pages, Flags: flags}
	f.endSync(err, event)
	return err
}

// writeCopies writes the copied pages that are being written back to fd, and makes
// the file size bytes long if the size is the engine's own.
func (f *File) writeCopies(fd int, mem []byte, own bool, cut, size int64) error {
	var st unix.Stat_t
	if err := sys.Fstat(fd, &st); err != nil {
		return err
	}
	if own && cut < st.Size {
		// What the file had there is gone, and zeros are in its place.
		if err := f.sys.Ftruncate(fd, cut); err != nil {
			return err
		}
		st.Size = cut
	}
	var err error
	_, end := paging.Range{Off: 0, End: size}.Pages()
	f.record.Runs(0, end, func(run pagestate.Run, states dirty.State) bool {
		if states&(dirty.Syncing|dirty.Copied) != dirty.Syncing|dirty.Copied {
			return true
		}
		g := paging.Range{Off: run.First * paging.PageSize, End: min(run.End*paging.PageSize, size)}
		err = f.writeOut(fd, mem[g.Off:g.End], g.Off)
		return err == nil
	})
	if err == nil && own {
		if err = sys.Fstat(fd, &st); err == nil && st.Size != size {
			err = f.sys.Ftruncate(fd, size)
		}
	}
	if stored := f.mtime.Load(); err == nil && stored != 0 {
		err = f.sys.SetMtime(fd, unix.NsecToTimespec(stored))
	}
	return err
}

// writeOut writes all of p. A page that is gone, because somebody cut the backing
// file, is EIO.
func (f *File) writeOut(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := f.sys.Pwrite(fd, p, off)
		switch {
		case errnoIn(err) == syscall.EFAULT:
			return os.NewSyscallError("pwrite", syscall.EIO)
		case err != nil:
			return err
		case n == 0:
			return os.NewSyscallError("pwrite", syscall.ENOSPC)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// discardWritten discards the copies of the pages that were written back and have
// not changed since, and maps the file over what it has grown by. size is what it
// was brought to. f.syncMu must be held.
func (f *File) discardWritten(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.copies
	shown := f.mtime.Load()
	if shown == 0 {
		shown = c.shownCtime
	}
	f.keepCtime(shown)
	// Whatever the file had past the cut, it has it no longer.
	c.cut = math.MaxInt64
	if f.mem == nil {
		c.own = c.own && (f.size.Load() != size || c.growing.Load())
		f.checkHeld()
		return nil
	}
	end, _ := paging.PageUp(size)
	var err error
	newEnd := max(c.fileEnd, end)
	f.record.Runs(0, math.MaxInt64/paging.PageSize, func(run pagestate.Run, states dirty.State) bool {
		r := paging.Range{Off: run.First * paging.PageSize, End: run.End * paging.PageSize}
		written := states&dirty.Syncing != 0 && states&dirty.Written == 0
		if written && states&dirty.Copied != 0 {
			if err = f.discardLocked(r.Intersect(paging.Range{Off: 0, End: c.fileEnd})); err != nil {
				return false
			}
			// Past the mapped part of the file the memory stays, and has what the
			// file has.
			f.addCopied(-f.record.Clear(r, dirty.Copied|dirty.Loaded|dirty.Stored))
		}
		if !written && states&(dirty.Unsynced|dirty.Copied) != 0 && r.End > c.fileEnd {
			newEnd = min(newEnd, max(r.Off, c.fileEnd))
		}
		return true
	})
	if err != nil {
		return err
	}
	if c.own && newEnd > c.fileEnd {
		if err := f.mapFilePart(c.fileEnd, newEnd); err != nil {
			return err
		}
		f.record.Clear(paging.Range{Off: c.fileEnd, End: newEnd}, dirty.Loaded|dirty.Stored)
		c.fileEnd = newEnd
		f.relockLocked()
	}
	if now, _ := paging.PageUp(f.size.Load()); c.fileEnd >= now && f.size.Load() == size && !c.growing.Load() {
		c.own = false
	}
	if !c.own && c.count.Load() == 0 {
		f.mtime.Store(0) // the file has it
	}
	f.checkHeld()
	return nil
}

// invalidateCopies gives copies up: of the pages of g the file shows again, or
// zeros where the file has none. With everything, the size too is the backing
// file's again. Pages that are locked are EBUSY, as for msync(2).
func (f *File) invalidateCopies(g paging.Range, everything bool) error {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.copies == nil {
		return os.NewSyscallError("msync", syscall.EAGAIN) // the mode changed just now
	}
	if f.lockedIn(g) {
		return os.NewSyscallError("msync", syscall.EBUSY)
	}
	if everything {
		var st unix.Stat_t
		if err := sys.Fstat(f.fd, &st); err != nil {
			return err
		}
		f.discardCopiesLocked()
		f.adoptSize(st.Size)
		return nil
	}
	return f.uncopyLocked(g)
}

// uncopyLocked gives the copies of the pages of g up; the size stays. f.growMu, f.syncMu
// and f.mu must be held, the last exclusively.
func (f *File) uncopyLocked(g paging.Range) error {
	if err := f.discardLocked(g); err != nil {
		return err
	}
	f.addCopied(-f.record.Uncopy(g))
	if err := f.reloadLocked(g); err != nil {
		return err
	}
	// Of the page where the file ends, or was cut, it can show more than belongs to
	// it now.
	last := min(f.size.Load(), f.copies.cut)
	end, _ := paging.PageUp(last)
	if hidden := g.Intersect(paging.Range{Off: last, End: end}); f.copies.own && !hidden.Empty() && end <= int64(len(f.mem)) {
		if cleared, fault := guard.Zero(f.mem[hidden.Off:hidden.End]); fault == 0 && cleared > 0 {
			f.copiedLocked(hidden, dirty.UnsyncedTruncate)
		}
	}
	f.checkHeld()
	return nil
}

// reloadLocked fills the pages of g that lie past the mapped part of the file with
// what a write-back of some pages has put into the file there, or somebody else.
// f.mu must be held exclusively.
func (f *File) reloadLocked(g paging.Range) error {
	c := f.copies
	var st unix.Stat_t
	if err := sys.Fstat(f.fd, &st); err != nil {
		return err
	}
	g = g.Intersect(paging.Range{Off: c.fileEnd, End: min(st.Size, c.cut, f.size.Load(), int64(len(f.mem)))})
	if !c.own || g.Empty() {
		return nil
	}
	f.beforeRead(true)
	_, err := f.preadFull(f.mem[g.Off:g.End], g.Off)
	return err
}

// AbandonUnsynced takes what is unsynced of a staged file for written, though it was not:
// the pages keep their bytes in memory, and no write-back writes them until they change
// again. So do some filesystems when a write-back has failed. A file in another mode is
// EOPNOTSUPP.
func (f *File) AbandonUnsynced() error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if f.modeLocked() != Staged {
		return os.NewSyscallError("msync", syscall.EOPNOTSUPP)
	}
	f.record.BeginSync(paging.WholeFile)
	const failed = false
	f.record.EndSync(failed)
	return nil
}

// evictAbandoned gives up the copies that AbandonUnsynced has left, as a kernel that
// needs memory gives up clean pages: the file shows again. It does nothing to a file that
// has something to write.
func (f *File) evictAbandoned() error {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.modeLocked() != Staged || f.copies.count.Load() == 0 || f.record.Unsynced() {
		return nil
	}
	return f.uncopyLocked(paging.WholeFile)
}
