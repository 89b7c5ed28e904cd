package mapping

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/guard"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// Private files that were changed keep what was stored until the mount ends, however
// many they are. So do staged ones until they are synced, with Config.OnlyOnSync.
// Descriptors and mappings are bounded, so a file that nobody uses can
// be parked: what it has copied moves to memory of its own, and the file is closed.
// The next open of the inode makes it again.

// parkedFile is what is left of a file that is parked. Nothing of it changes
// but mtime, which the table's mu guards.
type parkedFile struct {
	// mu is held while the file is made again.
	mu sync.Mutex

	id    ID
	mode  Mode
	owner uint32
	born  unix.StatxTimestamp // tells the inode from a later one with its number
	ctime unix.Timespec       // what it looked like

	size   int64 // the engine's own if own, else the backing file's at the time
	own    bool
	cut    int64 // see copies
	mtime  int64 // see File
	record *dirty.Record
	runs   []parkedRun
	copied int64 // pages
}

// parkedRun is the bytes of neighbouring pages that were copied.
type parkedRun struct {
	off   int64
	bytes []byte
}

// parkOldest parks the file that has been idle longest, of those that can be, and reports
// whether there was one. Its memory is copied for that.
func (t *Table) parkOldest() bool {
	f := t.oldestKept(Private)
	if f == nil && t.onlyOnSync {
		f = t.oldestKept(Staged)
	}
	if f == nil {
		return false
	}
	if !t.park(f) {
		t.release(f) // it is the newest now
		return false
	}
	return true
}

// park parks a file, to which the caller has the only reference, and takes that over.
// It reports false, and does nothing, if the file is used by now, or cannot be told
// from a later one with its number.
func (t *Table) park(f *File) bool {
	p, ok := t.takeOut(f)
	if !ok {
		return false
	}
	f.discard() // out of everybody's reach
	t.copied.Force(p.owner, p.copied)
	return true
}

// takeOut puts what is to stay of a file in its place in the table.
func (t *Table) takeOut(f *File) (p *parkedFile, ok bool) {
	f.growMu.Lock()
	defer f.growMu.Unlock()
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.copies
	var st unix.Stat_t
	if c == nil || c.mode != Private && !t.onlyOnSync || len(f.locked) > 0 || f.fd < 0 || sys.Fstat(f.fd, &st) != nil || st.Nlink == 0 {
		return nil, false
	}
	p = &parkedFile{
		id: f.id, mode: c.mode, owner: f.owner, born: birth(f.fd), ctime: st.Ctim, size: f.size.Load(), own: c.own, cut: c.cut, mtime: f.mtime.Load(),
	}
	if p.born == (unix.StatxTimestamp{}) || !p.copyOut(f) {
		return nil, false
	}
	// Those who find the file from now on wait for its locks, so what was copied is
	// still right if nobody has.
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.refs != 1 || t.closed {
		return nil, false
	}
	f.refs = 0
	delete(t.files, f.id)
	t.parked[p.id] = p
	t.parkedN.Store(int64(len(t.parked)))
	return p, true
}

// copyOut copies what f has copied. It reports false if a page is gone, which only
// the file itself can answer for. All of f's locks must be held.
func (p *parkedFile) copyOut(f *File) bool {
	_, end := paging.Range{Off: 0, End: p.size}.Pages()
	whole := true
	f.record.Runs(0, end, func(run pagestate.Run, states dirty.State) bool {
		if states&dirty.Copied == 0 {
			return true
		}
		g := paging.Range{Off: run.First * paging.PageSize, End: run.End * paging.PageSize}
		whole = g.End <= int64(len(f.mem))
		if !whole {
			return false
		}
		bytes := make([]byte, g.Len())
		if fault := guard.Load(bytes, f.mem[g.Off:g.End]); fault != 0 {
			whole = false
			return false
		}
		p.runs = append(p.runs, parkedRun{g.Off, bytes})
		p.copied += run.End - run.First
		return true
	})
	if whole {
		p.record = f.record.Clone()
		p.record.Unmapped()
	}
	return whole
}

