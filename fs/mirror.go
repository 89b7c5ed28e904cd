package fs

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
)

// What follows is what a subtree can ask of the mirror.

// reserves reports whether a name in the root is the subtree's.
func (s *Session) reserves(name string) bool {
	return s.subtree != nil && name != "" && name == s.subtree.Name()
}

// Owner returns the user and group of the daemon.
func (s *Session) Owner() (uid, gid uint32) { return s.uid, s.gid }

// Options returns how the session was mounted. Backing and Mountpoint are absolute.
func (s *Session) Options() *Options { return &s.opts }

// Log returns where the session logs.
func (s *Session) Log() *slog.Logger { return s.log }

// Conn returns the connection to the kernel.
func (s *Session) Conn() *wire.Conn { return s.conn }

// Files returns the engine's table of open files.
func (s *Session) Files() *mapping.Table { return s.files }

// Done returns a channel that is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// AddHandle stores a handle that a client has opened and returns its number. Who has
// his share of handles already gets ENFILE; then, and when it is released, nobody but
// the caller closes it.
func (s *Session) AddHandle(user uint32, h SubtreeHandle) (fuse.HandleID, error) {
	if err := s.admit(user); err != nil {
		return 0, err
	}
	return s.handles.add(&handle{sub: h, user: user}), nil
}

// GetHandle returns the subtree's handle of the given number, or nil.
func (s *Session) GetHandle(id fuse.HandleID) SubtreeHandle {
	h := s.handles.get(id)
	if h == nil {
		return nil
	}
	return h.sub
}

// ReleaseHandle closes the handle with the given number: one of AddHandle's or
// OpenAsDirs's.
func (s *Session) ReleaseHandle(id fuse.HandleID) { s.closeHandle(id).close() }

// OpenAsDirs opens a directory of the mirror for the client that sent a request.
// [Session.ReadDir] of the handle shows its directories and regular files, both as
// directories.
func (s *Session) OpenAsDirs(n *Node, client *fuse.Header) (wire.OpenOut, error) {
	const quiet, asDirs = true, true
	return s.openDir(n, client, quiet, asDirs)
}

// Root returns the node of the mount's root.
func (s *Session) Root() *Node { return s.nodes.get(fuse.RootID) }

// Lookup returns what a name in a directory of the mirror is, and counts a lookup, which
// [Session.Forget] takes back. st gets what lstat(2) says.
func (s *Session) Lookup(dir *Node, name string, st *unix.Stat_t) (*Node, error) {
	p, err := s.entry(dir.id, name)
	if err != nil {
		return nil, err
	}
	defer s.leave(p)
	if err := unix.Fstatat(p.dir.fd, p.name, st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return s.nodes.look(st, link{dir.id, name}), nil
}

// Hold counts one more lookup of a node that is known.
func (s *Session) Hold(n *Node) { s.nodes.hold(n) }

// Forget takes one lookup of a node back.
func (s *Session) Forget(n *Node) { s.forget(n.id, 1) }

// Find returns the node of an inode, or nil if the kernel does not know it.
func (s *Session) Find(id mapping.ID) *Node { return s.nodes.find(id) }

// Nodes returns how many inodes the kernel knows.
func (s *Session) Nodes() int { return s.nodes.len() }

// ID returns the identity of the node's inode.
func (n *Node) ID() mapping.ID { return n.key }

// IsRegular reports whether n is a regular file, IsDir whether it is a directory.
func (n *Node) IsRegular() bool { return n.kind == modeRegular }

func (n *Node) IsDir() bool { return n.kind == unix.S_IFDIR }

// Inode returns the inode number that the mount shows.
func (s *Session) Inode(id mapping.ID) uint64 { return s.devices.inode(id) }

// Stat is stat(2) of a node in the mount, also of one that is open but has no name any
// more.
func (s *Session) Stat(n *Node, st *unix.Stat_t) error { return s.stat(n, st) }

// StatBacking is stat(2) of the node's inode in the backing directory.
func (s *Session) StatBacking(n *Node, st *unix.Stat_t) error {
	p, err := s.locate(n, st)
	if err == nil {
		s.leave(p)
		return nil
	}
	if n.withLast(func(fd int) error { return unix.Fstat(fd, st) }) == nil {
		return nil // it has no name any more, but somebody has it open
	}
	return err
}

// Access is access(2) of a node with the daemon's rights.
func (s *Session) Access(n *Node, mask uint32) error {
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err != nil {
		return err
	}
	defer s.leave(p)
	return unix.Faccessat(p.dir.fd, p.name, mask, unix.AT_EACCESS)
}

// Open returns the open file of a node that is a regular file, with a reference.
func (s *Session) Open(n *Node) (*mapping.File, error) { return s.acquire(n, accessRead) }

// WithBacking calls fn with a descriptor of a regular file, without mapping the
// file or making it known to the engine.
func (s *Session) WithBacking(n *Node, fn func(fd int) error) error {
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		if f.Readable() {
			return f.WithQuietDescriptor(fn)
		}
	}
	var st unix.Stat_t
	fd, err := s.openNode(n, &st)
	if err != nil {
		if fd, lastErr := n.copyLast(); lastErr == nil {
			defer unix.Close(fd)
			return withReadable(fd, fn)
		}
		return err
	}
	defer unix.Close(fd)
	return withReadable(fd, fn)
}

// withReadable calls fn with a descriptor to read from what an O_PATH descriptor leads to.
func withReadable(fd int, fn func(fd int) error) error {
	readable, err := unix.Open(procPath(fd), unix.O_RDONLY|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err == syscall.EPERM {
		readable, err = unix.Open(procPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(readable)
	return fn(readable)
}

// Reopen opens a file once more, by its descriptor, with the access mode of open(2).
func Reopen(f *mapping.File, access int) (fd int, err error) {
	err = f.WithDescriptor(func(old int) error {
		fd, err = unix.Open(procPath(old), access|unix.O_CLOEXEC, 0)
		return os.NewSyscallError("open", err)
	})
	return fd, err
}

// Changed has the kernel drop what it has cached of a node, whose bytes or size were
// changed without a request that would have told it.
func (s *Session) Changed(n *Node) {
	n.changed()
	s.conn.Invalidate(n.id)
}

// Parent returns the directory that n was seen in last; nil if it has no name any more,
// or is the root.
func (s *Session) Parent(n *Node) *Node {
	l, ok := n.linkAt(0)
	if !ok || n.id == fuse.RootID || s.isStashed(n) {
		return nil
	}
	return s.nodes.get(l.dir)
}

// Path returns the newest name of a node from the mount's root, without a leading
// slash; "" if it has none any more.
func (s *Session) Path(n *Node) string {
	var parts []string
	for n != nil && n.id != fuse.RootID {
		l, ok := n.linkAt(0)
		if !ok || len(parts) > MaxDepth || s.isStashed(n) {
			return ""
		}
		parts = append(parts, l.name)
		n = s.nodes.get(l.dir)
	}
	if n == nil {
		return ""
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}
