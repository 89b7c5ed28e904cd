package mapping

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Access times follow the reads of clients as the backing filesystem would have them
// follow: with the first read after a change, with the first in a day, with every read
// or never, as that is mounted (mount(8): relatime, strictatime, noatime).
//
// pread(2) sees to that by itself. What the engine does for its own ends must not be
// taken for a read, though, and the reads of a client that asked for it neither
// (open(2): O_NOATIME): mmap(2) counts as one too. For these the descriptor gets
// O_NOATIME, unless the kernel would leave the time alone anyway. And reads that are
// served by the mapping are seen by nobody: they are owed to the access time, which
// gets one pread(2) for all of them before anybody can tell the difference, which is
// before the file is looked at, before it changes, and when it is closed.

// atimeState is what is known of a file's access time.
type atimeState struct {
	// fresh says that the kernel would not change the access time now.
	fresh atomic.Bool
	// owed says that bytes were read that the kernel does not know of.
	owed atomic.Bool
	// quiet says that the descriptor has O_NOATIME.
	quiet atomic.Bool
	// shown is the access time, in nanoseconds since 1970, of a file in a mode that
	// copies if it is later than the inode's; 0 if not.
	shown atomic.Int64

	mu sync.Mutex // one change of quiet at a time
	// refused says that the descriptor cannot have O_NOATIME: the file is somebody
	// else's, and the process has no CAP_FOWNER.
	refused bool
}

// atimeDay is how old an access time may be that relatime leaves alone.
const atimeDay = 24 * time.Hour

// atimeIs takes over what stat(2) says of the inode.
func (f *File) atimeIs(st *unix.Stat_t) {
	fresh := true
	if !f.KeepsATime {
		atime := unix.TimespecToNsec(st.Atim)
		fresh = !f.StrictATime && atime > unix.TimespecToNsec(st.Mtim) && atime > unix.TimespecToNsec(st.Ctim) &&
			time.Now().UnixNano()-atime < int64(atimeDay)
	}
	if f.atime.fresh.Load() != fresh {
		f.atime.fresh.Store(fresh)
	}
}

// changes is called before the file's bytes, its size or its inode change: the next
// read counts.
func (f *File) changes() {
	if f.atime.owed.Load() {
		f.payATime()
	}
	f.stale()
}

// stale notes that the next read counts.
func (f *File) stale() {
	if f.atime.fresh.Load() && !f.KeepsATime {
		f.atime.fresh.Store(false)
	}
}

// ATimeSet is told that somebody has set the inode's access time: what was read so far
// does not count any more.
func (f *File) ATimeSet() {
	f.atime.owed.Store(false)
	f.atime.shown.Store(0)
}

// readMapped notes that a client has read from the mapping. quiet says that it does
// not count.
func (f *File) readMapped(quiet bool) {
	if !quiet && !f.table.noATime && !f.atime.fresh.Load() && !f.atime.owed.Load() {
		f.atime.owed.Store(true)
	}
}

// beforeRead is called before a pread(2), or a mmap(2). quiet says that it does not
// count as a read of the file. f.mu must be held, at least shared.
func (f *File) beforeRead(quiet bool) {
	switch {
	case f.atime.fresh.Load():
	case quiet || f.table.noATime:
		f.setQuiet(true)
	default:
		f.setQuiet(false)
		if f.copies != nil {
			f.atime.shown.Store(time.Now().UnixNano())
		}
		if !f.StrictATime {
			f.atime.fresh.Store(true) // by the pread that follows
		}
	}
}

// setQuiet gives the descriptor O_NOATIME or takes it away. f.mu must be held, at
// least shared.
func (f *File) setQuiet(quiet bool) {
	a := &f.atime
	if a.quiet.Load() == quiet {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet.Load() == quiet || quiet && a.refused {
		return
	}
	flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
	if err != nil {
		return
	}
	flags &^= unix.O_NOATIME
	if quiet {
		flags |= unix.O_NOATIME
	}
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, flags); err != nil {
		a.refused = true
		return
	}
	a.quiet.Store(quiet)
}

// payATime pays what is owed to the access time.
func (f *File) payATime() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	f.payATimeLocked()
}

// payATimeLocked is payATime; f.mu must be held.
func (f *File) payATimeLocked() {
	if !f.atime.owed.Load() || !f.atime.owed.Swap(false) || f.fd < 0 || !f.readable {
		return
	}
	var b [1]byte
	f.beforeRead(false)
	// Whether there is a byte or an error, the time is what counts. Not by way of
	// f.sys: b would have to live on the heap.
	_, _ = unix.Pread(f.fd, b[:], 0)
}
