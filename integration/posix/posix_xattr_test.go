package posix

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// listXattrs is the sorted list of an object's user attributes; others may be
// there that the system made.
func (c *checkT) listXattrs(path string) []string {
	size, err := unix.Llistxattr(path, nil)
	c.Ok(err, "listxattr for the size")
	buf := make([]byte, size+1)
	n, err := unix.Llistxattr(path, buf)
	c.Ok(err, "listxattr")
	harness.Equal(c, n, size, "size of the list")
	var names []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if strings.HasPrefix(name, "user.") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// xattrChecks are about extended attributes.
var xattrChecks = []check{
	{name: "xattr", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Mkdir(c.Path("d"))
		for _, name := range []string{"f", "d"} {
			path := c.Path(name)
			values := map[string][]byte{"user.a": []byte("value"), "user.empty": {},
				"user.bytes": {0, 1, 0xff, 0}, "user.long": bytes.Repeat([]byte("x"), 3000)}
			for attr, value := range values {
				c.Ok(unix.Setxattr(path, attr, value, 0), "setxattr %s", attr)
			}
			for attr, value := range values {
				size, err := unix.Getxattr(path, attr, nil)
				c.Ok(err, "getxattr for the size")
				harness.Equal(c, size, len(value), "size of %s", attr)
				buf := make([]byte, 4000)
				n, err := unix.Getxattr(path, attr, buf)
				c.Ok(err, "getxattr")
				harness.SameBytes(c, string(buf[:n]), string(value), attr)
				n, err = unix.Getxattr(c.Native()+"/"+name, attr, buf)
				c.Ok(err, "getxattr below")
				harness.SameBytes(c, string(buf[:n]), string(value), attr)
			}
			harness.Equal(c, strings.Join(c.listXattrs(path), " "), "user.a user.bytes user.empty user.long", "list")
			c.Ok(unix.Removexattr(path, "user.a"), "removexattr")
			harness.Equal(c, strings.Join(c.listXattrs(path), " "), "user.bytes user.empty user.long", "list")
		}
	}},
	{name: "xattr_errors", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		f, buf := c.Path("f"), make([]byte, 3)
		_, err := unix.Getxattr(f, "user.none", buf)
		c.Errno(err, unix.ENODATA, "getxattr of none")
		c.Errno(unix.Removexattr(f, "user.none"), unix.ENODATA, "removexattr of none")
		c.Errno(unix.Setxattr(f, "user.none", buf, unix.XATTR_REPLACE), unix.ENODATA, "replace none")
		c.Ok(unix.Setxattr(f, "user.x", []byte("value"), unix.XATTR_CREATE), "create")
		c.Errno(unix.Setxattr(f, "user.x", buf, unix.XATTR_CREATE), unix.EEXIST, "create again")
		c.Ok(unix.Setxattr(f, "user.x", []byte("VALUE"), unix.XATTR_REPLACE), "replace")
		_, err = unix.Getxattr(f, "user.x", buf)
		c.Errno(err, unix.ERANGE, "getxattr to a short buffer")
		_, err = unix.Listxattr(f, buf)
		c.Errno(err, unix.ERANGE, "listxattr to a short buffer")
		_, err = unix.Getxattr(c.Path("nothing"), "user.x", buf)
		c.Errno(err, unix.ENOENT, "getxattr of nothing")
		c.Errno(unix.Setxattr(f, "nonamespace", buf, 0), unix.EOPNOTSUPP, "no namespace")
		c.Errno(unix.Setxattr(f, "user."+strings.Repeat("n", 255), buf, 0), unix.ERANGE, "name too long")
		c.Errno(unix.Setxattr(f, "user.y", make([]byte, 65537), 0), unix.E2BIG, "value too long")
	}},
	{name: "xattr_of_symlinks", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Symlink("f", c.Path("s")), "symlink")
		c.Errno(unix.Lsetxattr(c.Path("s"), "user.x", []byte("1"), 0), unix.EPERM, "user attribute of a symlink")
		c.Ok(unix.Lsetxattr(c.Path("s"), "trusted.x", []byte("1"), 0), "trusted attribute of a symlink")
		buf := make([]byte, 10)
		n, err := unix.Lgetxattr(c.Path("s"), "trusted.x", buf)
		c.Ok(err, "lgetxattr")
		harness.Equal(c, string(buf[:n]), "1", "value")
		_, err = unix.Getxattr(c.Path("f"), "trusted.x", buf)
		c.Errno(err, unix.ENODATA, "the target's attribute")
		c.Ok(unix.Mkfifo(c.Path("p"), 0o644), "mkfifo")
		c.Errno(unix.Setxattr(c.Path("p"), "user.x", buf, 0), unix.EPERM, "user attribute of a fifo")
	}},
	{name: "xattr_by_descriptor", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Fsetxattr(fd, "user.x", []byte("before"), 0), "fsetxattr")
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		buf := make([]byte, 10)
		n, err := unix.Fgetxattr(fd, "user.x", buf)
		c.Ok(err, "fgetxattr of an unlinked file")
		harness.Equal(c, string(buf[:n]), "before", "value")
		c.Ok(unix.Fsetxattr(fd, "user.x", []byte("after"), 0), "fsetxattr of an unlinked file")
		c.Ok(unix.Fremovexattr(fd, "user.x"), "fremovexattr of an unlinked file")
	}},
	{name: "xattr_permissions", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o644), "chmod")
		c.Ok(unix.Setxattr(c.Path("f"), "user.x", []byte("1"), 0), "setxattr")
		c.Ok(unix.Setxattr(c.Path("f"), "trusted.x", []byte("1"), 0), "setxattr")
		c.As(harness.Alice, harness.AliceGroup, func() {
			buf := make([]byte, 10)
			_, err := unix.Getxattr(c.Path("f"), "user.x", buf)
			c.Ok(err, "getxattr by a reader")
			c.Errno(unix.Setxattr(c.Path("f"), "user.x", buf, 0), unix.EACCES, "setxattr by a reader")
			_, err = unix.Getxattr(c.Path("f"), "trusted.x", buf)
			c.Errno(err, unix.ENODATA, "trusted attribute for a user")
			c.Errno(unix.Setxattr(c.Path("f"), "trusted.x", buf, 0), unix.EPERM, "trusted attribute by a user")
			c.Errno(unix.Setxattr(c.Path("f"), "security.capability", capNetRaw, 0), unix.EPERM,
				"capability by a user")
		})
	}},
	{name: "xattr_security_capability", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Setxattr(c.Path("f"), "security.capability", capNetRaw, 0), "setxattr")
		buf := make([]byte, 64)
		n, err := unix.Getxattr(c.Path("f"), "security.capability", buf)
		c.Ok(err, "getxattr")
		harness.SameBytes(c, string(buf[:n]), string(capNetRaw), "capability")
		c.Ok(unix.Removexattr(c.Path("f"), "security.capability"), "removexattr")
		_, err = unix.Getxattr(c.Path("f"), "security.capability", buf)
		c.Errno(err, unix.ENODATA, "getxattr")
	}},
}
