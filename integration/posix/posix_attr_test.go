package posix

import (
	"fmt"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// attrChecks are about mode and owner.
var attrChecks = []check{
	{name: "chmod", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Mkdir(c.Path("d"))
		for _, name := range []string{"f", "d"} {
			for _, mode := range []uint32{0, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o7777, 0o600} {
				c.Ok(unix.Chmod(c.Path(name), mode), "chmod %o", mode)
				harness.Equal(c, c.Lstat(c.Path(name)).Mode&0o7777, mode, "mode of %s", name)
				harness.Equal(c, c.Lstat(c.Native()+"/"+name).Mode&0o7777, mode, "mode of %s below", name)
			}
		}
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.Ok(unix.Fchmod(fd, 0o640), "fchmod")
		harness.Equal(c, c.Fstat(fd).Mode, uint32(unix.S_IFREG|0o640), "mode")
	}},
	{name: "chown", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		owner := func() string {
			st := c.Lstat(c.Path("f"))
			return fmt.Sprint(st.Uid, ":", st.Gid)
		}
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		harness.Equal(c, owner(), fmt.Sprint(harness.Alice, ":", harness.AliceGroup), "owner")
		c.Ok(unix.Chown(c.Path("f"), harness.Bob, -1), "chown of the user")
		harness.Equal(c, owner(), fmt.Sprint(harness.Bob, ":", harness.AliceGroup), "owner")
		c.Ok(unix.Chown(c.Path("f"), -1, harness.BobGroup), "chown of the group")
		harness.Equal(c, owner(), fmt.Sprint(harness.Bob, ":", harness.BobGroup), "owner")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.Ok(unix.Fchown(fd, 0, 0), "fchown")
		harness.Equal(c, owner(), "0:0", "owner")
		c.Ok(unix.Symlink("f", c.Path("s")), "symlink")
		c.Ok(unix.Lchown(c.Path("s"), harness.Alice, harness.AliceGroup), "lchown")
		harness.Equal(c, c.Lstat(c.Path("s")).Uid, uint32(harness.Alice), "owner of the symlink")
		harness.Equal(c, owner(), "0:0", "owner of its target")
	}},
	{name: "umask_of_the_client", run: func(c *checkT) {
		for _, mask := range []int{0, 0o022, 0o077, 0o777} {
			old := unix.Umask(mask)
			want := 0o666 &^ uint32(mask)
			name := fmt.Sprintf("%o", mask)
			fd, err := unix.Open(c.Path(name), unix.O_CREAT|unix.O_WRONLY, 0o666)
			c.Ok(err, "create")
			unix.Close(fd)
			c.Ok(unix.Mkdir(c.Path(name+"d"), 0o1777), "mkdir")
			c.Ok(unix.Mknod(c.Path(name+"p"), unix.S_IFIFO|0o666, 0), "mknod")
			c.Ok(unix.Symlink("x", c.Path(name+"s")), "symlink")
			unix.Umask(old)
			harness.Equal(c, c.Lstat(c.Path(name)).Mode&0o7777, want, "mode of the file, umask %o", mask)
			harness.Equal(c, c.Lstat(c.Path(name+"p")).Mode&0o7777, want, "mode of the fifo, umask %o", mask)
			harness.Equal(c, c.Lstat(c.Path(name+"s")).Mode&0o7777, 0o777, "mode of the symlink, umask %o", mask)
			harness.Equal(c, c.Lstat(c.Path(name+"d")).Mode&0o7777, 0o1777&^uint32(mask),
				"mode of the directory, umask %o", mask)
		}
	}},
	{name: "create_with_special_bits", run: func(c *checkT) {
		for _, mode := range []uint32{0o4755, 0o2755, 0o1755} {
			name := c.Path(fmt.Sprintf("%o", mode))
			c.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
			harness.Equal(c, c.Lstat(name).Mode&0o7777, mode, "mode")
		}
	}},
	{name: "cp_keeps_the_mode", run: func(c *checkT) {
		// cp -p sets the mode by an access control list where it can.
		c.Write(c.Path("f"), "x")
		for _, mode := range []uint32{0o644, 0o600, 0o755, 0o4755} {
			c.Ok(unix.Chmod(c.Path("f"), mode), "chmod")
			harness.Run(c, "cp", "-p", c.Path("f"), c.Path("g"))
			// The mode alone, as ls asks for it: what the kernel still believes,
			// unless it was told otherwise.
			harness.Equal(c, uint32(c.ask("g", unix.STATX_MODE).Mode)&0o7777, mode, "mode of the copy")
			c.Ok(unix.Unlink(c.Path("g")), "unlink")
		}
	}},
	{name: "access", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o640), "chmod")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		c.Ok(unix.Access(c.Path("f"), unix.R_OK|unix.W_OK), "access by root")
		c.Errno(unix.Access(c.Path("f"), unix.X_OK), unix.EACCES, "root executes what nobody may")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Ok(unix.Access(c.Path("f"), unix.R_OK|unix.W_OK), "access by the owner")
			c.Errno(unix.Access(c.Path("f"), unix.X_OK), unix.EACCES, "execute by the owner")
		})
		c.As(harness.Bob, harness.AliceGroup, func() {
			c.Ok(unix.Access(c.Path("f"), unix.R_OK), "read by the group")
			c.Errno(unix.Access(c.Path("f"), unix.W_OK), unix.EACCES, "write by the group")
		})
		c.As(harness.Bob, harness.BobGroup, func() {
			c.Ok(unix.Access(c.Path("f"), unix.F_OK), "existence for others")
			c.Errno(unix.Access(c.Path("f"), unix.R_OK), unix.EACCES, "read by others")
		})
	}},
}

