package mapping

import (
	"container/list"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/mapping/sys"
)

// A file that nobody has open stays open and mapped for a while, in case it is opened
// again.

// idleTime is how long a file that nobody has open stays mapped: long enough
// for a shell to look again, short enough not to keep a filesystem busy.
const idleTime = 60 * time.Second

// idleCheck is how often idle files are looked at. One whose last name is gone
// is closed then, so that its space is freed.
const idleCheck = time.Second

// lastUse is how a file was left by the last who had it open, or how it was when it
// was opened.
type lastUse struct {
	at   time.Time
	keep bool // it may stay mapped for a while
	// program: somebody may run it.
	program bool
	// linked says that the inode had a name, and born when it was made: for
	// who remembers what it leaves unsynced.
	linked bool
	born   unix.StatxTimestamp
	// What the inode looked like.
	size         int64
	mtime, ctime unix.Timespec
}

// looks notes what the inode looks like.
func (u *lastUse) looks(st *unix.Stat_t) {
	u.size, u.mtime, u.ctime = st.Size, st.Mtim, st.Ctim
	u.linked, u.program = st.Nlink > 0, st.Mode&0o111 != 0
}

// changed reports whether the inode looks different now.
func (u *lastUse) changed(st *unix.Stat_t) bool {
	return u.size != st.Size || u.mtime != st.Mtim || u.ctime != st.Ctim
}

// Release gives a reference back. With keep the file stays mapped for a while,
// in case it is opened again; without, it is unmapped and closed with the last
// reference. So is, in any case, a file that has no name any more, and a program
// that is open for writing: nobody could run it (execve(2): ETXTBSY).
func (f *File) Release(keep bool) {
	t := f.table
	t.mu.Lock()
	last := f.last
	t.mu.Unlock()
	if f.unlike.Swap(false) || f.copying() {
		last = f.lookAgain()
	} else if f.atime.owed.Load() {
		f.payATime()
	}
	f.askKernel()
	last.at = time.Now()
	last.keep = keep && last.linked && !(last.program && f.holdsForWriting())
	if last.linked && f.record.Unsynced() {
		if !keep {
			t.syncUnlessRemembered(f)
		}
		_ = f.WithDescriptor(func(fd int) error { // open: the caller has a reference
			last.born = birth(fd)
			return nil
		})
	}
	t.mu.Lock()
	f.last = last
	t.mu.Unlock()
	t.release(f)
}

// lookAgain puts the time of the last store into the inode and returns what it looks
// like then.
func (f *File) lookAgain() (now lastUse) {
	var st unix.Stat_t
	err := f.Stat(&st)
	if err == nil && f.copying() { // what it shows is not what it is
		err = f.WithDescriptor(func(fd int) error { return sys.Fstat(fd, &st) })
	}
	if err == nil {
		now.looks(&st)
	}
	return now
}

// Changed notes that the inode may look different from when it was opened. Who changes
// its mode, its owner or its times past the engine says so.
func (f *File) Changed() {
	f.stale()
	if !f.unlike.Load() {
		f.unlike.Store(true)
	}
}

// release gives a reference back without calling it a use.
func (t *Table) release(f *File) {
	t.mu.Lock()
	f.refs--
	if f.refs > 0 {
		t.mu.Unlock()
		return
	}
	if !(f.last.keep || f.kept() && f.last.linked) || t.closed {
		t.forgetLocked(f)
		t.mu.Unlock()
		f.discard()
		return
	}
	t.idleLocked(f)
	over := t.idle.Len()+t.kept.Len() > t.maxIdle
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
	if over && !t.giveUpOldest() {
		t.parkOldest()
	}
}

// idleLocked puts a file without references into its list. t.mu must be held.
func (t *Table) idleLocked(f *File) {
	f.idleIn = &t.idle
	if f.kept() {
		f.idleIn = &t.kept
	}
	f.idleAt = f.idleIn.PushBack(f)
	t.unused.Add(1)
}

// unidleLocked takes a file out of its list, if it is idle. t.mu must be held.
func (t *Table) unidleLocked(f *File) {
	if f.idleAt == nil {
		return
	}
	f.idleIn.Remove(f.idleAt)
	f.idleIn, f.idleAt = nil, nil
	t.unused.Add(-1)
}

// kept reports whether the file stays open when nobody uses it: mlock(2) keeps it,
// or it has what the backing file does not have. It does not change while the file
// is idle.
func (f *File) kept() bool { return f.pinned.Load() || f.held.Load() }

// Idle returns how many files are open though nobody uses them.
func (t *Table) Idle() int64 { return t.unused.Load() }

