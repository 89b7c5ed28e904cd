package mapping

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// copying reports whether the file is in a mode that copies, as a hint: the mode
// can change until a lock is held.
func (f *File) copying() bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.copies != nil
}

// statCopiesLocked puts size, times and blocks of the copies in place of the
// backing file's. f.mu must be held.
func (f *File) statCopiesLocked(st *unix.Stat_t) {
	st.Size = f.size.Load()
	// A file in memory only would otherwise look like one hole to tar and cp.
	st.Blocks += f.copies.count.Load() * (paging.PageSize / 512)
	if c := f.copies; c.fileCtime != 0 && unix.TimespecToNsec(st.Ctim) == c.fileCtime {
		st.Ctim = unix.NsecToTimespec(c.shownCtime)
	}
	if shown := f.atime.shown.Load(); shown > unix.TimespecToNsec(st.Atim) {
		st.Atim = unix.NsecToTimespec(shown)
	}
	if stored := f.mtime.Load(); stored > unix.TimespecToNsec(st.Mtim) {
		st.Mtim = unix.NsecToTimespec(stored)
		st.Ctim = st.Mtim
	}
}

// presentCopiesLocked is presentLocked for a file that copies. Copied pages and
// what lies past the file's part are there unless somebody truncated the backing
// file, which takes copies away too (mmap(2), truncate(2)).
func (f *File) presentCopiesLocked(mem []byte, g paging.Range) bool {
	if f.record.All(g, dirty.Copied) || f.record.All(g, dirty.Loaded) {
		if fault := guard.Touch(mem[g.Off:g.End]); fault != 0 {
			f.faulted(mem, fault)
			f.wasCut()
			return false
		}
		return true
	}
	file := g.Intersect(paging.Range{Off: 0, End: f.copies.fileEnd})
	if file.Empty() {
		return true
	}
	if f.FillsHoles && !guard.Resident(mem[paging.PageDown(file.Off):file.End]) {
		return false
	}
	var st unix.Stat_t
	if sys.Fstat(f.fd, &st) != nil {
		return false
	}
	if end, ok := paging.PageUp(st.Size); !ok || end < file.End {
		f.wasCut()
		return false
	}
	return true
}

// readCopiesLocked reads each page from where it is: a copied one and what lies
// past the file's part from memory, others from the file by pread(2). Where the
// file has become shorter there are zeros. f.mu must be held.
func (f *File) readCopiesLocked(p []byte, off int64) (n int, err error) {
	end := off + int64(len(p))
	for at := off; at < end; {
		next := min(paging.PageDown(at)+paging.PageSize, end)
		part := p[at-off : next-off]
		page := paging.Range{Off: at, End: next}
		if next <= int64(len(f.mem)) && (at >= f.copies.fileEnd || f.record.All(page, dirty.Copied)) {
			if fault := guard.Load(part, f.mem[at:next]); fault != 0 {
				f.faulted(f.mem, fault)
				return int(at - off), os.NewSyscallError("read", syscall.EIO)
			}
		} else {
			m, err := f.preadFull(part, at)
			if err != nil {
				return int(at - off), err
			}
			clear(part[m:])
		}
		at = next
	}
	return len(p), nil
}

// copyOver stores p at g in the engine's memory. done is false when the file has
// changed its mode meanwhile.
func (f *File) copyOver(p []byte, g paging.Range, by Origin) (n int, done bool, err error) {
	if err := f.table.makeRoom(f, g.Len()); err != nil {
		return 0, true, err
	}
	if g.End > f.size.Load() {
		f.growMu.Lock()
		defer f.growMu.Unlock()
		if f.copies == nil {
			return 0, false, nil
		}
		n, err = f.extendCopies(p, g, by)
		return n, true, err
	}
	mem := f.rlock(g.End, forWriting)
	defer f.mu.RUnlock()
	if f.copies == nil || g.End > f.size.Load() {
		return 0, false, nil
	}
	if err := f.copyLocked(mem, p, g, by.state()); err != nil {
		return 0, true, err
	}
	f.wrote(g, by)
	return len(p), true, nil
}

