package fs

import (
	"os"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// Extended attributes are the backing inode's. They are reached through the
// name of a descriptor under /proc followed by the entry's name: a path of two
// steps, however deep the file is, that does not follow a symbolic link at its
// end.

// xattrPath returns a path that leads to n without following it. done ends its
// use.
func (s *Session) xattrPath(n *Node) (path string, done func(), err error) {
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err == nil {
		return procPath(p.dir.fd) + "/" + p.name, func() { s.leave(p) }, nil
	}
	return "", nil, err
}

// withXattrs calls fn with what reaches the extended attributes of n: by name,
// or by descriptor for a file that is open without a name.
func (s *Session) withXattrs(n *Node, fn func(path string, follow bool) error) error {
	path, done, err := s.xattrPath(n)
	if err == nil {
		defer done()
		return fn(path, false)
	}
	if f := n.openFile(); f != nil {
		return f.WithDescriptor(func(fd int) error { return fn(procPath(fd), true) })
	}
	return err
}

// getXattr, setXattr and removeXattr are the system calls on what withXattrs gives.
func getXattr(path string, follow bool, name string, buf []byte) (int, error) {
	get := unix.Lgetxattr
	if follow {
		get = unix.Getxattr
	}
	n, err := get(path, name, buf)
	return n, os.NewSyscallError("getxattr", err)
}

func setXattr(path string, follow bool, name string, value []byte, flags int) error {
	set := unix.Lsetxattr
	if follow {
		set = unix.Setxattr
	}
	return os.NewSyscallError("setxattr", set(path, name, value, flags))
}

func removeXattr(path string, follow bool, name string) error {
	remove := unix.Lremovexattr
	if follow {
		remove = unix.Removexattr
	}
	return os.NewSyscallError("removexattr", remove(path, name))
}

// subtreeXattr answers with one of the attributes that the subtree has for a node of
// the mirror.
func (s *Session) subtreeXattr(w *wire.Worker, r *fuse.GetxattrRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	value, err := s.subtree.Xattr(n, r.Name)
	if err != nil {
		return err
	}
	return SendXattr(w, r.Size, value)
}

// SendXattr answers with the value of an extended attribute, or, for size 0, with the
// size it would take.
func SendXattr(w *wire.Worker, size uint32, value string) error {
	if size == 0 {
		out := wire.XattrOut{Size: uint32(len(value))}
		return w.Send(wire.BytesOf(&out))
	}
	if int(size) < len(value) {
		return syscall.ERANGE
	}
	return w.SendBytes([]byte(value))
}

// ownsXattr reports whether the subtree answers for the extended attribute. Such never
// reach the backing inode.
func (s *Session) ownsXattr(name string) bool {
	return s.subtree != nil && strings.HasPrefix(name, s.subtree.XattrPrefix())
}

func (s *Session) getxattr(w *wire.Worker, r *fuse.GetxattrRequest) error {
	if s.ownsXattr(r.Name) {
		return s.subtreeXattr(w, r)
	}
	return s.xattrValue(w, r.Node, r.Size, func(path string, follow bool, buf []byte) (int, error) {
		return getXattr(path, follow, r.Name, buf)
	})
}

func (s *Session) listxattr(w *wire.Worker, r *fuse.ListxattrRequest) error {
	n := s.nodes.get(r.Node)
	own := ""
	if s.subtree != nil && n != nil {
		own = s.subtree.XattrNames(n)
	}
	return s.xattrValue(w, r.Node, r.Size, func(path string, follow bool, buf []byte) (int, error) {
		list := unix.Llistxattr
		if follow {
			list = unix.Listxattr
		}
		n, err := list(path, buf)
		if err != nil || own == "" {
			return n, os.NewSyscallError("listxattr", err)
		}
		switch {
		case len(buf) == 0:
		case n+len(own) > len(buf):
			return 0, syscall.ERANGE
		default:
			copy(buf[n:], own)
		}
		return n + len(own), nil
	})
}

// xattrValue answers with what get puts into a buffer of the size the client
// has, or, for size 0, with the size it would take. A buffer that is too small
// is ERANGE from the backing filesystem.
func (s *Session) xattrValue(w *wire.Worker, id fuse.NodeID, size uint32, get func(path string, follow bool, buf []byte) (int, error)) error {
	n := s.nodes.get(id)
	if n == nil {
		return syscall.ESTALE
	}
	// The largest value and the largest list are 64 KiB each (xattr(7)).
	buf := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(buf)
	b := (*buf)[:min(int(size), cap(*buf))]
	var length int
	err := s.withXattrs(n, func(path string, follow bool) (err error) {
		length, err = get(path, follow, b)
		return err
	})
	if err != nil {
		return err
	}
	if size == 0 {
		out := wire.XattrOut{Size: uint32(length)}
		return w.Send(wire.BytesOf(&out))
	}
	return w.SendBytes(b[:length])
}

func (s *Session) setxattr(w *wire.Worker, r *fuse.SetxattrRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if s.ownsXattr(r.Name) {
		return syscall.EPERM
	}
	if s.opts.AllowOther && !s.conn.Protocol.ACLs() && strings.HasPrefix(r.Name, aclPrefix) {
		// The kernel checks the mode alone. With an access control list the
		// mode's group bits are the list's mask: obeyed as mode they would give
		// the group what the list gives to one user.
		return syscall.EOPNOTSUPP
	}
	err := s.history.changeXattr(n, r.Name, func() error {
		return s.withXattrs(n, func(path string, follow bool) error {
			return setXattr(path, follow, r.Name, r.Xattr, int(r.Flags))
		})
	})
	if err != nil {
		return err
	}
	n.knows(noCapabilities|noSetID, false)
	if r.SetxattrFlags&setxattrKillSGID != 0 {
		if err := s.dropSetGID(n); err != nil {
			return err
		}
	}
	if strings.HasPrefix(r.Name, aclPrefix) {
		s.conn.InvalidateAttributes(n.id) // an access control list sets the mode
	}
	return w.OK()
}

func (s *Session) removexattr(w *wire.Worker, r *fuse.RemovexattrRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if s.ownsXattr(r.Name) {
		return syscall.EPERM
	}
	err := s.history.changeXattr(n, r.Name, func() error {
		return s.withXattrs(n, func(path string, follow bool) error {
			return removeXattr(path, follow, r.Name)
		})
	})
	if err != nil {
		return err
	}
	if strings.HasPrefix(r.Name, aclPrefix) {
		s.conn.InvalidateAttributes(n.id)
	}
	return w.OK()
}

// setxattrKillSGID is FUSE_SETXATTR_ACL_KILL_SGID: the client may set the list, and not
// keep the set-group-id bit.
const setxattrKillSGID = 1

// dropSetGID takes the set-group-id bit away.
func (s *Session) dropSetGID(n *Node) error {
	var st unix.Stat_t
	return s.history.changeMode(n, func() error {
		return s.withInode(n, &st, func(path string) error {
			return os.NewSyscallError("chmod", unix.Chmod(path, st.Mode&permissionBits&^unix.S_ISGID))
		})
	})
}

// aclDefault is the list that what is made in a directory inherits (acl(5)).
const aclDefault = aclPrefix + "default"

// aclPrefix begins the names of access control lists (acl(5)).
const aclPrefix = "system.posix_acl_"