// CloseIdle closes up to n files that nobody uses, so that their descriptors are
// free: first those that are only kept in case they are opened again, the longest
// idle first, then private ones, whose copied pages stay in memory, then staged ones,
// which are written back, or stay too; see Config.OnlyOnSync.
func (t *Table) CloseIdle(n int) {
	for ; n > 0 && t.giveUpOldest(); n-- {
	}
	for ; n > 0 && (t.parkOldest() || t.syncOldest()); n-- {
	}
}

// giveUpOldest closes the file that has been idle longest, of those that can be had
// again, and reports whether there was one.
func (t *Table) giveUpOldest() bool {
	t.mu.Lock()
	e := t.idle.Front()
	if e == nil {
		t.mu.Unlock()
		return false
	}
	f := e.Value.(*File)
	t.refLocked(f)
	t.mu.Unlock()
	t.giveUp(f)
	return true
}

// giveUp takes over a reference to a file and closes the file if that was the last.
func (t *Table) giveUp(f *File) {
	t.syncUnlessRemembered(f)
	t.mu.Lock()
	f.refs--
	if f.refs > 0 {
		t.mu.Unlock()
		return
	}
	t.forgetLocked(f)
	t.mu.Unlock()
	f.discard()
}

// syncUnlessRemembered writes a file back that is about to be closed if no more files
// can be remembered.
func (t *Table) syncUnlessRemembered(f *File) {
	if !f.record.Unsynced() || !t.remembered.full() || t.onlyOnSync {
		return
	}
	seen := f.Failures()
	if err := f.Sync(&seen, false); err != nil {
		t.log.Error("write-back before closing", "file", f.Name(), "error", err)
	}
}

// syncOldest writes the staged file back that has been idle longest, closes it, and
// reports whether it could.
func (t *Table) syncOldest() bool {
	if t.onlyOnSync {
		return false
	}
	f := t.oldestKept(Staged)
	if f == nil {
		return false
	}
	seen := f.Failures()
	if err := f.Sync(&seen, false); err != nil {
		t.log.Error("write-back before closing", "file", f.Name(), "error", err)
		t.release(f)
		return false
	}
	t.giveUp(f)
	return true
}

// oldestKept returns the file of the given mode that has been idle longest, of those
// that hold copies and no locked memory, with a reference; or nil.
func (t *Table) oldestKept(mode Mode) *File {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := t.kept.Front(); e != nil; e = e.Next() {
		if f := e.Value.(*File); f.held.Load() && f.heldMode == mode && !f.pinned.Load() {
			t.refLocked(f)
			return f
		}
	}
	return nil
}

// forgetLocked takes f, which has no references, out of the table and remembers
// what it leaves unsynced. t.mu must be held; the caller discards f after giving
// it up.
func (t *Table) forgetLocked(f *File) {
	delete(t.files, f.id)
	if f.last.linked && f.record.Unsynced() && !f.held.Load() {
		t.remembered.add(f.id, rememberedFile{f.record, f.size.Load(), f.last.born})
	}
	t.unidleLocked(f)
}

// Forget closes the file with the given identity if nobody uses it. gone says
// that its last name was removed: what it left unsynced is of no interest any more.
func (t *Table) Forget(id ID, gone bool) {
	if gone {
		defer t.remembered.forget(id)
		defer t.modes.forget(id)
	}
	t.mu.Lock()
	if gone {
		t.dropParkedLocked(id)
	}
	f := t.files[id]
	if f == nil || f.refs > 0 || f.kept() && !gone {
		if f != nil {
			f.Changed()
		}
		t.mu.Unlock()
		return
	}
	t.forgetLocked(f)
	t.mu.Unlock()
	f.discard()
}

// janitor closes idle files that are old or have no name any more. It sleeps
// without a timer while there is none.
func (t *Table) janitor() {
	for {
		select {
		case <-t.done:
			return
		case <-t.wake:
		}
		for t.sweep() {
			select {
			case <-t.done:
				return
			case <-time.After(idleCheck):
			}
		}
	}
}

// sweep looks at every idle file once and reports whether any is left.
func (t *Table) sweep() bool {
	t.mu.Lock()
	var idle []*File
	for _, list := range []*list.List{&t.idle, &t.kept} {
		for list.Len() > 0 {
			f := list.Front().Value.(*File)
			t.refLocked(f)
			idle = append(idle, f)
		}
	}
	t.mu.Unlock()
	for _, f := range idle {
		var st unix.Stat_t
		err := f.WithDescriptor(func(fd int) error { return sys.Fstat(fd, &st) })
		t.mu.Lock()
		if err != nil || st.Nlink == 0 || time.Since(f.last.at) >= idleTime && !f.kept() {
			f.last.keep = false
			f.last.linked = err == nil && st.Nlink > 0
		}
		gives := !f.last.keep && !(f.kept() && f.last.linked)
		t.mu.Unlock()
		if gives {
			t.giveUp(f)
		} else {
			t.release(f)
		}
	}
	return t.unused.Load() > 0
}
