package fs

import (
	"os"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
)

// newMode returns the bits of chmod(2) that something new gets in a directory. Where the
// kernel leaves the client's umask to us it is applied here, unless the directory has a
// default access control list, which then stands in its place (umask(2)).
func (s *Session) newMode(dirfd int, mode, umask os.FileMode) uint32 {
	bits := unixMode(mode) & permissionBits
	if umask == 0 || !s.conn.Protocol.LeavesUmask() {
		return bits
	}
	if n, err := unix.Getxattr(procPath(dirfd), aclDefault, nil); err == nil && n > 0 {
		return bits
	}
	return bits &^ uint32(umask)
}

// create makes a file and opens it. A name that exists by now is ESTALE: the
// kernel checked no permission for opening it, and looks it up again.
func (s *Session) create(w *wire.Worker, r *fuse.CreateRequest) error {
	p, err := s.newEntry(r.Node, r.Name)
	if err != nil {
		return err
	}
	defer s.leave(p)
	if err := s.admit(r.Uid); err != nil {
		return err
	}
	out, err := s.createFile(w, p, r)
	if err != nil {
		s.dismiss(r.Uid)
		return err
	}
	return w.Send(wire.BytesOf(&out))
}

// createFile makes the file that a create asks for at p, and its handle, which is
// charged for already.
func (s *Session) createFile(w *wire.Worker, p place, r *fuse.CreateRequest) (wire.CreateOut, error) {
	var out wire.CreateOut
	defer s.history.begin()()
	fd := -1
	mode := s.newMode(p.dir.fd, r.Mode, r.Umask)
	err := s.as(w, &r.Header, func() (err error) {
		const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = unix.Openat(p.dir.fd, r.Name, flags, mode)
		return err
	})
	if err == syscall.EEXIST && r.Flags&fuse.OpenExclusive == 0 {
		return out, syscall.ESTALE
	}
	if err != nil {
		return out, os.NewSyscallError("openat", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return out, os.NewSyscallError("fstat", err)
	}
	f, err := s.files.Open(fd, &st, true, true)
	if err != nil {
		return out, err
	}
	if err := s.history.made(crash.Create, p, r.Node); err != nil {
		f.Release(false)
		return out, err
	}
	if st.Dev != s.devices.root {
		s.devices.written(st.Dev, p.dir.fd)
	}
	n := s.fillEntry(&out.Entry, &st, p, r.Node)
	if out.Open, err = s.newHandle(n, f, r.Flags, &r.Header, &st); err != nil {
		f.Release(false)
		s.forget(n.id, 1)
	}
	wire.SetTimeout(&out.Entry.AttrValid, &out.Entry.AttrValidNsec, s.attrTimeout(n))
	return out, err
}

// tmpfile makes a file without a name in a directory and opens it (open(2): O_TMPFILE). A
// history does not know such files.
func (s *Session) tmpfile(w *wire.Worker, r *wire.TmpfileRequest) error {
	dir := s.nodes.get(r.Node)
	switch {
	case dir == nil:
		return syscall.ESTALE
	case s.history != nil:
		return syscall.EOPNOTSUPP
	}
	d, err := s.dir(dir)
	if err != nil {
		return err
	}
	defer s.dirs.put(d)
	if err := s.admit(r.Uid); err != nil {
		return err
	}
	out, err := s.openTmpfile(w, d, &r.CreateRequest)
	if err != nil {
		s.dismiss(r.Uid)
		return err
	}
	return w.Send(wire.BytesOf(&out))
}

// openTmpfile makes the file that tmpfile was asked for, and its handle.
func (s *Session) openTmpfile(w *wire.Worker, d *dirFD, r *fuse.CreateRequest) (wire.CreateOut, error) {
	var out wire.CreateOut
	fd := -1
	mode := s.newMode(d.fd, r.Mode, r.Umask)
	err := s.as(w, &r.Header, func() (err error) {
		flags := unix.O_RDWR | unix.O_TMPFILE | unix.O_CLOEXEC | int(r.Flags)&unix.O_EXCL
		fd, err = unix.Openat(d.fd, ".", flags, mode)
		return err
	})
	if err != nil {
		return out, os.NewSyscallError("openat", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return out, os.NewSyscallError("fstat", err)
	}
	f, err := s.files.Open(fd, &st, true, true)
	if err != nil {
		return out, err
	}
	n := s.nodes.lookNameless(&st)
	s.entryOf(&out.Entry, &st, n)
	// Its link count of 0 tells newHandle to look again, which is as good.
	if out.Open, err = s.newHandle(n, f, r.Flags, &r.Header, &st); err != nil {
		f.Release(false)
		s.forget(n.id, 1)
	}
	wire.SetTimeout(&out.Entry.AttrValid, &out.Entry.AttrValidNsec, s.attrTimeout(n))
	return out, err
}
