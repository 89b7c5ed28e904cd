package fs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// modeRegular is the kind of a regular file.
const modeRegular = unix.S_IFREG

// unixMode returns the bits of mode(7) for the library's mode.
func unixMode(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	switch mode.Type() {
	case fs.ModeDir:
		bits |= unix.S_IFDIR
	case fs.ModeSymlink:
		bits |= unix.S_IFLNK
	case fs.ModeNamedPipe:
		bits |= unix.S_IFIFO
	case fs.ModeSocket:
		bits |= unix.S_IFSOCK
	case fs.ModeDevice:
		bits |= unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		bits |= unix.S_IFCHR
	default:
		bits |= unix.S_IFREG
	}
	if mode&fs.ModeSetuid != 0 {
		bits |= unix.S_ISUID
	}
	if mode&fs.ModeSetgid != 0 {
		bits |= unix.S_ISGID
	}
	if mode&fs.ModeSticky != 0 {
		bits |= unix.S_ISVTX
	}
	return bits
}

// permissionBits are what chmod(2) can set.
const permissionBits = 0o7777

func (s *Session) getattr(w *wire.Worker, r *fuse.GetattrRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	var st unix.Stat_t
	if err := s.stat(n, &st); err != nil {
		return err
	}
	return s.sendAttr(w, n, &st)
}

// sendAttr answers with a node's attributes.
func (s *Session) sendAttr(w *wire.Worker, n *Node, st *unix.Stat_t) error {
	var out wire.AttrOut
	wire.SetTimeout(&out.AttrValid, &out.AttrValidNsec, s.attrTimeout(n))
	out.Attr.Set(st, s.devices.inode(n.key))
	return w.Send(wire.BytesOf(&out))
}

// stat is stat(2) of a node, also of one that is open but has no name any more.
func (s *Session) stat(n *Node, st *unix.Stat_t) error {
	err := s.statInode(n, st)
	if err == nil {
		s.showLinks(n, st)
	}
	return err
}

// statInode is stat with the names that clients do not see.
func (s *Session) statInode(n *Node, st *unix.Stat_t) error {
	if f := n.openFile(); f != nil {
		if err := f.Stat(st); !errors.Is(err, syscall.EBADF) {
			return err
		}
		// Closed just now.
	}
	if p, err := s.locate(n, st); err == nil {
		s.files.StatHeld(st, p.dir.fd, p.name)
		s.leave(p)
		return nil
	}
	// Removed, but somebody is in it or on the way to it.
	return n.withLast(func(fd int) error { return os.NewSyscallError("fstat", unix.Fstat(fd, st)) })
}

// setattr changes attributes. Each is changed by its own system call, in the
// order in which one does not undo another: a change of owner clears set-id
// bits, a change of size sets the times.
func (s *Session) setattr(w *wire.Worker, r *fuse.SetattrRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if r.Valid.Size() {
		if err := s.truncate(n, r); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	const inode = fuse.SetattrMode | fuse.SetattrUid | fuse.SetattrGid |
		fuse.SetattrAtime | fuse.SetattrMtime | fuse.SetattrAtimeNow | fuse.SetattrMtimeNow
	if r.Valid&inode != 0 {
		if r.Valid.Mode() {
			if err := s.awaitUsers(n, unixMode(r.Mode)); err != nil {
				return err
			}
		}
		n.knows(noCapabilities|noSetID, false)
		set := func() error {
			return s.withInode(n, &st, func(path string) error { return setInode(path, r) })
		}
		var err error
		if s.history != nil && r.Valid&(fuse.SetattrMode|fuse.SetattrUid|fuse.SetattrGid) != 0 {
			err = s.history.changeMode(n, set)
		} else {
			err = set()
		}
		if err != nil && !s.keepsTimes(n, r, err) {
			return err
		}
		if r.Valid.Mode() {
			n.knows(program, unixMode(r.Mode)&0o111 != 0)
		}
		s.inodeSet(n, r.Valid)
	}
	if err := s.stat(n, &st); err != nil {
		return err
	}
	return s.sendAttr(w, n, &st)
}

// keepsTimes puts the times that a request sets into the engine's memory, where they
// cannot be set in the inode, and reports whether it could: of a private file that was
// changed in memory, with -o writeback the kernel sets the time of that.
func (s *Session) keepsTimes(n *Node, r *fuse.SetattrRequest, refused error) bool {
	const others = fuse.SetattrMode | fuse.SetattrUid | fuse.SetattrGid
	errno := wire.ErrnoOf(refused)
	if r.Valid&others != 0 || errno != syscall.EROFS && errno != syscall.EPERM {
		return false
	}
	f := s.files.Find(n.key)
	if f == nil {
		return false
	}
	defer f.Unref()
	return f.KeepTimes(setTime(r.Valid.Atime(), r.Valid.AtimeNow(), r.Atime), setTime(r.Valid.Mtime(), r.Valid.MtimeNow(), r.Mtime))
}

// inodeSet tells the engine that a client has changed a file's inode. Times that were
// set are those of the inode from now on, whatever was stored or read before.
func (s *Session) inodeSet(n *Node, what fuse.SetattrValid) {
	if what.Mtime() || what.MtimeNow() {
		s.files.TimesSet(n.key)
	}
	if f := s.files.Find(n.key); f != nil {
		if what.Atime() || what.AtimeNow() {
			f.ATimeSet()
		}
		f.Changed()
		f.Unref()
	}
}

// withInode calls fn with a path that leads to n and to nothing else, whatever
// happens to its names meanwhile. The path does not follow n if n is a symbolic
// link.
func (s *Session) withInode(n *Node, st *unix.Stat_t, fn func(path string) error) error {
	if f := n.openFile(); f != nil && f.Ref() {
		defer f.Release(true)
		if err := f.Stat(st); err != nil { // puts the time of the last store in place
			return err
		}
		return f.WithDescriptor(func(fd int) error { return fn(procPath(fd)) })
	}
	fd, err := s.openNode(n, st)
	if err != nil {
		return n.withLast(func(fd int) error { return fn(procPath(fd)) })
	}
	defer unix.Close(fd)
	return fn(procPath(fd))
}

// setInode changes owner, mode and times of what path leads to. path is a
// descriptor's name under /proc: it is always followed, and never further.
func setInode(path string, r *fuse.SetattrRequest) error {
	if r.Valid.Uid() || r.Valid.Gid() {
		uid, gid := -1, -1
		if r.Valid.Uid() {
			uid = int(r.Uid)
		}
		if r.Valid.Gid() {
			gid = int(r.Gid)
		}
		if err := unix.Chown(path, uid, gid); err != nil {
			return os.NewSyscallError("chown", err)
		}
	}
	if r.Valid.Mode() {
		if err := unix.Chmod(path, unixMode(r.Mode)&permissionBits); err != nil {
			return os.NewSyscallError("chmod", err)
		}
	}
	times := [2]unix.Timespec{
		setTime(r.Valid.Atime(), r.Valid.AtimeNow(), r.Atime),
		setTime(r.Valid.Mtime(), r.Valid.MtimeNow(), r.Mtime),
	}
	if times[0].Nsec != unix.UTIME_OMIT || times[1].Nsec != unix.UTIME_OMIT {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times[:], 0); err != nil {
			return os.NewSyscallError("utimensat", err)
		}
	}
	return nil
}

