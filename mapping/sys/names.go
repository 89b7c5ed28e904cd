package sys

import (
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lstatat is fstatat(2) of a name in a directory, which is not followed. It allocates
// nothing, as the library's does for the name.
func Lstatat(dirfd int, name string, st *unix.Stat_t) error {
	var path [unix.NAME_MAX + 1]byte
	if len(name) >= len(path) {
		return syscall.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return syscall.EINVAL
	}
	copy(path[:], name)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(dirfd), uintptr(unsafe.Pointer(&path)), uintptr(unsafe.Pointer(st)), unix.AT_SYMLINK_NOFOLLOW, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}
