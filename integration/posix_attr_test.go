package integration

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// attrChecks are about mode and owner.
var attrChecks = []check{
	{name: "chmod", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.mkdir(c.path("d"))
		for _, name := range []string{"f", "d"} {
			for _, mode := range []uint32{0, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o7777, 0o600} {
				c.ok(unix.Chmod(c.path(name), mode), "chmod %o", mode)
				equal(c, c.lstat(c.path(name)).Mode&0o7777, mode, "mode of %s", name)
				equal(c, c.lstat(c.native()+"/"+name).Mode&0o7777, mode, "mode of %s below", name)
			}
		}
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		c.ok(unix.Fchmod(fd, 0o640), "fchmod")
		equal(c, c.fstat(fd).Mode, uint32(unix.S_IFREG|0o640), "mode")
	}},
	{name: "chown", run: func(c *checkT) {
		c.write(c.path("f"), "")
		owner := func() string {
			st := c.lstat(c.path("f"))
			return fmt.Sprint(st.Uid, ":", st.Gid)
		}
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		equal(c, owner(), fmt.Sprint(alice, ":", aliceGroup), "owner")
		c.ok(unix.Chown(c.path("f"), bob, -1), "chown of the user")
		equal(c, owner(), fmt.Sprint(bob, ":", aliceGroup), "owner")
		c.ok(unix.Chown(c.path("f"), -1, bobGroup), "chown of the group")
		equal(c, owner(), fmt.Sprint(bob, ":", bobGroup), "owner")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		c.ok(unix.Fchown(fd, 0, 0), "fchown")
		equal(c, owner(), "0:0", "owner")
		c.ok(unix.Symlink("f", c.path("s")), "symlink")
		c.ok(unix.Lchown(c.path("s"), alice, aliceGroup), "lchown")
		equal(c, c.lstat(c.path("s")).Uid, uint32(alice), "owner of the symlink")
		equal(c, owner(), "0:0", "owner of its target")
	}},
	{name: "umask_of_the_client", run: func(c *checkT) {
		for _, mask := range []int{0, 0o022, 0o077, 0o777} {
			old := unix.Umask(mask)
			want := 0o666 &^ uint32(mask)
			name := fmt.Sprintf("%o", mask)
			fd, err := unix.Open(c.path(name), unix.O_CREAT|unix.O_WRONLY, 0o666)
			c.ok(err, "create")
			unix.Close(fd)
			c.ok(unix.Mkdir(c.path(name+"d"), 0o1777), "mkdir")
			c.ok(unix.Mknod(c.path(name+"p"), unix.S_IFIFO|0o666, 0), "mknod")
			c.ok(unix.Symlink("x", c.path(name+"s")), "symlink")
			unix.Umask(old)
			equal(c, c.lstat(c.path(name)).Mode&0o7777, want, "mode of the file, umask %o", mask)
			equal(c, c.lstat(c.path(name+"p")).Mode&0o7777, want, "mode of the fifo, umask %o", mask)
			equal(c, c.lstat(c.path(name+"s")).Mode&0o7777, 0o777, "mode of the symlink, umask %o", mask)
			equal(c, c.lstat(c.path(name+"d")).Mode&0o7777, 0o1777&^uint32(mask),
				"mode of the directory, umask %o", mask)
		}
	}},
	{name: "create_with_special_bits", run: func(c *checkT) {
		for _, mode := range []uint32{0o4755, 0o2755, 0o1755} {
			name := c.path(fmt.Sprintf("%o", mode))
			c.open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
			equal(c, c.lstat(name).Mode&0o7777, mode, "mode")
		}
	}},
	{name: "cp_keeps_the_mode", run: func(c *checkT) {
		// cp -p sets the mode by an access control list where it can.
		c.write(c.path("f"), "x")
		for _, mode := range []uint32{0o644, 0o600, 0o755, 0o4755} {
			c.ok(unix.Chmod(c.path("f"), mode), "chmod")
			run(c, "cp", "-p", c.path("f"), c.path("g"))
			// The mode alone, as ls asks for it: what the kernel still believes,
			// unless it was told otherwise.
			equal(c, uint32(c.ask("g", unix.STATX_MODE).Mode)&0o7777, mode, "mode of the copy")
			c.ok(unix.Unlink(c.path("g")), "unlink")
		}
	}},
	{name: "access", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Chmod(c.path("f"), 0o640), "chmod")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		c.ok(unix.Access(c.path("f"), unix.R_OK|unix.W_OK), "access by root")
		c.errno(unix.Access(c.path("f"), unix.X_OK), unix.EACCES, "root executes what nobody may")
		c.as(alice, aliceGroup, func() {
			c.ok(unix.Access(c.path("f"), unix.R_OK|unix.W_OK), "access by the owner")
			c.errno(unix.Access(c.path("f"), unix.X_OK), unix.EACCES, "execute by the owner")
		})
		c.as(bob, aliceGroup, func() {
			c.ok(unix.Access(c.path("f"), unix.R_OK), "read by the group")
			c.errno(unix.Access(c.path("f"), unix.W_OK), unix.EACCES, "write by the group")
		})
		c.as(bob, bobGroup, func() {
			c.ok(unix.Access(c.path("f"), unix.F_OK), "existence for others")
			c.errno(unix.Access(c.path("f"), unix.R_OK), unix.EACCES, "read by others")
		})
	}},
}

