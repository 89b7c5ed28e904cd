package fs

import (
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// Extended attributes are the backing inode's. They are reached through the
// name of a descriptor under /proc followed by the entry's name: a path of two
// steps, however deep the file is, that does not follow a symbolic link at its
// end.

// xattrPath returns a path that leads to n without following it. done ends its
// use.
func (s *Session) xattrPath(n *node) (path string, done func(), err error) {
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err == nil {
		return procPath(p.dir.fd) + "/" + p.name, func() { s.leave(p) }, nil
	}
	return "", nil, err
}

// withXattrs calls fn with what reaches the extended attributes of n: by name,
// or by descriptor for a file that is open without a name.
func (s *Session) withXattrs(n *node, fn func(path string, follow bool) error) error {
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

// ownXattrs begins the names of the attributes that tell of a file's mapping.
// They are the mount's and never reach the backing inode.
const ownXattrs = "user.mapfs."

// The attributes that tell of a file's mapping, and the one that names the
// control tree.
const (
	xattrControl  = ownXattrs + "control"
	xattrDirty    = ownXattrs + "dirty_pages"
	xattrUnsynced = ownXattrs + "unsynced_bytes"
)

// ownXattr answers with one of the mount's own attributes. n is nil in the
// control tree.
func (w *worker) ownXattr(name string, size uint32, n *node) error {
	var value string
	switch {
	case name == xattrControl && w.s.control.name != "":
		value = w.s.control.name
	case name == xattrDirty && n != nil && n.kind == modeRegular:
		var dirty int64
		err := w.s.inspect(n, 0, math.MaxInt64, func(run mapping.PageRun) bool {
			if run.Flags&mapping.PageDirty != 0 {
				dirty += run.End - run.First
			}
			return true
		})
		if err != nil {
			return err
		}
		value = strconv.FormatInt(dirty, 10)
	case name == xattrUnsynced && n != nil && n.kind == modeRegular:
		var st unix.Stat_t
		if err := w.s.stat(n, &st); err != nil {
			return err
		}
		unsynced := int64(0)
		w.s.files.Unsynced(n.key, st.Size, func(g mapping.Range, _ mapping.Cause) bool {
			unsynced += g.Len()
			return true
		})
		value = strconv.FormatInt(unsynced, 10)
	default:
		return syscall.ENODATA
	}
	if size == 0 {
		out := xattrOut{Size: uint32(len(value))}
		return w.send(bytesOf(&out))
	}
	if int(size) < len(value) {
		return syscall.ERANGE
	}
	return w.sendBytes([]byte(value))
}

func (w *worker) getxattr(r *fuse.GetxattrRequest) error {
	if strings.HasPrefix(r.Name, ownXattrs) {
		n := w.s.nodes.get(r.Node)
		if n == nil {
			return syscall.ESTALE
		}
		return w.ownXattr(r.Name, r.Size, n)
	}
	return w.xattrValue(r.Node, r.Size, func(path string, follow bool, buf []byte) (int, error) {
		get := unix.Lgetxattr
		if follow {
			get = unix.Getxattr
		}
		n, err := get(path, r.Name, buf)
		return n, os.NewSyscallError("getxattr", err)
	})
}

func (w *worker) listxattr(r *fuse.ListxattrRequest) error {
	n := w.s.nodes.get(r.Node)
	stats := w.s.opts.XattrStats && n != nil && n.kind == modeRegular
	return w.xattrValue(r.Node, r.Size, func(path string, follow bool, buf []byte) (int, error) {
		list := unix.Llistxattr
		if follow {
			list = unix.Listxattr
		}
		n, err := list(path, buf)
		if err != nil || !stats {
			return n, os.NewSyscallError("listxattr", err)
		}
		const own = xattrDirty + "\x00" + xattrUnsynced + "\x00"
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
func (w *worker) xattrValue(id fuse.NodeID, size uint32, get func(path string, follow bool, buf []byte) (int, error)) error {
	n := w.s.nodes.get(id)
	if n == nil {
		return syscall.ESTALE
	}
	// The largest value and the largest list are 64 KiB each (xattr(7)).
	buf := bounceBuffers.Get().(*[]byte)
	defer bounceBuffers.Put(buf)
	b := (*buf)[:min(int(size), cap(*buf))]
	var length int
	err := w.s.withXattrs(n, func(path string, follow bool) (err error) {
		length, err = get(path, follow, b)
		return err
	})
	if err != nil {
		return err
	}
	if size == 0 {
		out := xattrOut{Size: uint32(length)}
		return w.send(bytesOf(&out))
	}
	return w.sendBytes(b[:length])
}

func (w *worker) setxattr(r *fuse.SetxattrRequest) error {
	n := w.s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if strings.HasPrefix(r.Name, ownXattrs) {
		return syscall.EPERM
	}
	if w.s.opts.AllowOther && strings.HasPrefix(r.Name, aclPrefix) {
		// The kernel checks the mode alone. With an access control list the
		// mode's group bits are the list's mask: obeyed as mode they would give
		// the group what the list gives to one user.
		return syscall.EOPNOTSUPP
	}
	err := w.s.withXattrs(n, func(path string, follow bool) error {
		set := unix.Lsetxattr
		if follow {
			set = unix.Setxattr
		}
		return os.NewSyscallError("setxattr", set(path, r.Name, r.Xattr, int(r.Flags)))
	})
	if err != nil {
		return err
	}
	n.knows(noCapabilities|noSetID, false)
	if strings.HasPrefix(r.Name, aclPrefix) {
		w.s.attributesChanged(n) // an access control list sets the mode
	}
	return w.ok()
}

func (w *worker) removexattr(r *fuse.RemovexattrRequest) error {
	n := w.s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if strings.HasPrefix(r.Name, ownXattrs) {
		return syscall.EPERM
	}
	err := w.s.withXattrs(n, func(path string, follow bool) error {
		remove := unix.Lremovexattr
		if follow {
			remove = unix.Removexattr
		}
		return os.NewSyscallError("removexattr", remove(path, r.Name))
	})
	if err != nil {
		return err
	}
	if strings.HasPrefix(r.Name, aclPrefix) {
		w.s.attributesChanged(n)
	}
	return w.ok()
}

// aclPrefix begins the names of access control lists (acl(5)).
const aclPrefix = "system.posix_acl_"
