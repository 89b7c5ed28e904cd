package mapping

import (
	"math"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// pagesOf returns the whole pages that the given bytes touch, as the system
// calls on mappings take them: the offset must be a multiple of the page size
// (EINVAL), the length is rounded up. A length of 0 means to the end of the file.
func (f *File) pagesOf(call string, off, length int64) (paging.Range, error) {
	if off%paging.PageSize != 0 {
		return paging.Range{}, os.NewSyscallError(call, syscall.EINVAL)
	}
	g, ok := paging.RangeOf(off, length)
	if !ok {
		return paging.Range{}, os.NewSyscallError(call, syscall.EINVAL)
	}
	end, ok := paging.PageUp(f.size.Load())
	if !ok {
		return paging.Range{}, os.NewSyscallError(call, syscall.ENOMEM)
	}
	if length == 0 {
		g.End = end
	} else if g.End, ok = paging.PageUp(g.End); !ok {
		g.End = math.MaxInt64
	}
	if g.End > end || off > 0 && off >= end {
		// Past the last page of the file nothing is mapped that could be meant.
		return paging.Range{}, os.NewSyscallError(call, syscall.ENOMEM)
	}
	return g, nil
}

// withPages calls fn with the mapped memory of the given pages, which stays
// mapped meanwhile. The file is mapped if it is not yet.
func (f *File) withPages(call string, off, length int64, fn func(g paging.Range, mem []byte) error) error {
	g, err := f.pagesOf(call, off, length)
	if err != nil || g.Empty() {
		return err
	}
	f.rlock(g.End, forReading)
	f.mu.RUnlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.RLock()
	mem := f.mem
	f.mu.RUnlock()
	if g.End > int64(len(mem)) {
		return os.NewSyscallError(call, syscall.ENOMEM) // not mapped, and not mappable
	}
	return fn(g, mem[g.Off:g.End])
}

// Msync is msync(2) on the pages from off: length bytes, or to the end of the
// file if length is 0. With MS_SYNC the pages are on the device when it returns,
// and no longer unsynced. MS_ASYNC does nothing on Linux since 2.6.19, so
// write-back is started by sync_file_range(2) beside it. Flags that contradict
// each other and an unaligned offset are EINVAL, MS_INVALIDATE on a locked page
// is EBUSY, pages past the end of the file are ENOMEM.
//
// In the mode Staged MS_SYNC and MS_ASYNC write the changed pages to the file, the
// first waits for the device too; in Private there is nothing to write. In both
// MS_INVALIDATE gives changed pages up, after what was written if anything was;
// with off and length 0 a changed size too.
func (f *File) Msync(off, length int64, flags int) error {
	if flags&^(unix.MS_SYNC|unix.MS_ASYNC|unix.MS_INVALIDATE) != 0 || flags&unix.MS_SYNC != 0 && flags&unix.MS_ASYNC != 0 {
		return os.NewSyscallError("msync", syscall.EINVAL)
	}
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return err
	}
	if f.copying() {
		return f.msyncCopies(off, length, flags)
	}
	return f.withPages("msync", off, length, func(g paging.Range, mem []byte) error {
		event := Event{Off: g.Off, Length: g.Len(), Flags: flags}
		if flags&unix.MS_SYNC == 0 {
			err := f.sys.Msync(mem, flags)
			if err == nil && flags&unix.MS_ASYNC != 0 {
				err = f.startWriteBack(g)
			}
			event.Kind, event.Err = EventMsync, err
			f.counters.Msyncs.add(f.table, EventMsync)
			f.observe(event)
			if err == nil && flags&unix.MS_INVALIDATE != 0 {
				f.observe(Event{Kind: EventInvalidate, Off: g.Off, Length: g.Len()})
			}
			return err
		}
		event.Pages = f.record.BeginSync(g)
		err := f.redirtyFailed()
		if err == nil {
			err = f.writeBackRange(mem, flags)
		}
		f.endSync(err, event)
		if err != nil && !isInvalidateBusy(flags, err) {
			f.fail(err)
		}
		return err
	})
}

// msyncCopies is Msync in the modes that copy.
func (f *File) msyncCopies(off, length int64, flags int) error {
	g, err := f.pagesOf("msync", off, length)
	if err != nil {
		return err
	}
	if flags&(unix.MS_SYNC|unix.MS_ASYNC) != 0 {
		if err := f.msyncStaged(g, flags); err != nil {
			return err
		}
	}
	if flags&unix.MS_INVALIDATE == 0 {
		return nil
	}
	if err := f.invalidateCopies(g, off == 0 && length == 0); err != nil {
		return err
	}
	f.observe(Event{Kind: EventInvalidate, Off: g.Off, Length: g.Len()})
	return nil
}