// copyLocked stores p at g through the private mapping mem, all of it or nothing
// that counts. f.mu must be held.
func (f *File) copyLocked(mem, p []byte, g paging.Range, cause dirty.State) error {
	if g.End > int64(len(mem)) {
		return f.whyUnmapped()
	}
	if !f.storeLocked(mem, p, g) && !(f.fillHolesLocked(g) && f.storeLocked(mem, p, g)) {
		return os.NewSyscallError("write", f.whyFaulted(g))
	}
	f.copiedLocked(g, dirty.Stored|cause)
	return nil
}

// copiedLocked notes a store to the pages that g touches. f.mu must be held.
func (f *File) copiedLocked(g paging.Range, states dirty.State) {
	f.mtime.Store(time.Now().UnixNano())
	if fresh := f.record.Copy(g, dirty.Written|states); fresh > 0 {
		f.addCopied(fresh)
		f.setHeld(true)
		first, end := g.Pages()
		f.observe(Event{Kind: EventCopy, Off: first * paging.PageSize, Length: (end - first) * paging.PageSize, Pages: fresh})
	}
}

// whyUnmapped says why a store has no memory to go to. f.mu must be held.
func (f *File) whyUnmapped() error {
	switch {
	case !f.mayWriteLocked():
		return os.NewSyscallError("write", syscall.EBADF)
	case f.unmapped:
		return os.NewSyscallError("mmap", syscall.ENODEV)
	}
	return os.NewSyscallError("mmap", syscall.ENOMEM)
}

// extendCopies stores p at g, which may reach past the end of the file. f.growMu
// must be held.
func (f *File) extendCopies(p []byte, g paging.Range, by Origin) (int, error) {
	f.copies.growing.Store(true)
	defer f.copies.growing.Store(false)
	if err := f.prepareGrowth(g.End); err != nil {
		return 0, err
	}
	mem := f.rlock(g.End, forWriting)
	defer f.mu.RUnlock()
	if err := f.clearTailLocked(mem, g.End); err != nil {
		return 0, err
	}
	if err := f.copyLocked(mem, p, g, by.state()); err != nil {
		return 0, err
	}
	f.wrote(g, by)
	f.growLocked(g.End)
	return len(p), nil
}

// appendCopies is Append. f.growMu must be held.
func (f *File) appendCopies(p []byte, by Origin) (off int64, n int, err error) {
	if err := f.statForGrowth(); err != nil {
		return 0, 0, err
	}
	off = f.size.Load()
	g, ok := paging.RangeOf(off, int64(len(p)))
	if !ok {
		return 0, 0, os.NewSyscallError("write", syscall.EFBIG)
	}
	n, err = f.extendCopies(p, g, by)
	return off, n, err
}

// statForGrowth learns the backing file's size before the engine's own takes its
// place. f.growMu must be held.
func (f *File) statForGrowth() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var st unix.Stat_t
	if err := sys.Fstat(f.fd, &st); err != nil {
		return err
	}
	f.adoptSize(st.Size)
	return nil
}

// prepareGrowth makes the size the engine's own, unless the file has end bytes as
// it is. f.growMu must be held.
func (f *File) prepareGrowth(end int64) error {
	f.mu.RLock()
	own := f.copies.own
	f.mu.RUnlock()
	if own {
		return nil
	}
	if err := f.statForGrowth(); err != nil {
		return err
	}
	if end <= f.size.Load() {
		return nil // grown by others
	}
	return f.ownSize()
}

// ownSize is ownSizeLocked for who holds f.growMu alone. As a rule it does not wait for a
// write-back.
func (f *File) ownSize() error {
	f.mu.Lock()
	if end, _ := paging.PageUp(f.size.Load()); f.copies.own || f.copies.fileEnd <= end {
		defer f.mu.Unlock()
		return f.ownSizeLocked()
	}
	f.mu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ownSizeLocked()
}

