package wire

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenPassthrough is FOPEN_PASSTHROUGH: the answer to an open has a BackingID, and the
// kernel reads, writes and maps that file. It goes with none of the flags about the
// kernel's cache. All that have a node open at a time must have it open with the same
// BackingID, or all without one.
const OpenPassthrough = 1 << 7

// The calls of ioctl(2) on the device: FUSE_DEV_IOC_BACKING_OPEN and _CLOSE.
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// backingMap is struct fuse_backing_map.
type backingMap struct {
	Fd    int32
	Flags uint32
	_     uint64
}

// Pass has the kernel take a file that is open as fd, and returns the number to open nodes
// with. It needs root. ELOOP says that the file lies on a filesystem that lies over another
// one itself. Unpass ends it.
func (c *Conn) Pass(fd int) (backingID int32, err error) {
	in := backingMap{Fd: int32(fd)}
	id, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.dev), backingOpen, uintptr(unsafe.Pointer(&in)))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl", errno)
	}
	return int32(id), nil
}

// Unpass ends what Pass began. Those who have nodes open with the number keep the file.
func (c *Conn) Unpass(backingID int32) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.dev), backingClose, uintptr(unsafe.Pointer(&backingID)))
	if errno != 0 {
		c.log.Error("a passed file cannot be given up", "error", errno)
	}
}
