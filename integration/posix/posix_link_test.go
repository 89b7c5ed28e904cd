package posix

import (
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// specialChecks are about what is neither a file nor a directory.
var specialChecks = []check{
	{name: "symlink", run: func(c *checkT) {
		for _, target := range []string{"t", "../..", "/absolute", "no such thing", "new\nline", "\xff",
			strings.Repeat("long/", 818) + "target"[:5]} {
			c.Ok(unix.Symlink(target, c.Path("s")), "symlink of %d bytes", len(target))
			buf := make([]byte, 5000)
			n, err := unix.Readlink(c.Path("s"), buf)
			c.Ok(err, "readlink")
			harness.SameBytes(c, string(buf[:n]), target, "target")
			harness.Equal(c, c.Lstat(c.Path("s")).Size, int64(len(target)), "size")
			harness.Equal(c, c.Lstat(c.Path("s")).Mode, uint32(unix.S_IFLNK|0o777), "mode")
			n, err = unix.Readlink(c.Path("s"), buf[:1])
			c.Ok(err, "readlink to a short buffer")
			harness.Equal(c, string(buf[:n]), target[:1], "cut target")
			c.Ok(unix.Unlink(c.Path("s")), "unlink")
		}
	}},
	{name: "symlink_errors", run: func(c *checkT) {
		c.Errno(unix.Symlink(strings.Repeat("x", 4096), c.Path("s")), unix.ENAMETOOLONG, "target of 4096 bytes")
		c.Errno(unix.Symlink("", c.Path("s")), unix.ENOENT, "empty target")
		c.Write(c.Path("f"), "")
		_, err := unix.Readlink(c.Path("f"), make([]byte, 10))
		c.Errno(err, unix.EINVAL, "readlink of a file")
		c.Ok(unix.Symlink("s", c.Path("s")), "symlink to itself")
		_, err = unix.Open(c.Path("s"), unix.O_RDONLY, 0)
		c.Errno(err, unix.ELOOP, "open of a loop")
		c.Ok(unix.Symlink("f", c.Path("t")), "symlink")
		_, err = unix.Open(c.Path("t"), unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		c.Errno(err, unix.ELOOP, "open with O_NOFOLLOW")
	}},
	{name: "symlink_is_the_clients_to_follow", run: func(c *checkT) {
		// An absolute target is the client's own root, not the daemon's BACKING.
		c.Ok(unix.Symlink("/proc/self/comm", c.Path("s")), "symlink")
		want, err := os.ReadFile("/proc/self/comm")
		c.Ok(err, "read")
		c.Holds(c.Path("s"), string(want))
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("f"), "up")
		c.Ok(unix.Symlink("../f", c.Path("d", "up")), "symlink")
		c.Holds(c.Path("d", "up"), "up")
	}},
	{name: "fifo", run: func(c *checkT) {
		c.Ok(unix.Mkfifo(c.Path("p"), 0o600), "mkfifo")
		harness.Equal(c, c.Lstat(c.Path("p")).Mode, uint32(unix.S_IFIFO|0o600), "mode")
		_, err := unix.Open(c.Path("p"), unix.O_WRONLY|unix.O_NONBLOCK, 0)
		c.Errno(err, unix.ENXIO, "open for writing without a reader")
		// Another process writes; this one reads.
		writer := harness.StartClient(c, "fd", c.Path("p"), "w")
		r, err := os.OpenFile(c.Path("p"), os.O_RDONLY, 0)
		c.Ok(err, "open")
		defer r.Close()
		writer.Hear("open")
		harness.Equal(c, writer.Ask("write through-the-fifo"), "16", "written")
		writer.Wait()
		got, err := io.ReadAll(r)
		c.Ok(err, "read")
		harness.Equal(c, string(got), "through-the-fifo", "what came")
	}},
	{name: "unix_socket", run: func(c *checkT) {
		// Socket addresses are short; the working directory makes them so.
		c.Ok(os.Chdir(c.Dir), "chdir")
		l, err := net.Listen("unix", "sock")
		c.Ok(err, "listen")
		harness.Equal(c, c.Lstat(c.Path("sock")).Mode&unix.S_IFMT, uint32(unix.S_IFSOCK), "type")
		_, err = unix.Open("sock", unix.O_RDWR, 0)
		c.Errno(err, unix.ENXIO, "open of a socket")
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}
		}()
		conn, err := net.Dial("unix", "sock")
		c.Ok(err, "connect")
		_, err = conn.Write([]byte("echo"))
		c.Ok(err, "send")
		got := make([]byte, 4)
		_, err = io.ReadFull(conn, got)
		c.Ok(err, "receive")
		harness.Equal(c, string(got), "echo", "what came back")
		conn.Close()
		c.Ok(l.Close(), "close")
		c.Absent(c.Path("sock"))
		c.Ok(os.Chdir("/"), "chdir back")
	}},
	{name: "device_nodes", run: func(c *checkT) {
		null := int(unix.Mkdev(1, 3))
		c.Ok(unix.Mknod(c.Path("null"), unix.S_IFCHR|0o666, null), "mknod")
		st := c.Lstat(c.Path("null"))
		harness.Equal(c, st.Mode, uint32(unix.S_IFCHR|0o644), "mode")
		harness.Equal(c, st.Rdev, uint64(null), "device number")
		c.Ok(unix.Mknod(c.Path("big"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70000))), "mknod")
		harness.Equal(c, c.Lstat(c.Path("big")).Rdev, unix.Mkdev(300, 70000), "big device number")
		fd := c.Open(c.Path("null"), unix.O_RDWR, 0)
		n, err := unix.Write(fd, []byte("away"))
		c.Ok(err, "write to the device")
		harness.Equal(c, n, 4, "written")
		n, err = unix.Read(fd, make([]byte, 4))
		c.Ok(err, "read from the device")
		harness.Equal(c, n, 0, "read")
	}},
	{name: "mknod_of_a_regular_file", run: func(c *checkT) {
		c.Ok(unix.Mknod(c.Path("f"), unix.S_IFREG|0o640, 0), "mknod")
		harness.Equal(c, c.Lstat(c.Path("f")).Mode, uint32(unix.S_IFREG|0o640), "mode")
		c.Write(c.Path("f"), "content")
		c.Holds(c.Path("f"), "content")
	}},
}