// setTime returns the time to give to utimensat(2).
func setTime(valid, now bool, t time.Time) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case valid:
		// Not NsecToTimespec: nanoseconds since 1970 end in 2262, files' times
		// do not.
		return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

// truncate sets the size of a node, open or not.
func (s *Session) truncate(n *Node, r *fuse.SetattrRequest) error {
	if n.kind != modeRegular {
		return syscall.EINVAL
	}
	if r.Size > 1<<63-1 {
		return syscall.EFBIG
	}
	f, err := s.acquire(n, accessWrite)
	if err != nil {
		return err
	}
	defer f.Release(true)
	n.changed()
	err = s.history.changeMode(n, func() error {
		_, err := dropSetID(f, r.Valid.SetattrKillSUIDGID())
		return err
	})
	if err != nil {
		return err
	}
	return s.resize(n, f, int64(r.Size), r.Pid)
}

// resize sets the size of a file for a client.
func (s *Session) resize(n *Node, f *mapping.File, size int64, pid uint32) error {
	return s.history.changeBytes(n, f, crash.Truncate, 0, 0, pid, func() error { return f.Truncate(size) })
}

// dropSetID does what a write by somebody without CAP_FSETID does to a program:
// it loses its set-user-id bit, and its set-group-id bit if its group may run
// it (FUSE_HANDLE_KILLPRIV_V2 in fuse.h). kill is what the kernel asks for. The
// file's capabilities go with every write, by any user. It reports whether
// the mode changed.
func dropSetID(f *mapping.File, kill bool) (changed bool, err error) {
	err = f.WithDescriptor(func(fd int) error {
		// Only where there is something to remove does this cost a change.
		if _, err := unix.Fgetxattr(fd, capabilityXattr, nil); err == nil {
			if err := unix.Fremovexattr(fd, capabilityXattr); err != nil && err != unix.ENODATA {
				return os.NewSyscallError("fremovexattr", err)
			}
		}
		if !kill {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		mode := st.Mode &^ unix.S_ISUID
		if mode&unix.S_IXGRP != 0 {
			mode &^= unix.S_ISGID
		}
		if mode == st.Mode {
			return nil
		}
		changed = true
		return os.NewSyscallError("fchmod", unix.Fchmod(fd, mode&permissionBits))
	})
	return changed, err
}

// capabilityXattr holds a program's capabilities (capabilities(7)).
const capabilityXattr = "security.capability"

// access answers access(2) where the kernel does not check by itself.
func (s *Session) access(w *wire.Worker, r *fuse.AccessRequest) error {
	var st unix.Stat_t
	_, p, err := s.locateID(r.Node, &st)
	if err != nil {
		return err
	}
	defer s.leave(p)
	if err := unix.Faccessat(p.dir.fd, p.name, r.Mask, unix.AT_EACCESS|unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return os.NewSyscallError("faccessat", err)
	}
	return w.OK()
}
