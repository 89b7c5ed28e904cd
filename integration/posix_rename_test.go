package integration

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func itoa(n int) string { return strconv.Itoa(n) }

// renameChecks are about rename.
var renameChecks = []check{
	{name: "rename", run: func(c *checkT) {
		c.write(c.path("a"), "content")
		c.mkdir(c.path("d"))
		ino := c.lstat(c.path("a")).Ino
		c.ok(unix.Rename(c.path("a"), c.path("b")), "rename")
		c.absent(c.path("a"))
		c.ok(unix.Rename(c.path("b"), c.path("d", "c")), "rename to another directory")
		c.absent(c.path("b"))
		c.holds(c.path("d", "c"), "content")
		equal(c, c.lstat(c.path("d", "c")).Ino, ino, "inode")
		c.ok(unix.Rename(c.path("d"), c.path("e")), "rename of the directory")
		c.holds(c.path("e", "c"), "content")
		c.absent(c.path("d", "c"))
		c.holds(c.native()+"/e/c", "content")
	}},
	{name: "rename_of_each_kind", run: func(c *checkT) {
		for _, name := range c.makeOneOfEach(c.dir) {
			before := c.lstat(c.path(name))
			c.ok(unix.Rename(c.path(name), c.path("new")), "rename of the %s", name)
			c.absent(c.path(name))
			after := c.lstat(c.path("new"))
			equal(c, after.Ino, before.Ino, "inode of the %s", name)
			equal(c, after.Mode, before.Mode, "mode of the %s", name)
			c.ok(os.Remove(c.path("new")), "remove")
		}
	}},
	{name: "rename_over_a_file", run: func(c *checkT) {
		c.write(c.path("new"), "new content")
		c.write(c.path("old"), "old")
		c.ok(unix.Link(c.path("old"), c.path("other")), "link")
		c.ok(unix.Rename(c.path("new"), c.path("old")), "rename")
		c.holds(c.path("old"), "new content")
		c.absent(c.path("new"))
		c.holds(c.path("other"), "old")
		equal(c, uint64(c.lstat(c.path("other")).Nlink), 1, "links of the replaced file")
	}},
	{name: "rename_over_an_open_file", run: func(c *checkT) {
		c.write(c.path("new"), "new content")
		c.write(c.path("old"), "old")
		fd := c.open(c.path("old"), unix.O_RDWR, 0)
		c.ok(unix.Rename(c.path("new"), c.path("old")), "rename")
		c.fdHolds(fd, "old")
		equal(c, uint64(c.fstat(fd).Nlink), 0, "links of the replaced file")
		_, err := unix.Pwrite(fd, []byte("OLDER"), 0)
		c.ok(err, "write to the replaced file")
		c.ok(unix.Ftruncate(fd, 4), "ftruncate of the replaced file")
		c.fdHolds(fd, "OLDE")
		c.holds(c.path("old"), "new content")
	}},
	{name: "rename_of_an_open_file", run: func(c *checkT) {
		fd := c.open(c.path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Rename(c.path("a"), c.path("b")), "rename")
		_, err := unix.Write(fd, []byte("after the rename"))
		c.ok(err, "write")
		c.holds(c.path("b"), "after the rename")
		c.ok(unix.Fchmod(fd, 0o600), "fchmod")
		equal(c, c.lstat(c.path("b")).Mode&0o777, uint32(0o600), "mode")
		c.write(c.path("a"), "another")
		c.fdHolds(fd, "after the rename")
		c.holds(c.path("a"), "another")
	}},
	{name: "rename_swaps_by_three", run: func(c *checkT) {
		// Each name must follow its file, whatever is cached for it.
		c.write(c.path("a"), "was a")
		c.write(c.path("b"), "was b, longer")
		for range 5 {
			c.ok(unix.Rename(c.path("a"), c.path("t")), "rename")
			c.ok(unix.Rename(c.path("b"), c.path("a")), "rename")
			c.ok(unix.Rename(c.path("t"), c.path("b")), "rename")
			c.holds(c.path("a"), "was b, longer")
			c.holds(c.path("b"), "was a")
			c.ok(unix.Rename(c.path("a"), c.path("t")), "rename")
			c.ok(unix.Rename(c.path("b"), c.path("a")), "rename")
			c.ok(unix.Rename(c.path("t"), c.path("b")), "rename")
			c.holds(c.path("a"), "was a")
		}
	}},
	{name: "rename_to_itself", run: func(c *checkT) {
		c.write(c.path("a"), "x")
		c.ok(unix.Link(c.path("a"), c.path("b")), "link")
		c.ok(unix.Rename(c.path("a"), c.path("a")), "rename to the same name")
		// rename(2): two names of one file, nothing happens.
		c.ok(unix.Rename(c.path("a"), c.path("b")), "rename to the other link")
		c.holds(c.path("a"), "x")
		c.holds(c.path("b"), "x")
	}},
	{name: "rename_directories", run: func(c *checkT) {
		for _, name := range []string{"d", "empty", "full"} {
			c.mkdir(c.path(name))
		}
		c.write(c.path("d", "f"), "moved")
		c.write(c.path("full", "g"), "")
		c.write(c.path("file"), "")
		c.errno(unix.Rename(c.path("d"), c.path("full")), unix.ENOTEMPTY, "over a directory with entries")
		c.errno(unix.Rename(c.path("d"), c.path("file")), unix.ENOTDIR, "directory over a file")
		c.errno(unix.Rename(c.path("file"), c.path("empty")), unix.EISDIR, "file over a directory")
		c.errno(unix.Rename(c.path("d"), c.path("d", "sub")), unix.EINVAL, "directory into itself")
		c.mkdir(c.path("d", "e"))
		c.errno(unix.Rename(c.path("d"), c.path("d", "e", "sub")), unix.EINVAL, "directory into its child")
		c.errno(unix.Rename(c.path("d", "e"), c.path("d")), unix.ENOTEMPTY, "directory over its parent")
		c.errno(unix.Rename(c.path("nothing"), c.path("x")), unix.ENOENT, "nothing")
		c.errno(unix.Rename(c.path("file"), "/proc/self/x"), unix.EXDEV, "to another file system")
		c.ok(unix.Rename(c.path("d"), c.path("empty")), "over an empty directory")
		c.holds(c.path("empty", "f"), "moved")
		c.absent(c.path("d"))
	}},
	{name: "rename_moves_dotdot", run: func(c *checkT) {
		c.mkdir(c.path("a"))
		c.mkdir(c.path("b"))
		c.mkdir(c.path("a", "d"))
		c.ok(os.Chdir(c.path("a", "d")), "chdir")
		c.ok(unix.Rename(c.path("a", "d"), c.path("b", "d")), "rename")
		equal(c, c.lstat("..").Ino, c.lstat(c.path("b")).Ino, "inode of ..")
		equal(c, uint64(c.lstat(c.path("a")).Nlink), uint64(c.lstat(c.native()+"/a").Nlink), "links of the old parent")
		equal(c, uint64(c.lstat(c.path("b")).Nlink), uint64(c.lstat(c.native()+"/b").Nlink), "links of the new parent")
		c.write("here", "x")
		c.holds(c.path("b", "d", "here"), "x")
		c.ok(os.Chdir("/"), "chdir back")
	}},
	{name: "rmdir", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "")
		c.errno(unix.Rmdir(c.path("d")), unix.ENOTEMPTY, "rmdir with entries")
		c.ok(unix.Unlink(c.path("d", "f")), "unlink")
		fd := c.open(c.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(unix.Rmdir(c.path("d")), "rmdir")
		c.absent(c.path("d"))
		// A removed directory that is still open has no entries and takes none.
		_, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.errno(err, unix.ENOENT, "create in a removed directory")
		c.fstat(fd)
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "again")
		c.holds(c.path("d", "f"), "again")
	}},
}
