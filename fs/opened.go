package fs

import (
	"time"

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

// opened notes that n has one more handle, of f, for writing or not, and reports whether the bytes
// that the kernel has cached are still right: nobody changed the inode since
// they were known to be. After a write through the mount they are not trusted,
// because a change by somebody else at the same time cannot be told apart.
func (n *Node) opened(f *mapping.File, writes bool, st *unix.Stat_t) (keepCache bool) {
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
	if writes {
		rare.writers++
	}
	keepCache = now.valid && rare.cached == now
	rare.cached = now
	return keepCache
}

// stampStep is longer than the step of any kernel's time stamps (a jiffy).
const stampStep = 20 * time.Millisecond

// closeFile notes that n has one handle less, of f, which was for writing or not. An inode without a name stays
// reachable as long as the kernel knows it.
func (s *Session) closeFile(n *Node, f *mapping.File, writes bool) {
	last := notOpened
	for {
		done, kept := n.closed(last, writes)
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
func (n *Node) closed(last int, writes bool) (done, kept bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rare
	final := rare.handles == 1
	if final && rare.removed && last == notOpened {
		return false, false
	}
	rare.handles--
	if writes {
		rare.writers--
	}
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
