package fs

import (
	"os"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/mapping"
)

// begin begins a change of names; the function that it returns ends it.
func (h *history) begin() (end func()) {
	if h == nil {
		return func() {}
	}
	h.names.Lock()
	return h.names.Unlock
}

// made notes that a client has made the entry at p, in the directory with the given
// number, or linked an inode to it.
func (h *history) made(kind crash.Kind, p place, dir fuse.NodeID) error {
	if h == nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	parent := h.s.nodes.get(dir)
	if parent == nil {
		return syscall.ESTALE
	}
	n := h.s.nodes.look(&st, link{dir, p.name})
	op := &crash.Op{
		Kind: kind, Inode: inodeOf(n), IsDir: n.kind == unix.S_IFDIR, Entry: crash.Entry{Dir: inodeOf(parent), Name: p.name},
		Path: h.s.pathIn(dir, p.name), DirPath: h.s.pathNow(dir),
	}
	if h.introduced != nil && kind != crash.Link {
		made, err := madeOf(p, &st)
		if err != nil {
			return err
		}
		op.Made = made
	}
	h.add(op, n, parent)
	h.s.forget(n.id, 1)
	return nil
}

// remove removes the name at p, in the directory with the given number, and keeps what it
// led to until the removal is durable.
func (h *history) remove(p place, r *fuse.RemoveRequest) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("fstatat", err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	parent := h.s.nodes.get(r.Node)
	switch {
	case parent == nil:
		return syscall.ESTALE
	case r.Dir && !isDir:
		return syscall.ENOTDIR
	case !r.Dir && isDir:
		return syscall.EISDIR
	}
	if isDir {
		if err := isEmpty(p); err != nil {
			return err
		}
	}
	l := link{r.Node, r.Name}
	n := h.s.nodes.look(&st, l)
	defer h.s.forget(n.id, 1)
	kind := crash.Unlink
	if isDir {
		kind = crash.Rmdir
	}
	op := &crash.Op{
		Kind: kind, Inode: inodeOf(n), IsDir: isDir, Entry: crash.Entry{Dir: inodeOf(parent), Name: r.Name},
		Path: h.s.pathIn(r.Node, r.Name), DirPath: h.s.pathNow(r.Node),
	}
	if err := h.stash.take(n, p, l); err != nil {
		return err
	}
	h.add(op, n, parent)
	return nil
}

