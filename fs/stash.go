package fs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// stash is a directory in the backing directory that keeps inodes whose names were removed
// though a power cut would bring them back. It has the subtree's reserved name, so no
// client sees it, and exists only while there is something in it. Each inode in it has one
// name there, which its node knows as the oldest of its names: so whatever works on a node
// works on one that was removed.
//
// [history.names] guards it.
type stash struct {
	s    *Session
	name string
	node *Node // while the directory exists
	next uint64
	in   int // how many inodes there are

	// id is the number of node, 0 if there is none: for who does not hold names.
	id atomic.Uint64
}

// stashPrefix begins the names in the stash. It tells who finds one after the daemon was
// killed what it is.
const stashPrefix = "removed-"

func (h *stash) init(s *Session) { h.s, h.name = s, s.subtree.Name() }

// has reports whether an inode is in the stash.
func (h *stash) has(n *Node) bool {
	_, ok := h.linkOf(n)
	return ok
}

// linkOf returns the name of an inode in the stash.
func (h *stash) linkOf(n *Node) (link, bool) {
	id := fuse.NodeID(h.id.Load())
	for i := 0; id != 0; i++ {
		l, ok := n.linkAt(i)
		if !ok {
			break
		}
		if l.dir == id {
			return l, true
		}
	}
	return link{}, false
}

