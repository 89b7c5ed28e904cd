package fs

import (
	"errors"
	"syscall"
)

// errnoOf is the one place where an error becomes the number a client sees: the
// errno at the bottom of the chain, or EIO for what has none.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return syscall.EIO
}