// ask is one field of statx(2), asked for alone. The kernel answers from its
// cache what it believes is still true, so a field that a change has left stale
// shows here and may not in a full stat.
func (c *checkT) ask(name string, mask int) unix.Statx_t {
	var st unix.Statx_t
	c.ok(unix.Statx(unix.AT_FDCWD, c.path(name), unix.AT_SYMLINK_NOFOLLOW, mask, &st), "statx %s", name)
	return st
}

// askChecks are about what the kernel may remember of a file.
var askChecks = []check{
	{name: "statx_links", run: func(c *checkT) {
		c.write(c.path("a"), "")
		c.write(c.path("other"), "")
		links := func(want uint32, when string) {
			equal(c, c.ask("a", unix.STATX_NLINK).Nlink, want, "links %s", when)
		}
		links(1, "at first")
		c.ok(unix.Link(c.path("a"), c.path("b")), "link")
		links(2, "after link")
		c.ok(unix.Unlink(c.path("b")), "unlink")
		links(1, "after unlink of the other name")
		c.ok(unix.Link(c.path("a"), c.path("b")), "link")
		c.ok(unix.Rename(c.path("other"), c.path("b")), "rename over the other name")
		links(1, "after rename over the other name")
	}},
	{name: "statx_size_and_times", run: func(c *checkT) {
		fd := c.open(c.path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Link(c.path("a"), c.path("b")), "link")
		for i, op := range []func() error{
			func() error { _, err := unix.Pwrite(fd, make([]byte, 1000), 0); return err },
			func() error { return unix.Ftruncate(fd, 2000) },
			func() error { return unix.Truncate(c.path("b"), 3000) },
			func() error { return unix.Fallocate(fd, 0, 0, 4000) },
		} {
			before := c.ask("b", unix.STATX_MTIME).Mtime
			tick()
			c.ok(op(), "change %d", i)
			equal(c, c.ask("a", unix.STATX_SIZE).Size, uint64(1000*(i+1)), "size after change %d", i)
			if c.ask("b", unix.STATX_MTIME).Mtime == before {
				c.Fatalf("mtime stays after change %d", i)
			}
		}
	}},
	{name: "statx_mode_and_owner", run: func(c *checkT) {
		c.write(c.path("a"), "data")
		c.ok(unix.Chmod(c.path("a"), 0o6777), "chmod")
		equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o6777, "mode after chmod")
		c.as(alice, aliceGroup, func() {
			fd := c.open(c.path("a"), unix.O_WRONLY, 0)
			_, err := unix.Write(fd, []byte("x"))
			c.ok(err, "write")
		})
		equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o777, "mode after a user's write")
		c.ok(unix.Chmod(c.path("a"), 0o6755), "chmod")
		c.ok(unix.Chown(c.path("a"), alice, aliceGroup), "chown")
		equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o755, "mode after chown")
		equal(c, c.ask("a", unix.STATX_UID).Uid, uint32(alice), "owner after chown")
	}},
	{name: "statx_of_directories", run: func(c *checkT) {
		links := c.ask(".", unix.STATX_NLINK).Nlink
		before := c.ask(".", unix.STATX_MTIME).Mtime
		tick()
		c.mkdir(c.path("d"))
		if c.ask(".", unix.STATX_MTIME).Mtime == before {
			c.Fatalf("mtime of the directory stays after mkdir")
		}
		equal(c, c.ask(".", unix.STATX_NLINK).Nlink, links+1, "links after mkdir")
		c.ok(unix.Rmdir(c.path("d")), "rmdir")
		equal(c, c.ask(".", unix.STATX_NLINK).Nlink, links, "links after rmdir")
	}},
}
