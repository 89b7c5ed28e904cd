package mapping

import (
	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
)

// Failures returns how many write-backs of the file have failed so far. Who opens
// the file keeps the number and passes it to Sync.
func (f *File) Failures() uint64 { return f.failures.Load() }

// UnsyncedPages returns the number of pages with bytes that a power cut now
// would take.
func (f *File) UnsyncedPages() int64 { return f.record.UnsyncedPages() }

// Sync writes the file back and returns when the device has it: msync(2) with
// MS_SYNC for the bytes alone, or, unless dataOnly, fsync(2), which does that and
// the rest of the inode in one call.
//
// A failure is remembered. The kernel tells it once, marks the pages clean and
// from then on says that all is well; so after a failure every unsynced page is
// made dirty again and written again before Sync reports success, and a caller
// whose *seen is older than the newest failure is told of it once, even if the
// bytes are safe by now. *seen is brought up to date.
func (f *File) Sync(seen *uint64, dataOnly bool) error {
	// The time of the last store belongs to what is written back.
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		return err
	}
	f.askKernel()
	if f.record.Unsynced() && !f.copying() {
		// A file that was only written to has no mapping yet; write-back is
		// msync's all the same. Without a mapping fsync serves.
		f.rlock(f.size.Load(), forReading)
		f.mu.RUnlock()
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	if err := f.syncLocked(dataOnly); err != nil {
		f.fail(err)
		*seen = f.failures.Load()
		return err
	}
	f.failed = false
	if newest := f.failures.Load(); *seen != newest {
		*seen = newest
		return f.failure
	}
	return nil
}

// syncLocked writes the file back once. f.syncMu must be held: it keeps the
// mapping and the descriptor where they are while nothing else is locked, so
// that reads and writes go on during the wait for the device.
func (f *File) syncLocked(dataOnly bool) error {
	if f.copies != nil {
		return f.syncCopies(dataOnly)
	}
	size := f.size.Load()
	pages := f.record.BeginSync(paging.WholeFile)
	err := f.redirtyFailed()
	if err == nil {
		err = f.writeBack(dataOnly)
	}
	f.endSync(err, Event{Length: size, Pages: pages, Flags: unix.MS_SYNC})
	return err
}

// endSync notes how a write-back ended, and tells of it.
func (f *File) endSync(err error, e Event) {
	f.record.EndSync(err != nil)
	f.counters.Msyncs.add(f.table, EventMsync)
	e.Kind, e.Err = EventMsync, err
	f.observe(e)
}

// redirtyFailed makes dirty again what a failed write-back left clean for the
// kernel.
func (f *File) redirtyFailed() error {
	if !f.failed {
		return nil
	}
	return f.redirty()
}

// fail remembers a failed write-back. f.syncMu must be held.
func (f *File) fail(err error) {
	f.failed = true
	f.failure = err
	f.failures.Add(1)
}

// writeBack makes the system call of a write-back: msync(2) is fdatasync(2) by another
// name, and fsync(2) writes back the pages of mappings too (mm/msync.c and
// mm/filemap.c of the kernel). f.syncMu must be held.
func (f *File) writeBack(dataOnly bool) error {
	f.mu.RLock()
	mem, fd, writable := f.mem, f.fd, f.writable
	f.mu.RUnlock()
	if !dataOnly {
		return f.sys.Fsync(fd)
	}
	end, ok := paging.PageUp(f.size.Load())
	// msync does nothing for a mapping that cannot be written through, even if
	// others have made the file's pages dirty.
	if ok && writable && end > 0 && end <= int64(len(mem)) {
		return f.sys.Msync(mem[:end], unix.MS_SYNC)
	}
	return f.sys.Fdatasync(fd)
}

// redirty makes the kernel see the pages that are being written back as
// modified again, because a write-back of them failed before. f.syncMu must be
// held.
func (f *File) redirty() (err error) {
	f.record.EachSyncing(func(page int64) bool {
		err = f.redirtyPage(page)
		return err == nil
	})
	return err
}

// redirtyPage stores to one page without changing it: through the mapping, or by
// writing back what was read, which then needs the file to itself.
func (f *File) redirtyPage(page int64) error {
	g := paging.Range{Off: page * paging.PageSize, End: (page + 1) * paging.PageSize}
	f.mu.RLock()
	inside := g.Off < f.size.Load()
	done := !inside || f.copies == nil && f.writable && g.End <= int64(len(f.mem)) && guard.Redirty(f.mem[g.Off:g.End]) == 0
	f.mu.RUnlock()
	if done {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var b [1]byte
	f.beforeRead(true)
	n, err := f.sys.Pread(f.fd, b[:], g.Off)
	if err != nil || n == 0 {
		return err
	}
	_, err = f.sys.Pwrite(f.fd, b[:], g.Off)
	return err
}