// ownSizeLocked makes the size, and what lies past the file's part, the engine's
// own. f.growMu and f.mu must be held, the latter exclusively; and f.syncMu if the file's
// part goes on past its end.
func (f *File) ownSizeLocked() error {
	c := f.copies
	if c.own {
		return nil
	}
	// Others may have cut the file since it was mapped: there is nothing to grow over
	// where it was.
	if end, _ := paging.PageUp(f.size.Load()); c.fileEnd > end {
		if err := f.mapNothing(end, c.fileEnd); err != nil {
			return err
		}
		f.forgetHolesLocked(paging.Range{Off: end, End: c.fileEnd})
		f.record.Clear(paging.Range{Off: end, End: c.fileEnd}, dirty.Loaded|dirty.Stored)
		c.fileEnd = end
		f.relockLocked()
	}
	c.own, c.cut = true, f.size.Load()
	f.setHeld(true)
	return nil
}

// clearTailLocked makes zero and copies what lies between the end of the file and
// size in the file's last page: from now on the backing file, and who grows it,
// has no say in it. f.growMu and f.mu must be held.
func (f *File) clearTailLocked(mem []byte, size int64) error {
	old := f.size.Load()
	end, ok := paging.PageUp(old)
	if !ok || size <= old || end == old {
		return nil
	}
	if end > int64(len(mem)) {
		return f.whyUnmapped()
	}
	cleared, fault := f.zeroLocked(mem, paging.Range{Off: old, End: end})
	if fault == 0 && cleared == 0 {
		fault = guard.Store(mem[old:old+1], []byte{0}) // copies the page
	}
	if fault != 0 {
		f.faulted(mem, fault)
		return os.NewSyscallError("write", f.whyFaulted(paging.Range{Off: old, End: end}))
	}
	if cleared > 0 {
		f.observe(Event{Kind: EventZero, Off: end - int64(cleared), Length: int64(cleared)})
	}
	f.copiedLocked(paging.Range{Off: old, End: end}, dirty.UnsyncedTruncate)
	return nil
}

// zeroLocked is zero of the bytes g of the private mapping mem. f.mu must be held.
func (f *File) zeroLocked(mem []byte, g paging.Range) (cleared int, fault uintptr) {
	cleared, fault = guard.Zero(mem[g.Off:g.End])
	if fault != 0 && f.fillHolesLocked(g) {
		cleared, fault = guard.Zero(mem[g.Off:g.End])
	}
	return cleared, fault
}

// truncateCopies is Truncate in memory. f.growMu must be held.
func (f *File) truncateCopies(size int64) error {
	if err := f.statForGrowth(); err != nil {
		return err
	}
	old := f.size.Load()
	if size == old {
		f.observe(Event{Kind: EventTruncate, Off: old, Length: size})
		return nil
	}
	if size < old {
		if err := f.cutCopies(size); err != nil {
			return err
		}
	} else if err := f.growCopies(size); err != nil {
		return err
	}
	f.mtime.Store(time.Now().UnixNano())
	f.observe(Event{Kind: EventTruncate, Off: old, Length: size})
	return nil
}

// growCopies adds zeros up to size. f.growMu must be held.
func (f *File) growCopies(size int64) error {
	f.copies.growing.Store(true)
	defer f.copies.growing.Store(false)
	if err := f.ownSize(); err != nil {
		return err
	}
	mem := f.rlock(size, forWriting)
	defer f.mu.RUnlock()
	if size > int64(len(mem)) {
		return f.whyUnmapped()
	}
	if err := f.clearTailLocked(mem, size); err != nil {
		return err
	}
	// The size is unsynced, and shows at the file's last page as in Shared. There
	// is nothing of the backing file, so it takes a zero to make it a page.
	last := paging.Range{Off: size - 1, End: size}
	if fault := guard.Store(mem[last.Off:last.End], []byte{0}); fault != 0 {
		f.faulted(mem, fault)
		return os.NewSyscallError("ftruncate", f.whyFaulted(last))
	}
	f.copiedLocked(last, dirty.UnsyncedTruncate)
	f.size.Store(size)
	return nil
}

