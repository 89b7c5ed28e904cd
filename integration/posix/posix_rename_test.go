package posix

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func itoa(n int) string { return strconv.Itoa(n) }

// rename2 is renameat2(2) of two names.
func (c *checkT) rename2(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, c.Path(from), unix.AT_FDCWD, c.Path(to), flags)
}

// renameChecks are about rename.
var renameChecks = []check{
	{name: "rename_noreplace", run: func(c *checkT) {
		c.Write(c.Path("a"), "a")
		c.Ok(c.rename2("a", "b", unix.RENAME_NOREPLACE), "renameat2")
		c.Holds(c.Path("b"), "a")
		c.Absent(c.Path("a"))
		c.Write(c.Path("a"), "other")
		c.Errno(c.rename2("a", "b", unix.RENAME_NOREPLACE), unix.EEXIST, "renameat2 over a file")
		c.Holds(c.Path("b"), "a")
		c.Holds(c.Path("a"), "other")
	}},
	{name: "rename_exchange", run: func(c *checkT) {
		c.Write(c.Path("a"), "a")
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "in"), "inside")
		fd := c.Open(c.Path("a"), unix.O_RDWR, 0)
		inside := c.Open(c.Path("d", "in"), unix.O_RDWR, 0)
		a, d := c.Lstat(c.Path("a")).Ino, c.Lstat(c.Path("d")).Ino
		c.Ok(c.rename2("a", "d", unix.RENAME_EXCHANGE), "renameat2")
		c.Holds(c.Path("d"), "a")
		c.Holds(c.Path("a", "in"), "inside")
		harness.Equal(c, c.Lstat(c.Path("a")).Ino, d, "inode of a")
		harness.Equal(c, c.Lstat(c.Path("d")).Ino, a, "inode of d")
		c.FdHolds(fd, "a")
		_, err := unix.Pwrite(inside, []byte("IN"), 0)
		c.Ok(err, "write to a file in the directory")
		c.Holds(c.Path("a", "in"), "INside")
		c.Errno(c.rename2("a", "absent", unix.RENAME_EXCHANGE), unix.ENOENT, "exchange with nothing")
	}},
	{name: "rename_whiteout", run: func(c *checkT) {
		c.Write(c.Path("a"), "a")
		c.Ok(c.rename2("a", "b", unix.RENAME_WHITEOUT), "renameat2")
		c.Holds(c.Path("b"), "a")
		st := c.Lstat(c.Path("a"))
		harness.Equal(c, st.Mode&unix.S_IFMT, unix.S_IFCHR, "kind of what is left")
		harness.Equal(c, st.Rdev, 0, "device of what is left")
	}},
	{name: "rename", run: func(c *checkT) {
		c.Write(c.Path("a"), "content")
		c.Mkdir(c.Path("d"))
		ino := c.Lstat(c.Path("a")).Ino
		c.Ok(unix.Rename(c.Path("a"), c.Path("b")), "rename")
		c.Absent(c.Path("a"))
		c.Ok(unix.Rename(c.Path("b"), c.Path("d", "c")), "rename to another directory")
		c.Absent(c.Path("b"))
		c.Holds(c.Path("d", "c"), "content")
		harness.Equal(c, c.Lstat(c.Path("d", "c")).Ino, ino, "inode")
		c.Ok(unix.Rename(c.Path("d"), c.Path("e")), "rename of the directory")
		c.Holds(c.Path("e", "c"), "content")
		c.Absent(c.Path("d", "c"))
		c.Holds(c.Native()+"/e/c", "content")
	}},
	{name: "rename_of_each_kind", run: func(c *checkT) {
		for _, name := range c.MakeOneOfEach(c.Dir) {
			before := c.Lstat(c.Path(name))
			c.Ok(unix.Rename(c.Path(name), c.Path("new")), "rename of the %s", name)
			c.Absent(c.Path(name))
			after := c.Lstat(c.Path("new"))
			harness.Equal(c, after.Ino, before.Ino, "inode of the %s", name)
			harness.Equal(c, after.Mode, before.Mode, "mode of the %s", name)
			c.Ok(os.Remove(c.Path("new")), "remove")
		}
	}},
	{name: "rename_over_a_file", run: func(c *checkT) {
		c.Write(c.Path("new"), "new content")
		c.Write(c.Path("old"), "old")
		c.Ok(unix.Link(c.Path("old"), c.Path("other")), "link")
		c.Ok(unix.Rename(c.Path("new"), c.Path("old")), "rename")
		c.Holds(c.Path("old"), "new content")
		c.Absent(c.Path("new"))
		c.Holds(c.Path("other"), "old")
		harness.Equal(c, uint64(c.Lstat(c.Path("other")).Nlink), 1, "links of the replaced file")
	}},
	{name: "rename_over_an_open_file", run: func(c *checkT) {
		c.Write(c.Path("new"), "new content")
		c.Write(c.Path("old"), "old")
		fd := c.Open(c.Path("old"), unix.O_RDWR, 0)
		c.Ok(unix.Rename(c.Path("new"), c.Path("old")), "rename")
		c.FdHolds(fd, "old")
		harness.Equal(c, uint64(c.Fstat(fd).Nlink), 0, "links of the replaced file")
		_, err := unix.Pwrite(fd, []byte("OLDER"), 0)
		c.Ok(err, "write to the replaced file")
		c.Ok(unix.Ftruncate(fd, 4), "ftruncate of the replaced file")
		c.FdHolds(fd, "OLDE")
		c.Holds(c.Path("old"), "new content")
	}},
	{name: "rename_of_an_open_file", run: func(c *checkT) {
		fd := c.Open(c.Path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Rename(c.Path("a"), c.Path("b")), "rename")
		_, err := unix.Write(fd, []byte("after the rename"))
		c.Ok(err, "write")
		c.Holds(c.Path("b"), "after the rename")
		c.Ok(unix.Fchmod(fd, 0o600), "fchmod")
		harness.Equal(c, c.Lstat(c.Path("b")).Mode&0o777, uint32(0o600), "mode")
		c.Write(c.Path("a"), "another")
		c.FdHolds(fd, "after the rename")
		c.Holds(c.Path("a"), "another")
	}},
	{name: "rename_swaps_by_three", run: func(c *checkT) {
		// Each name must follow its file, whatever is cached for it.
		c.Write(c.Path("a"), "was a")
		c.Write(c.Path("b"), "was b, longer")
		for range 5 {
			c.Ok(unix.Rename(c.Path("a"), c.Path("t")), "rename")
			c.Ok(unix.Rename(c.Path("b"), c.Path("a")), "rename")
			c.Ok(unix.Rename(c.Path("t"), c.Path("b")), "rename")
			c.Holds(c.Path("a"), "was b, longer")
			c.Holds(c.Path("b"), "was a")
			c.Ok(unix.Rename(c.Path("a"), c.Path("t")), "rename")
			c.Ok(unix.Rename(c.Path("b"), c.Path("a")), "rename")
			c.Ok(unix.Rename(c.Path("t"), c.Path("b")), "rename")
			c.Holds(c.Path("a"), "was a")
		}
	}},
	{name: "rename_to_itself", run: func(c *checkT) {
		c.Write(c.Path("a"), "x")
		c.Ok(unix.Link(c.Path("a"), c.Path("b")), "link")
		c.Ok(unix.Rename(c.Path("a"), c.Path("a")), "rename to the same name")
		// rename(2): two names of one file, nothing happens.
		c.Ok(unix.Rename(c.Path("a"), c.Path("b")), "rename to the other link")
		c.Holds(c.Path("a"), "x")
		c.Holds(c.Path("b"), "x")
	}},
	{name: "rename_directories", run: func(c *checkT) {
		for _, name := range []string{"d", "empty", "full"} {
			c.Mkdir(c.Path(name))
		}
		c.Write(c.Path("d", "f"), "moved")
		c.Write(c.Path("full", "g"), "")
		c.Write(c.Path("file"), "")
		c.Errno(unix.Rename(c.Path("d"), c.Path("full")), unix.ENOTEMPTY, "over a directory with entries")
		c.Errno(unix.Rename(c.Path("d"), c.Path("file")), unix.ENOTDIR, "directory over a file")
		c.Errno(unix.Rename(c.Path("file"), c.Path("empty")), unix.EISDIR, "file over a directory")
		c.Errno(unix.Rename(c.Path("d"), c.Path("d", "sub")), unix.EINVAL, "directory into itself")
		c.Mkdir(c.Path("d", "e"))
		c.Errno(unix.Rename(c.Path("d"), c.Path("d", "e", "sub")), unix.EINVAL, "directory into its child")
		c.Errno(unix.Rename(c.Path("d", "e"), c.Path("d")), unix.ENOTEMPTY, "directory over its parent")
		c.Errno(unix.Rename(c.Path("nothing"), c.Path("x")), unix.ENOENT, "nothing")
		c.Errno(unix.Rename(c.Path("file"), "/proc/self/x"), unix.EXDEV, "to another file system")
		c.Ok(unix.Rename(c.Path("d"), c.Path("empty")), "over an empty directory")
		c.Holds(c.Path("empty", "f"), "moved")
		c.Absent(c.Path("d"))
	}},
	{name: "rename_moves_dotdot", run: func(c *checkT) {
		c.Mkdir(c.Path("a"))
		c.Mkdir(c.Path("b"))
		c.Mkdir(c.Path("a", "d"))
		c.Ok(os.Chdir(c.Path("a", "d")), "chdir")
		c.Ok(unix.Rename(c.Path("a", "d"), c.Path("b", "d")), "rename")
		harness.Equal(c, c.Lstat("..").Ino, c.Lstat(c.Path("b")).Ino, "inode of ..")
		harness.Equal(c, uint64(c.Lstat(c.Path("a")).Nlink), uint64(c.Lstat(c.Native()+"/a").Nlink), "links of the old parent")
		harness.Equal(c, uint64(c.Lstat(c.Path("b")).Nlink), uint64(c.Lstat(c.Native()+"/b").Nlink), "links of the new parent")
		c.Write("here", "x")
		c.Holds(c.Path("b", "d", "here"), "x")
		c.Ok(os.Chdir("/"), "chdir back")
	}},
	{name: "rmdir", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "")
		c.Errno(unix.Rmdir(c.Path("d")), unix.ENOTEMPTY, "rmdir with entries")
		c.Ok(unix.Unlink(c.Path("d", "f")), "unlink")
		fd := c.Open(c.Path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.Ok(unix.Rmdir(c.Path("d")), "rmdir")
		c.Absent(c.Path("d"))
		// A removed directory that is still open has no entries and takes none.
		_, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		c.Errno(err, unix.ENOENT, "create in a removed directory")
		c.Fstat(fd)
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "again")
		c.Holds(c.Path("d", "f"), "again")
	}},
}