// unpark makes a parked file again from fd, an open descriptor of its inode, which it
// takes over if done. done is false when the file is not parked any more, or what was
// parked belonged to another inode with this number.
func (t *Table) unpark(p *parkedFile, fd int, st *unix.Stat_t, readable, writable bool) (f *File, done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.mu.Lock()
	switch {
	case t.parked[p.id] != p:
		t.mu.Unlock()
		return nil, false, nil
	case p.born != birth(fd):
		t.dropParkedLocked(p.id)
		t.mu.Unlock()
		return nil, false, nil
	}
	f = t.newFileLocked(fd, st, readable, writable)
	f.owner = p.owner
	t.mu.Unlock()
	if err := f.restore(p); err != nil {
		f.discard()
		return nil, true, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f.mtime.Store(p.mtime)
	t.dropParkedLocked(p.id)
	t.files[f.id] = f
	return f, true, nil
}

// restore gives a new File what was parked. If it fails, p still has everything.
func (f *File) restore(p *parkedFile) error {
	if !f.readable {
		return os.NewSyscallError("mmap", syscall.EACCES)
	}
	size := p.sizeNow(f.size.Load())
	room, ok := f.table.reserveMapping(size, size)
	if !ok {
		return os.NewSyscallError("mmap", syscall.ENOMEM)
	}
	f.syncMu.Lock()
	defer f.syncMu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = p.record.Clone()
	f.setModeLocked(p.mode)
	f.copies.own, f.copies.cut = p.own, p.cut
	f.size.Store(size)
	// Others may have cut the backing file, and copies with it.
	gone := f.record.Forget(size)
	took, err := f.mapCopiesLocked(size, room)
	if !took {
		f.table.unreserveMapping(room)
	}
	if err != nil {
		f.record = new(dirty.Record)
		return err
	}
	f.addCopied(p.copied - gone)
	f.setHeld(true)
	end, _ := paging.PageUp(size)
	for _, run := range p.runs {
		if run.off >= end {
			break
		}
		g := paging.Range{Off: run.off, End: min(run.off+int64(len(run.bytes)), end)}
		fault := guard.Store(f.mem[g.Off:g.End], run.bytes[:g.Len()])
		if fault != 0 && f.fillHolesLocked(g) {
			fault = guard.Store(f.mem[g.Off:g.End], run.bytes[:g.Len()])
		}
		if fault != 0 {
			return os.NewSyscallError("mmap", syscall.ENOMEM)
		}
	}
	f.checkHeld()
	return nil
}

// sizeNow returns the file's length. backing is that of the backing file.
func (p *parkedFile) sizeNow(backing int64) int64 {
	if p.own {
		return p.size
	}
	return backing
}

// stat puts size, times and blocks in place in what stat(2) says of the inode that is
// called name in the directory dirfd, unless it is another one with p's number.
func (p *parkedFile) stat(t *Table, st *unix.Stat_t, dirfd int, name string) {
	if st.Ctim != p.ctime {
		// Somebody has changed it, or it is another file.
		var now unix.Statx_t
		if unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &now) != nil || now.Btime != p.born {
			return
		}
	}
	st.Size = p.sizeNow(st.Size)
	st.Blocks += p.copied * (paging.PageSize / 512)
	t.mu.Lock()
	stored := p.mtime
	t.mu.Unlock()
	if stored > unix.TimespecToNsec(st.Mtim) {
		st.Mtim = unix.NsecToTimespec(stored)
		st.Ctim = st.Mtim
	}
}

// parkedAs returns what is parked of the inode that fd is open on, or nil.
func (t *Table) parkedAs(id ID, fd int) *parkedFile {
	t.mu.Lock()
	p := t.parked[id]
	t.mu.Unlock()
	if p == nil || p.born != birth(fd) {
		return nil
	}
	return p
}

// dropParkedLocked discards what is parked of a file. t.mu must be held.
func (t *Table) dropParkedLocked(id ID) {
	if p := t.parked[id]; p != nil {
		delete(t.parked, id)
		t.parkedN.Store(int64(len(t.parked)))
		t.copied.Give(p.owner, p.copied)
	}
}

// Parked returns how many files are in memory only, without a descriptor.
func (t *Table) Parked() int64 { return t.parkedN.Load() }

// parkedUnsynced counts the bytes of parked files that a power cut would take.
func (t *Table) parkedUnsynced() (total int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parked {
		total += p.record.UnsyncedBytes(p.size)
	}
	return total
}

// TimesSet is [File.TimesSet] for an inode that the table need not hold open.
func (t *Table) TimesSet(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[id]; f != nil {
		f.TimesSet()
	}
	if p := t.parked[id]; p != nil {
		p.mtime = 0
	}
}
