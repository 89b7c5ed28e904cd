package fs

import (
	"os"
	"syscall"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// The calls of ioctl(2) that are passed on: those of lsattr(1) and chattr(1). The kernel
// sends them with the sizes of their structures in linux/fs.h, whatever their numbers say,
// and has checked whether the client may make them.
const (
	getFlags  = 0x80086601 // FS_IOC_GETFLAGS
	setFlags  = 0x40086602 // FS_IOC_SETFLAGS
	getFsx    = 0x801c581f // FS_IOC_FSGETXATTR
	setFsx    = 0x401c5820 // FS_IOC_FSSETXATTR
	flagsSize = 4
	fsxSize   = 28 // struct fsxattr
)

// The attributes that keep even who may write to a file from it: FS_IMMUTABLE_FL and
// FS_APPEND_FL of linux/fs.h, and what struct fsxattr calls them.
const (
	guardFlags  = 0x10 | 0x20
	guardXFlags = 0x08 | 0x10
)

// ioctl passes on what asks for a file's attributes or changes them.
func (s *Session) ioctl(w *wire.Worker, r *wire.IoctlRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil {
		return syscall.EBADF
	}
	var value [fsxSize]byte
	size, changes := flagsSize, false
	switch r.Cmd {
	case getFlags:
	case setFlags:
		changes = true
	case getFsx:
		size = fsxSize
	case setFsx:
		size, changes = fsxSize, true
	default:
		return syscall.ENOTTY
	}
	if changes && len(r.Data) < size || !changes && int(r.OutSize) < size {
		return syscall.EINVAL
	}
	copy(value[:size], r.Data)
	call := func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(r.Cmd), uintptr(unsafe.Pointer(&value))); errno != 0 {
			return os.NewSyscallError("ioctl", errno)
		}
		return nil
	}
	var err error
	switch {
	case h.file != nil:
		err = h.file.WithDescriptor(call)
	case h.dir != nil:
		err = call(h.dir.fd)
	default:
		err = syscall.ENOTTY
	}
	if err != nil {
		return err
	}
	out := wire.IoctlOut{}
	if changes {
		word := *(*uint32)(unsafe.Pointer(&value))
		h.node.knows(guarded, size == flagsSize && word&guardFlags != 0 || size == fsxSize && word&guardXFlags != 0)
		s.conn.InvalidateAttributes(h.node.id)
		return w.Send(wire.BytesOf(&out))
	}
	return w.SendBytes(append(wire.BytesOf(&out), value[:size]...))
}

// mayWrite asks the filesystem below whether a file whose attributes were changed may be
// opened for writing with the given flags. The engine, which may have it open since
// before, does not meet that check.
func (s *Session) mayWrite(n *Node, flags fuse.OpenFlags) error {
	if n.known.Load()&guarded == 0 {
		return nil
	}
	var st unix.Stat_t
	return s.withInode(n, &st, func(path string) error {
		fd, err := unix.Open(path, unix.O_WRONLY|int(flags)&unix.O_APPEND|unix.O_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("open", err)
		}
		return unix.Close(fd)
	})
}

// statx answers what stat(2) does not tell: when an inode was made, and its attributes.
// The rest is what stat(2) says in the mount.
func (s *Session) statx(w *wire.Worker, r *wire.StatxRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	var st unix.Stat_t
	if err := s.stat(n, &st); err != nil {
		return err
	}
	var stx unix.Statx_t
	err := s.withInode(n, &unix.Stat_t{}, func(path string) error {
		return os.NewSyscallError("statx", unix.Statx(unix.AT_FDCWD, path, int(r.Flags)&(unix.AT_STATX_FORCE_SYNC|unix.AT_STATX_DONT_SYNC), unix.STATX_BTIME, &stx))
	})
	if err != nil {
		return err
	}
	var out wire.StatxOut
	wire.SetTimeout(&out.AttrValid, &out.AttrValidNsec, s.attrTimeout(n))
	out.Set(&st, s.devices.inode(n.key))
	out.Attributes, out.AttributesMask = stx.Attributes, stx.Attributes_mask
	if stx.Mask&unix.STATX_BTIME != 0 {
		out.Mask |= unix.STATX_BTIME
		out.Btime = wire.SxTime{Sec: stx.Btime.Sec, Nsec: stx.Btime.Nsec}
	}
	return w.Send(wire.BytesOf(&out))
}