// cutCopies takes what lies past size away. f.growMu must be held. It waits for a
// write-back, which reads the pages.
func (f *File) cutCopies(size int64) error {
	f.rlock(f.size.Load(), forWriting)
	f.mu.RUnlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.copies
	end, _ := paging.PageUp(size)
	if end > int64(len(f.mem)) {
		return f.whyUnmapped()
	}
	if c.fileEnd > end {
		if err := f.mapNothing(end, c.fileEnd); err != nil {
			return err // and nothing has changed
		}
	}
	if err := f.ownSizeLocked(); err != nil {
		return err
	}
	f.forgetHolesLocked(paging.Range{Off: end, End: c.fileEnd})
	c.fileEnd = min(c.fileEnd, end)
	c.cut = min(c.cut, size)
	err := f.discardLocked(paging.Range{Off: end, End: int64(len(f.mem))})
	f.addCopied(-f.record.Forget(size))
	f.size.Store(size)
	f.relockLocked()
	if size < end {
		// The bytes of the last page that are cut off are zero from now on. A
		// page that is gone has none.
		fault := guard.ZeroAll(f.mem[size:end])
		if fault != 0 && f.fillHolesLocked(paging.Range{Off: size, End: end}) {
			fault = guard.ZeroAll(f.mem[size:end])
		}
		if fault != 0 {
			f.faulted(f.mem, fault)
		} else {
			f.copiedLocked(paging.Range{Off: size, End: end}, dirty.UnsyncedTruncate)
		}
	}
	return err
}

// allocateCopies is Allocate in memory: nothing is allocated ahead. done is false
// when the file has changed its mode meanwhile.
func (f *File) allocateCopies(mode uint32, g paging.Range) (done bool, err error) {
	switch mode &^ unix.FALLOC_FL_KEEP_SIZE {
	case 0:
	case unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE:
		if done, err := f.zeroCopies(g); !done || err != nil {
			return done, err
		}
	default:
		return true, os.NewSyscallError("fallocate", syscall.EOPNOTSUPP)
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE != 0 {
		return true, nil
	}
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies == nil {
		return false, nil
	}
	if err := f.statForGrowth(); err != nil {
		return true, err
	}
	old := f.size.Load()
	if g.End <= old {
		return true, nil
	}
	if err := f.growCopies(g.End); err != nil {
		return true, err
	}
	f.mtime.Store(time.Now().UnixNano())
	f.observe(Event{Kind: EventExtend, Off: old, Length: g.End - old})
	return true, nil
}

// zeroPiece is how many bytes zeroCopies clears at a time: what is copied by it has
// to fit the budget.
const zeroPiece = 1 << 20

// zeroCopies makes g zero, as far as the file has it. Pages that are zero already
// are not copied, so a hole stays one. done is as for allocateCopies.
func (f *File) zeroCopies(g paging.Range) (done bool, err error) {
	g = g.Intersect(paging.Range{Off: 0, End: f.size.Load()})
	for at := g.Off; at < g.End; {
		piece := paging.Range{Off: at, End: min(paging.PageDown(at)+zeroPiece, g.End)}
		if err := f.table.makeRoom(f, piece.Len()); err != nil {
			return true, err
		}
		if done, err := f.zeroCopiesIn(piece); !done || err != nil {
			return done, err
		}
		at = piece.End
	}
	return true, nil
}

// zeroCopiesIn makes the bytes of one piece zero.
func (f *File) zeroCopiesIn(g paging.Range) (done bool, err error) {
	mem := f.rlock(min(g.End, f.size.Load()), forWriting)
	defer f.mu.RUnlock()
	if f.copies == nil {
		return false, nil
	}
	g = g.Intersect(paging.Range{Off: 0, End: f.size.Load()})
	if g.End > int64(len(mem)) {
		return true, f.whyUnmapped()
	}
	for at := g.Off; at < g.End; {
		next := min(paging.PageDown(at)+paging.PageSize, g.End)
		cleared, fault := f.zeroLocked(mem, paging.Range{Off: at, End: next})
		if fault != 0 {
			f.faulted(mem, fault)
			return true, os.NewSyscallError("fallocate", f.whyFaulted(paging.Range{Off: at, End: next}))
		}
		if cleared > 0 {
			f.copiedLocked(paging.Range{Off: at, End: next}, dirty.UnsyncedTruncate)
		}
		at = next
	}
	return true, nil
}
