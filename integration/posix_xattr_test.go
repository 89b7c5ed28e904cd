package integration

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// listXattrs is the sorted list of an object's user attributes; others may be
// there that the system made.
func (c *checkT) listXattrs(path string) []string {
	size, err := unix.Llistxattr(path, nil)
	c.ok(err, "listxattr for the size")
	buf := make([]byte, size+1)
	n, err := unix.Llistxattr(path, buf)
	c.ok(err, "listxattr")
	equal(c, n, size, "size of the list")
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
		c.write(c.path("f"), "")
		c.mkdir(c.path("d"))
		for _, name := range []string{"f", "d"} {
			path := c.path(name)
			values := map[string][]byte{"user.a": []byte("value"), "user.empty": {},
				"user.bytes": {0, 1, 0xff, 0}, "user.long": bytes.Repeat([]byte("x"), 3000)}
			for attr, value := range values {
				c.ok(unix.Setxattr(path, attr, value, 0), "setxattr %s", attr)
			}
			for attr, value := range values {
				size, err := unix.Getxattr(path, attr, nil)
				c.ok(err, "getxattr for the size")
				equal(c, size, len(value), "size of %s", attr)
				buf := make([]byte, 4000)
				n, err := unix.Getxattr(path, attr, buf)
				c.ok(err, "getxattr")
				sameBytes(c, string(buf[:n]), string(value), attr)
				n, err = unix.Getxattr(c.native()+"/"+name, attr, buf)
				c.ok(err, "getxattr below")
				sameBytes(c, string(buf[:n]), string(value), attr)
			}
			equal(c, strings.Join(c.listXattrs(path), " "), "user.a user.bytes user.empty user.long", "list")
			c.ok(unix.Removexattr(path, "user.a"), "removexattr")
			equal(c, strings.Join(c.listXattrs(path), " "), "user.bytes user.empty user.long", "list")
		}
	}},
	{name: "xattr_errors", run: func(c *checkT) {
		c.write(c.path("f"), "")
		f, buf := c.path("f"), make([]byte, 3)
		_, err := unix.Getxattr(f, "user.none", buf)
		c.errno(err, unix.ENODATA, "getxattr of none")
		c.errno(unix.Removexattr(f, "user.none"), unix.ENODATA, "removexattr of none")
		c.errno(unix.Setxattr(f, "user.none", buf, unix.XATTR_REPLACE), unix.ENODATA, "replace none")
		c.ok(unix.Setxattr(f, "user.x", []byte("value"), unix.XATTR_CREATE), "create")
		c.errno(unix.Setxattr(f, "user.x", buf, unix.XATTR_CREATE), unix.EEXIST, "create again")
		c.ok(unix.Setxattr(f, "user.x", []byte("VALUE"), unix.XATTR_REPLACE), "replace")
		_, err = unix.Getxattr(f, "user.x", buf)
		c.errno(err, unix.ERANGE, "getxattr to a short buffer")
		_, err = unix.Listxattr(f, buf)
		c.errno(err, unix.ERANGE, "listxattr to a short buffer")
		_, err = unix.Getxattr(c.path("nothing"), "user.x", buf)
		c.errno(err, unix.ENOENT, "getxattr of nothing")
		c.errno(unix.Setxattr(f, "nonamespace", buf, 0), unix.EOPNOTSUPP, "no namespace")
		c.errno(unix.Setxattr(f, "user."+strings.Repeat("n", 255), buf, 0), unix.ERANGE, "name too long")
		c.errno(unix.Setxattr(f, "user.y", make([]byte, 65537), 0), unix.E2BIG, "value too long")
	}},
	{name: "xattr_of_symlinks", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Symlink("f", c.path("s")), "symlink")
		c.errno(unix.Lsetxattr(c.path("s"), "user.x", []byte("1"), 0), unix.EPERM, "user attribute of a symlink")
		c.ok(unix.Lsetxattr(c.path("s"), "trusted.x", []byte("1"), 0), "trusted attribute of a symlink")
		buf := make([]byte, 10)
		n, err := unix.Lgetxattr(c.path("s"), "trusted.x", buf)
		c.ok(err, "lgetxattr")
		equal(c, string(buf[:n]), "1", "value")
		_, err = unix.Getxattr(c.path("f"), "trusted.x", buf)
		c.errno(err, unix.ENODATA, "the target's attribute")
		c.ok(unix.Mkfifo(c.path("p"), 0o644), "mkfifo")
		c.errno(unix.Setxattr(c.path("p"), "user.x", buf, 0), unix.EPERM, "user attribute of a fifo")
	}},
	{name: "xattr_by_descriptor", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Fsetxattr(fd, "user.x", []byte("before"), 0), "fsetxattr")
		c.ok(unix.Unlink(c.path("f")), "unlink")
		buf := make([]byte, 10)
		n, err := unix.Fgetxattr(fd, "user.x", buf)
		c.ok(err, "fgetxattr of an unlinked file")
		equal(c, string(buf[:n]), "before", "value")
		c.ok(unix.Fsetxattr(fd, "user.x", []byte("after"), 0), "fsetxattr of an unlinked file")
		c.ok(unix.Fremovexattr(fd, "user.x"), "fremovexattr of an unlinked file")
	}},
	{name: "xattr_permissions", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Chmod(c.path("f"), 0o644), "chmod")
		c.ok(unix.Setxattr(c.path("f"), "user.x", []byte("1"), 0), "setxattr")
		c.ok(unix.Setxattr(c.path("f"), "trusted.x", []byte("1"), 0), "setxattr")
		c.as(alice, aliceGroup, func() {
			buf := make([]byte, 10)
			_, err := unix.Getxattr(c.path("f"), "user.x", buf)
			c.ok(err, "getxattr by a reader")
			c.errno(unix.Setxattr(c.path("f"), "user.x", buf, 0), unix.EACCES, "setxattr by a reader")
			_, err = unix.Getxattr(c.path("f"), "trusted.x", buf)
			c.errno(err, unix.ENODATA, "trusted attribute for a user")
			c.errno(unix.Setxattr(c.path("f"), "trusted.x", buf, 0), unix.EPERM, "trusted attribute by a user")
			c.errno(unix.Setxattr(c.path("f"), "security.capability", capNetRaw, 0), unix.EPERM,
				"capability by a user")
		})
	}},
	{name: "xattr_security_capability", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Setxattr(c.path("f"), "security.capability", capNetRaw, 0), "setxattr")
		buf := make([]byte, 64)
		n, err := unix.Getxattr(c.path("f"), "security.capability", buf)
		c.ok(err, "getxattr")
		sameBytes(c, string(buf[:n]), string(capNetRaw), "capability")
		c.ok(unix.Removexattr(c.path("f"), "security.capability"), "removexattr")
		_, err = unix.Getxattr(c.path("f"), "security.capability", buf)
		c.errno(err, unix.ENODATA, "getxattr")
	}},
}
