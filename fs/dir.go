package fs

import (
	"os"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/sys"
)

// lookup answers what a name in a directory is. A name that is not there is an
// answer too, which the kernel keeps for a while.
func (s *Session) lookup(w *wire.Worker, r *fuse.LookupRequest) error {
	if r.Node == fuse.RootID && s.reserves(r.Name) {
		return s.subtree.Lookup(w)
	}
	p, err := s.entry(r.Node, r.Name)
	if err != nil {
		return err
	}
	defer s.leave(p)
	var st unix.Stat_t
	switch err := sys.Lstatat(p.dir.fd, r.Name, &st); err {
	case nil:
		return s.sendEntry(w, &st, p, r.Node)
	case syscall.ENOENT:
		var out wire.EntryOut
		wire.SetTimeout(&out.EntryValid, &out.EntryValidNsec, s.opts.EntryTimeout)
		return w.Send(wire.BytesOf(&out))
	default:
		return os.NewSyscallError("fstatat", err)
	}
}

// sendEntry answers with the node that stat(2) found at p, in the directory with the
// given number.
func (s *Session) sendEntry(w *wire.Worker, st *unix.Stat_t, p place, dir fuse.NodeID) error {
	var out wire.EntryOut
	s.fillEntry(&out, st, p, dir)
	return w.Send(wire.BytesOf(&out))
}

// fillEntry makes the entry of the inode that stat(2) found at p, in the directory with
// the given number, and counts the lookup.
func (s *Session) fillEntry(out *wire.EntryOut, st *unix.Stat_t, p place, dir fuse.NodeID) *Node {
	n := s.nodes.look(st, link{dir, p.name})
	if f := n.openFile(); f != nil {
		// The engine knows of stores that have not reached the time stamps.
		var now unix.Stat_t
		if err := f.Stat(&now); err == nil {
			*st = now
		}
	} else {
		s.files.StatHeld(st, p.dir.fd, p.name)
	}
	s.entryOf(out, st, n)
	return n
}

// entryOf makes the entry of a node, of which stat(2) says st.
func (s *Session) entryOf(out *wire.EntryOut, st *unix.Stat_t, n *Node) {
	s.showLinks(n, st)
	out.Nodeid = uint64(n.id)
	wire.SetTimeout(&out.EntryValid, &out.EntryValidNsec, s.opts.EntryTimeout)
	wire.SetTimeout(&out.AttrValid, &out.AttrValidNsec, s.attrTimeout(n))
	out.Attr.Set(st, s.devices.inode(n.key))
}

// sendNew answers with what was just made at p, in the directory with the given number.
func (s *Session) sendNew(w *wire.Worker, p place, dir fuse.NodeID) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	return s.sendEntry(w, &st, p, dir)
}

// make runs create, which makes the entry name in the directory dir in the
// client's name, and answers with it.
func (s *Session) make(w *wire.Worker, h *fuse.Header, kind crash.Kind, name string, create func(dirfd int, name string) error) error {
	p, err := s.newEntry(h.Node, name)
	if err != nil {
		return err
	}
	defer s.leave(p)
	defer s.history.begin()()
	if err := s.as(w, h, func() error { return create(p.dir.fd, p.name) }); err != nil {
		return err
	}
	if err := s.history.made(kind, p, h.Node); err != nil {
		return err
	}
	return s.sendNew(w, p, h.Node)
}

func (s *Session) mkdir(w *wire.Worker, r *fuse.MkdirRequest) error {
	return s.make(w, &r.Header, crash.Mkdir, r.Name, func(dirfd int, name string) error {
		mode := s.newMode(dirfd, r.Mode, r.Umask)
		return os.NewSyscallError("mkdirat", unix.Mkdirat(dirfd, name, mode))
	})
}

func (s *Session) mknod(w *wire.Worker, r *fuse.MknodRequest) error {
	return s.make(w, &r.Header, crash.Mknod, r.Name, func(dirfd int, name string) error {
		mode := s.newMode(dirfd, r.Mode, r.Umask)
		return os.NewSyscallError("mknodat", unix.Mknodat(dirfd, name, unixMode(r.Mode)&unix.S_IFMT|mode, int(r.Rdev)))
	})
}

func (s *Session) symlink(w *wire.Worker, r *fuse.SymlinkRequest) error {
	return s.make(w, &r.Header, crash.Symlink, r.NewName, func(dirfd int, name string) error {
		return os.NewSyscallError("symlinkat", unix.Symlinkat(r.Target, dirfd, name))
	})
}

