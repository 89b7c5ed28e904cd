package fs

import (
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// What follows is what a node knows of its handles, and of the kernel's cache of its bytes.

// cacheStamp is how an inode looked when the kernel's cache of its bytes was
// right.
type cacheStamp struct {
	valid        bool
	size         int64
	mtime, ctime unix.Timespec
}

// opening is what a handle was opened for.
type opening struct {
	writes bool
	other  bool // the user is not the daemon's
}

// openingOf returns the opening of a handle with the given flags of open(2).
func (s *Session) openingOf(user uint32, flags int) opening {
	return opening{writes: wantOf(fuse.OpenFlags(flags)) == accessWrite, other: user != s.uid}
}

// count counts a handle, or takes it back.
func (r *rareState) count(by opening, n int) {
	if by.writes {
		r.writers += n
		if by.other {
			r.userWriters += n
		}
	}
}

// opened notes that n has one more handle, of f, and reports whether the bytes
// that the kernel has cached are still right: nobody changed the inode since
// they were known to be. After a write through the mount they are not trusted,
// because a change by somebody else at the same time cannot be told apart.
func (n *Node) opened(f *mapping.File, by opening, st *unix.Stat_t) (keepCache bool) {
	now := cacheStamp{valid: true, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
	// Time stamps come in steps. An inode that changed just now can change
	// again without looking different.
	if newest := max(unix.TimespecToNsec(st.Mtim), unix.TimespecToNsec(st.Ctim)); time.Now().UnixNano()-newest < int64(stampStep) {
		now.valid = false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rareLocked()
	rare.file = f
	rare.handles++
	rare.count(by, 1)
	keepCache = now.valid && rare.cached == now
	rare.cached = now
	return keepCache
}

// stampStep is longer than the step of any kernel's time stamps (a jiffy).
const stampStep = 20 * time.Millisecond

// closeFile notes that n has one handle less, of f, opened as by says. An inode without a name stays
// reachable as long as the kernel knows it.
func (s *Session) closeFile(n *Node, f *mapping.File, by opening) {
	if s.opts.Passthrough {
		s.passthrough.mu.Lock()
		defer s.passthrough.mu.Unlock()
		// The last one to close gives the number up, and the next to open gets another.
		defer func(as int32) {
			if as > 0 && n.openAs() == notOpen {
				s.conn.Unpass(as)
			}
		}(n.openAs())
	}
	last := notOpened
	for {
		done, kept := n.closed(last, by)
		if kept {
			s.nodes.kept(n)
		}
		if done {
			return
		}
		last = cannotOpen
		_ = f.WithDescriptor(func(fd int) error {
			if path, err := unix.Open(procPath(fd), unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
				last = path
			}
			return nil
		})
	}
}

// What closed can be told instead of a descriptor.
const (
	notOpened  = -1 // nobody tried yet
	cannotOpen = -2
)

// closed notes that n has one handle less. If that is the last one of a removed
// inode, last has to be an O_PATH descriptor of it, which n keeps; else nothing is
// done, and done is false. A descriptor that is not needed is closed.
func (n *Node) closed(last int, by opening) (done, kept bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rare
	final := rare.handles == 1
	if final && rare.removed && last == notOpened {
		return false, false
	}
	rare.handles--
	rare.count(by, -1)
	if final {
		rare.file = nil
	}
	switch {
	case last < 0:
	case final && rare.last < 0:
		rare.last, kept = last, true
	default:
		unix.Close(last)
	}
	return true, kept
}

// mayBeStored reports whether the kernel can have stores of clients that it has not sent.
func (n *Node) mayBeStored() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rare != nil && n.rare.writers > 0
}

// changed notes that the bytes of n were changed through the mount.
func (n *Node) changed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare != nil {
		n.rare.cached.valid = false
	}
}
