package posix

import (
	"golang.org/x/sys/unix"
)

// forbiddenChecks are about what works on a plain directory and not on the mount, because
// the kernel's FUSE does not pass it on. The errno on the mount is asserted, so that the
// list shrinks when one of them starts to work.
var forbiddenChecks = []check{
	{name: "forbidden_fallocate_modes", run: func(c *checkT) {
		// ext4 and tmpfs differ in these; FUSE refuses them before anybody asks.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Ftruncate(fd, 1<<20), "ftruncate")
		for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
			err := unix.Fallocate(fd, mode, 1<<16, 1<<16)
			if c.Backing != "" || err != nil {
				c.Errno(err, unix.EOPNOTSUPP, "fallocate mode %#x", mode)
			}
		}
	}},
}