// open returns the descriptor of the stash, made if need be. The caller gives it back.
func (h *stash) open() (*dirFD, error) {
	if h.node != nil {
		return h.s.dir(h.node)
	}
	root := h.s.dirs.get(fuse.RootID)
	defer h.s.dirs.put(root)
	if err := unix.Mkdirat(root.fd, h.name, 0o700); err != nil && err != syscall.EEXIST {
		return nil, os.NewSyscallError("mkdirat", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(root.fd, h.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, os.NewSyscallError("fstatat", err)
	}
	h.node = h.s.nodes.look(&st, link{fuse.RootID, h.name})
	h.id.Store(uint64(h.node.id))
	return h.s.dir(h.node)
}

// leave gives the descriptor back, and removes the stash if it is empty.
func (h *stash) leave(d *dirFD) {
	h.s.dirs.put(d)
	if h.in > 0 || h.node == nil {
		return
	}
	root := h.s.dirs.get(fuse.RootID)
	defer h.s.dirs.put(root)
	if unix.Unlinkat(root.fd, h.name, unix.AT_REMOVEDIR) != nil {
		return // somebody has put something there: it is found at the next mount
	}
	h.id.Store(0)
	h.s.forget(h.node.id, 1)
	h.node = nil
}

// newName returns a name for the next inode.
func (h *stash) newName() string {
	h.next++
	return stashPrefix + strconv.FormatUint(h.next, 10)
}

// take removes the name l of n, at p, and keeps n in the stash, if it is not there yet.
func (h *stash) take(n *Node, p place, l link) error {
	d, err := h.open()
	if err != nil {
		return err
	}
	defer h.leave(d)
	if h.has(n) {
		if err := unix.Unlinkat(p.dir.fd, p.name, 0); err != nil {
			return os.NewSyscallError("unlinkat", err)
		}
		n.dropLink(l)
		return nil
	}
	name := h.newName()
	if err := unix.Renameat(p.dir.fd, p.name, d.fd, name); err != nil {
		return os.NewSyscallError("renameat", err)
	}
	n.dropLink(l)
	n.addOldest(link{h.node.id, name})
	h.in++
	return nil
}

// replace renames from to to, where replaced has the name l if it is not nil, and keeps
// that in the stash. There is no moment at which to is missing.
func (h *stash) replace(from, to place, replaced *Node, l link) error {
	if replaced == nil || h.has(replaced) {
		if err := unix.Renameat(from.dir.fd, from.name, to.dir.fd, to.name); err != nil {
			return os.NewSyscallError("renameat", err)
		}
		if replaced != nil {
			replaced.dropLink(l)
		}
		return nil
	}
	d, err := h.open()
	if err != nil {
		return err
	}
	defer h.leave(d)
	name := h.newName()
	linked := false
	if replaced.kind != unix.S_IFDIR {
		linked = unix.Linkat(to.dir.fd, to.name, d.fd, name, 0) == nil
	}
	if linked {
		if err := unix.Renameat(from.dir.fd, from.name, to.dir.fd, to.name); err != nil {
			_ = unix.Unlinkat(d.fd, name, 0) // made in the line above
			return os.NewSyscallError("renameat", err)
		}
	} else {
		if err := unix.Renameat2(from.dir.fd, from.name, to.dir.fd, to.name, unix.RENAME_EXCHANGE); err != nil {
			return os.NewSyscallError("renameat2", err)
		}
		if err := unix.Renameat(from.dir.fd, from.name, d.fd, name); err != nil {
			_ = unix.Renameat2(from.dir.fd, from.name, to.dir.fd, to.name, unix.RENAME_EXCHANGE) // as it was
			return os.NewSyscallError("renameat", err)
		}
	}
	replaced.dropLink(l)
	replaced.addOldest(link{h.node.id, name})
	h.in++
	return nil
}

// release removes an inode from the stash and reports whether that was its last name.
func (h *stash) release(n *Node) (gone bool) {
	l, ok := h.linkOf(n)
	if !ok {
		return false
	}
	d, err := h.open()
	if err != nil {
		return false // found at the next mount
	}
	defer h.leave(d)
	p := place{d, l.name}
	v, err := h.s.victim(p, l)
	if err != nil {
		return false
	}
	flags := 0
	if n.kind == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(d.fd, l.name, flags); err != nil {
		v.spared()
		return false
	}
	h.in--
	gone = n.kind == unix.S_IFDIR || v.st.Nlink <= 1
	h.s.removed(v)
	return gone
}

// clear removes the stash with all that is in it.
func (h *stash) clear() {
	root := h.s.dirs.get(fuse.RootID)
	defer h.s.dirs.put(root)
	if h.node == nil {
		return
	}
	if err := removeAll(root.fd, h.name); err != nil {
		h.s.log.Warn("files that clients have removed are left in the backing directory", "name", h.name, "error", err)
	}
	h.id.Store(0)
	h.node, h.in = nil, 0
}

// removeAll removes a name in a directory, with all that is below it.
func removeAll(dirfd int, name string) error {
	return os.RemoveAll(procPath(dirfd) + "/" + name)
}

// isRemoved reports whether an inode has lost its last name, and nothing can bring it back.
func (n *Node) isRemoved() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rare != nil && n.rare.removed
}

// addOldest makes l the oldest of n's names. n.mu must not be held.
func (n *Node) addOldest(l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest == (link{}) {
		n.newest = l
		return
	}
	rare := n.rareLocked()
	rare.older = append([]link{l}, rare.older...)
}

// showLinks takes the name in the stash, which clients do not see, out of what stat(2) says
// of a node.
func (s *Session) showLinks(n *Node, st *unix.Stat_t) {
	if s.history == nil {
		return
	}
	stash := &s.history.stash
	switch {
	case stash.id.Load() == 0:
	case n.id == fuse.RootID:
		st.Nlink-- // the stash is one of its directories
	case !stash.has(n):
	case n.kind == unix.S_IFDIR:
		st.Nlink = 0
	default:
		st.Nlink--
	}
}

// isStashed reports whether a node has no other name than the one in the stash.
func (s *Session) isStashed(n *Node) bool {
	if s.history == nil {
		return false
	}
	id := s.history.stash.id.Load()
	l, ok := n.linkAt(0)
	return id != 0 && ok && l.dir == fuse.NodeID(id)
}

// RemoveLeftStash removes what a mount with a history whose daemon was killed has left of
// files that clients had removed: the entry of the given name in the backing directory, if
// that can be nothing else. It returns how many there were, and 0 if it is something else.
func RemoveLeftStash(backing int, name string) (files int, err error) {
	entries, err := os.ReadDir(procPath(backing) + "/" + name)
	if err != nil {
		return 0, nil // no directory
	}
	for _, e := range entries {
		number, found := strings.CutPrefix(e.Name(), stashPrefix)
		if _, err := strconv.ParseUint(number, 10, 64); !found || err != nil {
			return 0, nil
		}
	}
	if len(entries) == 0 {
		return 0, nil
	}
	if err := removeAll(backing, name); err != nil {
		return 0, fmt.Errorf("files that clients had removed: %w", err)
	}
	return len(entries), nil
}
