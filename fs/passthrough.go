package fs

import (
	"os"
	"sync"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
)

// With -o passthrough the kernel reads, writes and maps what clients have open, and the
// daemon sees opens, syncs and closes. The kernel does so with the daemon's rights: a write
// by a user leaves set-id bits where they are. So a file that has any is not passed, and
// gets none while a user can write to it.

// passthrough is what a session knows of the files that are passed.
type passthrough struct {
	// mu keeps the first open of a node and the last close apart: between them all must
	// open it in the same way. Only mounts with the option take it.
	mu sync.Mutex
	// refused is why a file could not be passed; nil if none was refused.
	refused error
}

// How a node is open, beside the number of a passed file.
const (
	notOpen   int32 = 0
	notPassed int32 = -1
)

// pass returns the number under which a client that opens n is to use its file, or
// notPassed. s.passthrough.mu must be held until the handle is noted.
func (s *Session) pass(n *Node, f *mapping.File, st *unix.Stat_t, byUser bool) (int32, error) {
	setID := st.Mode&unix.S_ISUID != 0 || st.Mode&(unix.S_ISGID|unix.S_IXGRP) == unix.S_ISGID|unix.S_IXGRP
	switch as := n.openAs(); {
	case as > 0 && setID && byUser:
		return 0, syscall.EBUSY
	case as != notOpen:
		return as, nil
	case setID || f.Mode() != mapping.Shared:
		return notPassed, nil
	}
	id := notPassed
	err := f.WithDescriptor(func(fd int) (err error) {
		id, err = s.conn.Pass(fd)
		return err
	})
	if err != nil {
		if s.passthrough.refused == nil {
			s.log.Warn("a file cannot be passed through; it and its like are served by the daemon", "error", err)
		}
		s.passthrough.refused = err
		return notPassed, nil
	}
	f.Pass()
	return id, nil
}

// newPassedHandle notes that n is open once more in a mount with the option, and fills in
// how the kernel is to use it.
func (s *Session) newPassedHandle(out *wire.OpenOut, n *Node, f *mapping.File, by opening, st *unix.Stat_t) error {
	s.passthrough.mu.Lock()
	defer s.passthrough.mu.Unlock()
	id, err := s.pass(n, f, st, by.writes && by.other)
	if err != nil {
		return err
	}
	keepCache := n.opened(f, by, st)
	n.setOpenAs(id)
	switch {
	case id > 0:
		if by.writes {
			s.conn.InvalidateAttributes(n.id) // what the kernel has of them is right no longer than now
		}
		out.OpenFlags, out.BackingID = wire.OpenPassthrough, id
	case keepCache:
		out.OpenFlags = uint32(fuse.OpenKeepCache)
	}
	return nil
}

// attrTimeout is how long the kernel may keep a node's attributes. Those of a file that it
// writes to by itself change with each store, and it does not notice.
func (s *Session) attrTimeout(n *Node) time.Duration {
	if s.opts.Passthrough && n.openAs() > 0 && n.mayBeStored() {
		return 0
	}
	return s.opts.AttrTimeout
}

// openAs returns how n is open.
func (n *Node) openAs() int32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare == nil || n.rare.handles == 0 {
		return notOpen
	}
	return n.rare.as
}

func (n *Node) setOpenAs(as int32) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rareLocked().as = as
}

// usersWrite reports whether the kernel writes to n for others than the daemon's user.
func (n *Node) usersWrite() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rare != nil && n.rare.as > 0 && n.rare.userWriters > 0
}

// A user's close(2) returns before the daemon is told of it. closeWait is how long a change
// of mode waits for that.
const closeWait = 50 * time.Millisecond

// awaitUsers refuses a mode with set-id bits for a file that the kernel writes to for
// users: EBUSY.
func (s *Session) awaitUsers(n *Node, mode uint32) error {
	if !s.opts.Passthrough || mode&(unix.S_ISUID|unix.S_ISGID) == 0 {
		return nil
	}
	for end := time.Now().Add(closeWait); n.usersWrite(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return os.NewSyscallError("chmod", syscall.EBUSY)
		}
	}
	return nil
}

// Passthrough says whether the kernel uses files past the daemon: "off", "on", or why not.
func (s *Session) Passthrough() string {
	if !s.opts.Passthrough {
		return "off"
	}
	if !s.conn.Protocol.Passes() {
		return "the kernel has no FUSE_PASSTHROUGH"
	}
	s.passthrough.mu.Lock()
	defer s.passthrough.mu.Unlock()
	switch err := s.passthrough.refused; {
	case err == nil:
		return "on"
	case wire.ErrnoOf(err) == syscall.ELOOP:
		return "the filesystem of BACKING lies over another one itself"
	default:
		return err.Error()
	}
}