// isEmpty returns ENOTEMPTY if the directory at p has entries.
func isEmpty(p place) error {
	fd, err := unix.Openat(p.dir.fd, p.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	defer unix.Close(fd)
	buf := direntsBuffers.Get().(*direntsBuffer)
	defer direntsBuffers.Put(buf)
	for {
		n, err := unix.Getdents(fd, buf[:])
		if err != nil {
			return os.NewSyscallError("getdents64", err)
		}
		if n == 0 {
			return nil
		}
		if _, _, names := unix.ParseDirent(buf[:n], 1, nil); len(names) > 0 {
			return syscall.ENOTEMPTY // it leaves out . and ..
		}
	}
}

// rename moves the name at from to the one at to, and keeps what it replaces until that is
// durable. moved is what stat(2) says of it.
func (h *history) rename(from, to place, r *fuse.RenameRequest, moved *unix.Stat_t) error {
	parent, toParent := h.s.nodes.get(r.Node), h.s.nodes.get(r.NewDir)
	if parent == nil || toParent == nil {
		return syscall.ESTALE
	}
	var st unix.Stat_t
	replaces := unix.Fstatat(to.dir.fd, to.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	isDir := moved.Mode&unix.S_IFMT == unix.S_IFDIR
	toDir := replaces && st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case replaces && mapping.IDOf(moved) == mapping.IDOf(&st):
		return nil // two names of one inode: rename(2) does nothing
	case replaces && toDir && !isDir:
		return syscall.EISDIR
	case replaces && isDir && !toDir:
		return syscall.ENOTDIR
	case toDir:
		if err := isEmpty(to); err != nil {
			return err
		}
	}
	old, l := link{r.Node, r.OldName}, link{r.NewDir, r.NewName}
	n := h.s.nodes.look(moved, old)
	defer h.s.forget(n.id, 1)
	op := &crash.Op{
		Kind: crash.Rename, Inode: inodeOf(n), IsDir: isDir,
		Entry: crash.Entry{Dir: inodeOf(parent), Name: r.OldName}, To: crash.Entry{Dir: inodeOf(toParent), Name: r.NewName},
		Path: h.s.pathIn(r.Node, r.OldName), DirPath: h.s.pathNow(r.Node),
		ToPath: h.s.pathIn(r.NewDir, r.NewName), ToDirPath: h.s.pathNow(r.NewDir),
	}
	if isDir && r.Node != r.NewDir {
		for at := toParent; at != nil; at = h.s.Parent(at) {
			op.Above = append(op.Above, inodeOf(at))
		}
	}
	var replaced *Node
	if replaces {
		replaced = h.s.nodes.look(&st, l)
		defer h.s.forget(replaced.id, 1)
		op.Replaced, op.ReplacedDir = inodeOf(replaced), toDir
	}
	if err := h.stash.replace(from, to, replaced, l); err != nil {
		return err
	}
	n.dropLink(old)
	n.addLink(l)
	h.s.renamed(n)
	h.add(op, n, replaced, parent, toParent)
	return nil
}

// changeMode runs a change of an inode's owner or mode and notes it in the log.
func (h *history) changeMode(n *Node, change func() error) error {
	if h == nil || n.isRemoved() {
		return change()
	}
	h.names.Lock()
	defer h.names.Unlock()
	var before, after unix.Stat_t
	if err := h.s.stat(n, &before); err != nil {
		return err
	}
	err := change()
	if statErr := h.s.stat(n, &after); statErr != nil {
		return err
	}
	op := &crash.Op{Inode: inodeOf(n), IsDir: n.kind == unix.S_IFDIR, Attr: crash.AttrMode, Path: h.s.pathNow(n.id)}
	op.Old, op.New = modeValue(&before), modeValue(&after)
	switch {
	case before.Uid != after.Uid || before.Gid != after.Gid:
		op.Kind = crash.Chown
	case before.Mode != after.Mode:
		op.Kind = crash.Chmod
	default:
		return err
	}
	h.add(op, n)
	return err
}

// modeValue is the value of the attribute that has a file's mode.
func modeValue(st *unix.Stat_t) []byte { return crash.ModeValue(st.Mode, st.Uid, st.Gid) }

// fromModeValue puts the value into what stat(2) says.
func fromModeValue(value []byte, st *unix.Stat_t) { st.Mode, st.Uid, st.Gid = crash.ParseMode(value) }

// changeXattr runs a change of one of an inode's extended attributes and notes it in the
// log.
func (h *history) changeXattr(n *Node, name string, change func() error) error {
	if h == nil || n.isRemoved() {
		return change()
	}
	h.names.Lock()
	defer h.names.Unlock()
	op := &crash.Op{
		Kind: crash.Setxattr, Inode: inodeOf(n), IsDir: n.kind == unix.S_IFDIR, Attr: crash.AttrXattr + name, Path: h.s.pathNow(n.id),
	}
	op.Old = h.s.xattrNow(n, name)
	if err := change(); err != nil {
		return err
	}
	if op.New = h.s.xattrNow(n, name); op.New == nil {
		op.Kind = crash.Removexattr
	}
	h.add(op, n)
	return nil
}

// xattrNow returns an extended attribute of an inode, nil if it has none of that name.
func (s *Session) xattrNow(n *Node, name string) (value []byte) {
	buf := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(buf)
	_ = s.withXattrs(n, func(path string, follow bool) error {
		length, err := getXattr(path, follow, name, *buf)
		if err == nil {
			value = append([]byte{}, (*buf)[:length]...)
		}
		return err
	})
	return value
}