// msyncStaged writes staged pages back; of private ones it only tells.
func (f *File) msyncStaged(g paging.Range, flags int) error {
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if flags&unix.MS_INVALIDATE != 0 && f.lockedIn(g) {
		return os.NewSyscallError("msync", syscall.EBUSY) // before anything is written
	}
	if f.modeLocked() != Staged {
		f.endSync(nil, Event{Off: g.Off, Length: g.Len(), Flags: flags})
		return nil
	}
	const dataOnly = true
	err := f.writeStaged(g, flags, dataOnly)
	if err != nil {
		f.fail(err)
	}
	return err
}

// writeBackRange is the write-back of part of the file. A mapping that cannot be
// written through has nothing to write for msync, others' changes notwithstanding.
func (f *File) writeBackRange(mem []byte, flags int) error {
	if err := f.sys.Msync(mem, flags); err != nil {
		return err
	}
	f.mu.RLock()
	fd, writable := f.fd, f.writable
	f.mu.RUnlock()
	if writable {
		return nil
	}
	return f.sys.Fdatasync(fd)
}

// isInvalidateBusy reports whether msync was refused because pages are locked:
// nothing is lost by that.
func isInvalidateBusy(flags int, err error) bool {
	return flags&unix.MS_INVALIDATE != 0 && err != nil && errnoIn(err) == syscall.EBUSY
}

// errnoIn returns the errno of a failed system call.
func errnoIn(err error) syscall.Errno {
	if e, ok := err.(*os.SyscallError); ok {
		if errno, ok := e.Err.(syscall.Errno); ok {
			return errno
		}
	}
	return 0
}

// startWriteBack asks the kernel to begin writing the dirty pages of g and does
// not wait. Filesystems that know no such thing say nothing.
func (f *File) startWriteBack(g paging.Range) error {
	return f.WithDescriptor(func(fd int) error {
		err := unix.SyncFileRange(fd, g.Off, g.Len(), unix.SYNC_FILE_RANGE_WRITE)
		if err == syscall.ESPIPE || err == syscall.ENOSYS {
			return nil
		}
		return os.NewSyscallError("sync_file_range", err)
	})
}

// Madvise is madvise(2) on the pages from off: length bytes, or to the end of the
// file if length is 0. MADV_DONTNEED gives copied pages up, in the modes that copy.
func (f *File) Madvise(off, length int64, advice int) error {
	if advice == unix.MADV_DONTNEED && f.copying() {
		g, err := f.pagesOf("madvise", off, length)
		if err != nil {
			return err
		}
		if err := f.invalidateCopies(g, off == 0 && length == 0); err != nil {
			return os.NewSyscallError("madvise", syscall.EINVAL) // as it says of locked pages
		}
		f.observe(Event{Kind: EventInvalidate, Off: g.Off, Length: g.Len()})
		return nil
	}
	return f.withPages("madvise", off, length, func(g paging.Range, mem []byte) error {
		if err := unix.Madvise(mem, advice); err != nil {
			return os.NewSyscallError("madvise", err)
		}
		if advice != unix.MADV_WILLNEED {
			// The page table has let go of them.
			f.record.Clear(g, dirty.Loaded|dirty.Stored)
			f.observe(Event{Kind: EventInvalidate, Off: g.Off, Length: g.Len()})
		}
		return nil
	})
}

// Mlock is mlock(2) on the pages from off: length bytes, or to the end of the
// file if length is 0. While any page is locked the mapping is not evicted, and
// the file stays open when nobody uses it.
func (f *File) Mlock(off, length int64) error {
	return f.withPages("mlock", off, length, func(g paging.Range, mem []byte) error {
		if err := unix.Mlock(mem); err != nil {
			return os.NewSyscallError("mlock", err)
		}
		f.locked = append(f.locked, g)
		f.pinned.Store(true)
		return nil
	})
}

// Munlock is munlock(2) on the pages from off: length bytes, or to the end of the
// file if length is 0.
func (f *File) Munlock(off, length int64) error {
	return f.withPages("munlock", off, length, func(g paging.Range, mem []byte) error {
		if err := unix.Munlock(mem); err != nil {
			return os.NewSyscallError("munlock", err)
		}
		var left []paging.Range
		for _, l := range f.locked {
			for _, part := range []paging.Range{{Off: l.Off, End: min(l.End, g.Off)}, {Off: max(l.Off, g.End), End: l.End}} {
				if !part.Empty() {
					left = append(left, part)
				}
			}
		}
		f.locked = slices.Clip(left)
		f.pinned.Store(len(left) > 0)
		return nil
	})
}

// relockLocked locks again in a new mapping what was locked in the old one.
// f.syncMu and f.mu must be held.
func (f *File) relockLocked() {
	for _, g := range f.locked {
		if g.End > int64(len(f.mem)) {
			continue
		}
		if err := unix.Mlock(f.mem[g.Off:g.End]); err != nil {
			f.table.log.Warn("mlock of a mapping made anew", "range", g, "error", err)
		}
	}
}
