package wire

import (
	"errors"
	"syscall"
)

// ErrnoOf is the one place where an error becomes the number a client sees: the
// errno at the bottom of the chain, or EIO for what has none.
func ErrnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	switch {
	case !errors.As(err, &errno) || errno == 0:
		return syscall.EIO
	case errno == syscall.EMFILE:
		return syscall.ENFILE // it is the daemon that has too many open, and not the client
	}
	return errno
}
