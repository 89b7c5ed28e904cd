package posix

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// fuseForbids lists what works on a plain directory and not on the mount,
// because the kernel's FUSE, at the protocol version that the library speaks,
// does not pass it on. The errno on the mount is asserted, so that the list
// shrinks when one of them starts to work.
var fuseForbids = []struct {
	name string
	want syscall.Errno
	try  func(c *checkT) error
}{
	{"o_tmpfile", unix.EOPNOTSUPP, func(c *checkT) error {
		fd, err := unix.Open(c.Dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
		unix.Close(fd)
		return err
	}},
	{"rename_noreplace", unix.EINVAL, func(c *checkT) error {
		c.Write(c.Path("a"), "")
		return unix.Renameat2(unix.AT_FDCWD, c.Path("a"), unix.AT_FDCWD, c.Path("b"), unix.RENAME_NOREPLACE)
	}},
	{"rename_exchange", unix.EINVAL, func(c *checkT) error {
		c.Write(c.Path("a"), "")
		c.Write(c.Path("b"), "")
		return unix.Renameat2(unix.AT_FDCWD, c.Path("a"), unix.AT_FDCWD, c.Path("b"), unix.RENAME_EXCHANGE)
	}},
	{"rename_whiteout", unix.EINVAL, func(c *checkT) error {
		c.Write(c.Path("a"), "")
		return unix.Renameat2(unix.AT_FDCWD, c.Path("a"), unix.AT_FDCWD, c.Path("b"), unix.RENAME_WHITEOUT)
	}},
	{"inode_flags", unix.ENOTTY, func(c *checkT) error {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		return err
	}},
	{"acl", unix.EOPNOTSUPP, func(c *checkT) (err error) {
		// The kernel would check the mode bits alone, so a mount that others
		// can use refuses to store what it cannot enforce.
		c.Write(c.Path("f"), "for alice")
		c.Ok(unix.Chmod(c.Path("f"), 0o600), "chmod")
		return unix.Setxattr(c.Path("f"), "system.posix_acl_access", aclFor(harness.Alice), 0)
	}},
}

// aclFor is a system.posix_acl_access value that lets one user read, in the
// layout of linux/posix_acl_xattr.h.
func aclFor(uid uint32) []byte {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 4, uid}, {4, 0, 1<<32 - 1}, {16, 4, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		acl = binary.LittleEndian.AppendUint16(acl, e.tag)
		acl = binary.LittleEndian.AppendUint16(acl, e.perm)
		acl = binary.LittleEndian.AppendUint32(acl, e.id)
	}
	return acl
}

// forbiddenChecks makes rows of fuseForbids.
func forbiddenChecks() []check {
	var checks []check
	for _, f := range fuseForbids {
		checks = append(checks, check{name: "forbidden_" + f.name, run: func(c *checkT) {
			err := f.try(c)
			if c.Backing != "" {
				c.Errno(err, f.want, "on a mount, which FUSE forbids")
				return
			}
			c.Ok(err, "on a plain directory")
		}})
	}
	return append(checks, check{name: "fallocate_modes_fuse_does_not_pass", run: func(c *checkT) {
		// ext4 and tmpfs differ in these; FUSE refuses them before anybody asks.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Ftruncate(fd, 1<<20), "ftruncate")
		for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
			err := unix.Fallocate(fd, mode, 1<<16, 1<<16)
			if c.Backing != "" || err != nil {
				c.Errno(err, unix.EOPNOTSUPP, "%s", fmt.Sprintf("fallocate mode %#x", mode))
			}
		}
	}})
}
