package posix

import (
	"strconv"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// tmpfileChecks are about files that are made without a name.
var tmpfileChecks = []check{
	{name: "o_tmpfile", run: func(c *checkT) {
		fd := c.tmpfile(0)
		_, err := unix.Write(fd, []byte("content"))
		c.Ok(err, "write")
		c.FdHolds(fd, "content")
		st := c.Fstat(fd)
		harness.Equal(c, uint64(st.Nlink), 0, "links")
		harness.Equal(c, st.Mode, unix.S_IFREG|0o600, "mode")
		harness.Equal(c, st.Size, 7, "size")
	}},
	{name: "o_tmpfile_linked", run: func(c *checkT) {
		fd := c.tmpfile(0)
		_, err := unix.Write(fd, []byte("content"))
		c.Ok(err, "write")
		c.Ok(c.link(fd, "named"), "linkat")
		c.Holds(c.Path("named"), "content")
		harness.Equal(c, uint64(c.Fstat(fd).Nlink), 1, "links of the descriptor")
		_, err = unix.Pwrite(fd, []byte("CON"), 0)
		c.Ok(err, "write")
		c.Ok(unix.Close(fd), "close")
		c.Holds(c.Path("named"), "CONtent")
		c.Ok(unix.Unlink(c.Path("named")), "unlink")
		c.Absent(c.Path("named"))
	}},
	{name: "o_tmpfile_exclusive", run: func(c *checkT) {
		fd := c.tmpfile(unix.O_EXCL)
		c.Errno(c.link(fd, "named"), unix.ENOENT, "linkat of a file that must not get a name")
	}},
	{name: "o_tmpfile_numbers_are_used_again", run: func(c *checkT) {
		// A file with the number of a temporary one that is gone is another file.
		for i := range 50 {
			fd := c.tmpfile(0)
			_, err := unix.Write(fd, []byte("temporary"))
			c.Ok(err, "write")
			c.Ok(unix.Close(fd), "close")
			name := c.Path("f" + strconv.Itoa(i))
			c.Write(name, "kept")
			c.Holds(name, "kept")
		}
	}},
}

// tmpfile makes a file without a name.
func (c *checkT) tmpfile(flags int) int {
	return c.Open(c.Dir, unix.O_TMPFILE|unix.O_RDWR|flags, 0o600)
}

// link gives an open file a name.
func (c *checkT) link(fd int, name string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, c.Path(name), unix.AT_SYMLINK_FOLLOW)
}