// linkChecks are about hard links.
var linkChecks = []check{
	{name: "link", run: func(c *checkT) {
		c.Write(c.Path("a"), "one")
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Link(c.Path("a"), c.Path("d", "b")), "link")
		for _, name := range []string{c.Path("a"), c.Path("d", "b"), c.Native() + "/a"} {
			st := c.Lstat(name)
			harness.Equal(c, uint64(st.Nlink), 2, "links")
			harness.Equal(c, st.Ino, c.Lstat(c.Path("a")).Ino, "inode")
		}
		fd := c.Open(c.Path("d", "b"), unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("two!"), 0)
		c.Ok(err, "write by one name")
		c.Holds(c.Path("a"), "two!")
		harness.Equal(c, c.Lstat(c.Path("a")).Size, int64(4), "size by the other name")
		c.Ok(unix.Chmod(c.Path("a"), 0o600), "chmod")
		harness.Equal(c, c.Lstat(c.Path("d", "b")).Mode&0o777, uint32(0o600), "mode by the other name")
		c.Ok(unix.Unlink(c.Path("a")), "unlink")
		harness.Equal(c, uint64(c.Fstat(fd).Nlink), 1, "links left, by the handle")
		harness.Equal(c, uint64(c.Lstat(c.Path("d", "b")).Nlink), 1, "links left")
		c.Holds(c.Path("d", "b"), "two!")
	}},
	{name: "link_while_open", run: func(c *checkT) {
		fd := c.Open(c.Path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Link(c.Path("a"), c.Path("b")), "link")
		other := c.Open(c.Path("b"), unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("one mapping"), 0)
		c.Ok(err, "write")
		c.FdHolds(other, "one mapping")
		c.Ok(unix.Ftruncate(other, 3), "ftruncate")
		c.FdHolds(fd, "one")
	}},
	{name: "link_errors", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Mkdir(c.Path("d"))
		c.Errno(unix.Link(c.Path("f"), c.Path("f")), unix.EEXIST, "link over itself")
		c.Errno(unix.Link(c.Path("f"), c.Path("d")), unix.EEXIST, "link over a directory")
		c.Errno(unix.Link(c.Path("d"), c.Path("e")), unix.EPERM, "link of a directory")
		c.Errno(unix.Link(c.Path("nothing"), c.Path("e")), unix.ENOENT, "link of nothing")
		c.Errno(unix.Link(c.Path("f"), "/dev/f"), unix.EXDEV, "link to another file system")
	}},
	{name: "link_of_symlink_and_fifo", run: func(c *checkT) {
		c.Ok(unix.Symlink("nowhere", c.Path("s")), "symlink")
		c.Ok(unix.Link(c.Path("s"), c.Path("s2")), "link of a symlink")
		harness.Equal(c, c.Lstat(c.Path("s2")).Ino, c.Lstat(c.Path("s")).Ino, "inode")
		target, err := os.Readlink(c.Path("s2"))
		c.Ok(err, "readlink")
		harness.Equal(c, target, "nowhere", "target")
		c.Ok(unix.Mkfifo(c.Path("p"), 0o644), "mkfifo")
		c.Ok(unix.Link(c.Path("p"), c.Path("p2")), "link of a fifo")
		harness.Equal(c, uint64(c.Lstat(c.Path("p")).Nlink), 2, "links")
	}},
	{name: "link_of_an_unlinked_file", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), unix.AT_FDCWD, c.Path("g"), unix.AT_SYMLINK_FOLLOW)
		c.Errno(err, unix.ENOENT, "linkat")
	}},
}