// link gives a node another name.
func (s *Session) link(w *wire.Worker, r *fuse.LinkRequest) error {
	if r.OldNode&SubtreeNode != 0 {
		return syscall.EPERM
	}
	n := s.nodes.get(r.OldNode)
	if n == nil {
		return syscall.ESTALE
	}
	p, err := s.newEntry(r.Node, r.NewName)
	if err != nil {
		return err
	}
	defer s.leave(p)
	defer s.history.begin()()
	// By a descriptor, so that it is this very inode, whatever its names are by now; one
	// that was made without a name can get one too.
	var st unix.Stat_t
	err = s.withInode(n, &st, func(path string) error {
		return os.NewSyscallError("linkat", unix.Linkat(unix.AT_FDCWD, path, p.dir.fd, p.name, unix.AT_SYMLINK_FOLLOW))
	})
	if err != nil {
		return err
	}
	if err := s.history.made(crash.Link, p, r.Node); err != nil {
		return err
	}
	return s.sendNew(w, p, r.Node)
}

// remove removes a name.
func (s *Session) remove(w *wire.Worker, r *fuse.RemoveRequest) error {
	p, err := s.entry(r.Node, r.Name)
	if err != nil {
		return err
	}
	defer s.leave(p)
	if s.history != nil {
		defer s.history.begin()()
		if err := s.history.remove(p, r); err != nil {
			return err
		}
		return w.OK()
	}
	v, err := s.victim(p, link{r.Node, r.Name})
	if err != nil {
		return err
	}
	flags := 0
	if r.Dir {
		flags = unix.AT_REMOVEDIR
	}
	if err := unix.Unlinkat(p.dir.fd, r.Name, flags); err != nil {
		v.spared()
		return os.NewSyscallError("unlinkat", err)
	}
	s.removed(v)
	return w.OK()
}

// victim is an inode that is about to lose a name.
type victim struct {
	fd   int // O_PATH
	st   unix.Stat_t
	link link
}

// victim opens what is at p before its name is removed.
func (s *Session) victim(p place, l link) (victim, error) {
	v := victim{link: l}
	var err error
	if v.fd, err = unix.Openat(p.dir.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
		return v, os.NewSyscallError("openat", err)
	}
	if err := unix.Fstat(v.fd, &v.st); err != nil {
		unix.Close(v.fd)
		return v, os.NewSyscallError("fstat", err)
	}
	return v, nil
}

// spared ends a removal that failed.
func (v *victim) spared() { unix.Close(v.fd) }

// removed notes that an inode has lost a name.
func (s *Session) removed(v victim) {
	key := mapping.IDOf(&v.st)
	if n := s.nodes.find(key); n != nil {
		n.dropLink(v.link)
	}
	if v.st.Mode&unix.S_IFMT != unix.S_IFDIR && v.st.Nlink > 1 {
		unix.Close(v.fd)
		return
	}
	s.nodes.detach(key, v.fd)
	s.files.Forget(key, true) // its space is free as soon as nobody has it open
}

// locateID is locate of the node with the given number.
func (s *Session) locateID(id fuse.NodeID, st *unix.Stat_t) (*Node, place, error) {
	n := s.nodes.get(id)
	if n == nil {
		return nil, place{}, syscall.ESTALE
	}
	p, err := s.locate(n, st)
	return n, p, err
}

// readlink answers where a symbolic link points. Following it is the client's.
func (s *Session) readlink(w *wire.Worker, r *fuse.ReadlinkRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	target, err := s.Readlink(n)
	if err != nil {
		return err
	}
	return w.SendBytes(target)
}

// statfs answers for the filesystem that a node is on.
func (s *Session) statfs(w *wire.Worker, r *fuse.StatfsRequest) error {
	var st unix.Stat_t
	n, p, err := s.locateID(r.Node, &st)
	if err != nil {
		return err
	}
	defer s.leave(p)
	fd := p.dir.fd
	if n.kind == unix.S_IFDIR {
		d, err := s.dir(n)
		if err != nil {
			return err
		}
		defer s.dirs.put(d)
		fd = d.fd
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return os.NewSyscallError("fstatfs", err)
	}
	out := wire.StatfsOut{
		Blocks: fs.Blocks, Bfree: fs.Bfree, Bavail: fs.Bavail, Files: fs.Files, Ffree: fs.Ffree,
		Bsize: uint32(fs.Bsize), Namelen: uint32(fs.Namelen), Frsize: uint32(fs.Frsize),
	}
	return w.Send(wire.BytesOf(&out))
}
