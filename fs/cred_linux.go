package fs

import (
	"runtime"
	"syscall"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// as calls fn with the filesystem identity of the client that sent the request,
// so that what fn creates belongs to the client, inherits a set-group-id
// directory's group and loses the bits the client may not set, all by the
// backing filesystem's own rules.
//
// Whether the client may create there was decided by the kernel, which knows the
// client's groups; the request does not. So the thread keeps the right to write
// to any directory (CAP_DAC_OVERRIDE) and no other of the rights that go with
// user 0's filesystem identity (capabilities(7)).
func (s *Session) as(w *wire.Worker, h *fuse.Header, fn func() error) error {
	if s.uid != 0 || h.Uid == s.uid && h.Gid == s.gid {
		return fn()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if group, ok := w.Group(); ok {
		// The group of the directory, which the client is in: it decides who may keep
		// the set-group-id bit (inode_init_owner in the kernel's fs/inode.c).
		if err := setgroups([]uint32{group}); err != nil {
			return err
		}
		defer func() { _ = setgroups(s.groups) }()
	}
	// setfsgid first: after setfsuid the right to call it is still there, but
	// going back in the opposite order keeps the pair consistent throughout.
	setfsid(unix.SYS_SETFSGID, h.Gid)
	defer setfsid(unix.SYS_SETFSGID, s.gid)
	if h.Uid != s.uid {
		setfsid(unix.SYS_SETFSUID, h.Uid)
		// Going back to user 0 gives the dropped capabilities back.
		defer setfsid(unix.SYS_SETFSUID, s.uid)
		if err := raiseDACOverride(); err != nil {
			return err
		}
	}
	return fn()
}

// setfsid changes the filesystem user or group of the calling thread. Neither
// call can fail for user 0, and neither reports it if it does.
func setfsid(trap uintptr, id uint32) { unix.RawSyscall(trap, uintptr(id), 0, 0) }

// raiseDACOverride makes CAP_DAC_OVERRIDE effective again for the calling
// thread, which setfsuid dropped.
func raiseDACOverride() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective |= 1 << unix.CAP_DAC_OVERRIDE & data[0].Permitted
	return capset(&header, &data[0])
}

// setgroups sets the supplementary groups of the calling thread alone.
func setgroups(groups []uint32) error {
	return rawErr(unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0))
}

// ownGroups returns the supplementary groups of the process.
func ownGroups() []uint32 {
	ids, err := unix.Getgroups()
	if err != nil {
		return nil
	}
	groups := make([]uint32, len(ids))
	for i, id := range ids {
		groups[i] = uint32(id)
	}
	return groups
}

// capget and capset are raw because the thread must not change in between.
func capget(header *unix.CapUserHeader, data *unix.CapUserData) error {
	return rawErr(unix.RawSyscall(unix.SYS_CAPGET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)), 0))
}

func capset(header *unix.CapUserHeader, data *unix.CapUserData) error {
	return rawErr(unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)), 0))
}

func rawErr(_, _ uintptr, errno syscall.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