// ask is one field of statx(2), asked for alone. The kernel answers from its
// cache what it believes is still true, so a field that a change has left stale
// shows here and may not in a full stat.
func (c *checkT) ask(name string, mask int) unix.Statx_t {
	var st unix.Statx_t
	c.Ok(unix.Statx(unix.AT_FDCWD, c.Path(name), unix.AT_SYMLINK_NOFOLLOW, mask, &st), "statx %s", name)
	return st
}

// askChecks are about what the kernel may remember of a file.
var askChecks = []check{
	{name: "statx_links", run: func(c *checkT) {
		c.Write(c.Path("a"), "")
		c.Write(c.Path("other"), "")
		links := func(want uint32, when string) {
			harness.Equal(c, c.ask("a", unix.STATX_NLINK).Nlink, want, "links %s", when)
		}
		links(1, "at first")
		c.Ok(unix.Link(c.Path("a"), c.Path("b")), "link")
		links(2, "after link")
		c.Ok(unix.Unlink(c.Path("b")), "unlink")
		links(1, "after unlink of the other name")
		c.Ok(unix.Link(c.Path("a"), c.Path("b")), "link")
		c.Ok(unix.Rename(c.Path("other"), c.Path("b")), "rename over the other name")
		links(1, "after rename over the other name")
	}},
	{name: "statx_size_and_times", run: func(c *checkT) {
		fd := c.Open(c.Path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Link(c.Path("a"), c.Path("b")), "link")
		for i, op := range []func() error{
			func() error { _, err := unix.Pwrite(fd, make([]byte, 1000), 0); return err },
			func() error { return unix.Ftruncate(fd, 2000) },
			func() error { return unix.Truncate(c.Path("b"), 3000) },
			func() error { return unix.Fallocate(fd, 0, 0, 4000) },
		} {
			before := c.ask("b", unix.STATX_MTIME).Mtime
			harness.Tick()
			c.Ok(op(), "change %d", i)
			harness.Equal(c, c.ask("a", unix.STATX_SIZE).Size, uint64(1000*(i+1)), "size after change %d", i)
			if c.ask("b", unix.STATX_MTIME).Mtime == before {
				c.Fatalf("mtime stays after change %d", i)
			}
		}
	}},
	{name: "statx_mode_and_owner", run: func(c *checkT) {
		c.Write(c.Path("a"), "data")
		c.Ok(unix.Chmod(c.Path("a"), 0o6777), "chmod")
		harness.Equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o6777, "mode after chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			fd := c.Open(c.Path("a"), unix.O_WRONLY, 0)
			_, err := unix.Write(fd, []byte("x"))
			c.Ok(err, "write")
		})
		harness.Equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o777, "mode after a user's write")
		c.Ok(unix.Chmod(c.Path("a"), 0o6755), "chmod")
		c.Ok(unix.Chown(c.Path("a"), harness.Alice, harness.AliceGroup), "chown")
		harness.Equal(c, c.ask("a", unix.STATX_MODE).Mode&0o7777, 0o755, "mode after chown")
		harness.Equal(c, c.ask("a", unix.STATX_UID).Uid, uint32(harness.Alice), "owner after chown")
	}},
	{name: "statx_of_directories", run: func(c *checkT) {
		links := c.ask(".", unix.STATX_NLINK).Nlink
		before := c.ask(".", unix.STATX_MTIME).Mtime
		harness.Tick()
		c.Mkdir(c.Path("d"))
		if c.ask(".", unix.STATX_MTIME).Mtime == before {
			c.Fatalf("mtime of the directory stays after mkdir")
		}
		harness.Equal(c, c.ask(".", unix.STATX_NLINK).Nlink, links+1, "links after mkdir")
		c.Ok(unix.Rmdir(c.Path("d")), "rmdir")
		harness.Equal(c, c.ask(".", unix.STATX_NLINK).Nlink, links, "links after rmdir")
	}},
}
