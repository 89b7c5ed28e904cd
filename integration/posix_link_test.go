package integration

import (
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// specialChecks are about what is neither a file nor a directory.
var specialChecks = []check{
	{name: "symlink", run: func(c *checkT) {
		for _, target := range []string{"t", "../..", "/absolute", "no such thing", "new\nline", "\xff",
			strings.Repeat("long/", 818) + "target"[:5]} {
			c.ok(unix.Symlink(target, c.path("s")), "symlink of %d bytes", len(target))
			buf := make([]byte, 5000)
			n, err := unix.Readlink(c.path("s"), buf)
			c.ok(err, "readlink")
			sameBytes(c, string(buf[:n]), target, "target")
			equal(c, c.lstat(c.path("s")).Size, int64(len(target)), "size")
			equal(c, c.lstat(c.path("s")).Mode, uint32(unix.S_IFLNK|0o777), "mode")
			n, err = unix.Readlink(c.path("s"), buf[:1])
			c.ok(err, "readlink to a short buffer")
			equal(c, string(buf[:n]), target[:1], "cut target")
			c.ok(unix.Unlink(c.path("s")), "unlink")
		}
	}},
	{name: "symlink_errors", run: func(c *checkT) {
		c.errno(unix.Symlink(strings.Repeat("x", 4096), c.path("s")), unix.ENAMETOOLONG, "target of 4096 bytes")
		c.errno(unix.Symlink("", c.path("s")), unix.ENOENT, "empty target")
		c.write(c.path("f"), "")
		_, err := unix.Readlink(c.path("f"), make([]byte, 10))
		c.errno(err, unix.EINVAL, "readlink of a file")
		c.ok(unix.Symlink("s", c.path("s")), "symlink to itself")
		_, err = unix.Open(c.path("s"), unix.O_RDONLY, 0)
		c.errno(err, unix.ELOOP, "open of a loop")
		c.ok(unix.Symlink("f", c.path("t")), "symlink")
		_, err = unix.Open(c.path("t"), unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		c.errno(err, unix.ELOOP, "open with O_NOFOLLOW")
	}},
	{name: "symlink_is_the_clients_to_follow", run: func(c *checkT) {
		// An absolute target is the client's own root, not the daemon's BACKING.
		c.ok(unix.Symlink("/proc/self/comm", c.path("s")), "symlink")
		want, err := os.ReadFile("/proc/self/comm")
		c.ok(err, "read")
		c.holds(c.path("s"), string(want))
		c.mkdir(c.path("d"))
		c.write(c.path("f"), "up")
		c.ok(unix.Symlink("../f", c.path("d", "up")), "symlink")
		c.holds(c.path("d", "up"), "up")
	}},
	{name: "fifo", run: func(c *checkT) {
		c.ok(unix.Mkfifo(c.path("p"), 0o600), "mkfifo")
		equal(c, c.lstat(c.path("p")).Mode, uint32(unix.S_IFIFO|0o600), "mode")
		_, err := unix.Open(c.path("p"), unix.O_WRONLY|unix.O_NONBLOCK, 0)
		c.errno(err, unix.ENXIO, "open for writing without a reader")
		// Another process writes; this one reads.
		writer := startClient(c, "fd", c.path("p"), "w")
		r, err := os.OpenFile(c.path("p"), os.O_RDONLY, 0)
		c.ok(err, "open")
		defer r.Close()
		writer.hear("open")
		equal(c, writer.ask("write through-the-fifo"), "16", "written")
		writer.wait()
		got, err := io.ReadAll(r)
		c.ok(err, "read")
		equal(c, string(got), "through-the-fifo", "what came")
	}},
	{name: "unix_socket", run: func(c *checkT) {
		// Socket addresses are short; the working directory makes them so.
		c.ok(os.Chdir(c.dir), "chdir")
		l, err := net.Listen("unix", "sock")
		c.ok(err, "listen")
		equal(c, c.lstat(c.path("sock")).Mode&unix.S_IFMT, uint32(unix.S_IFSOCK), "type")
		_, err = unix.Open("sock", unix.O_RDWR, 0)
		c.errno(err, unix.ENXIO, "open of a socket")
		go func() {
			conn, err := l.Accept()
			if err == nil {
				_, _ = io.Copy(conn, conn)
				conn.Close()
			}
		}()
		conn, err := net.Dial("unix", "sock")
		c.ok(err, "connect")
		_, err = conn.Write([]byte("echo"))
		c.ok(err, "send")
		got := make([]byte, 4)
		_, err = io.ReadFull(conn, got)
		c.ok(err, "receive")
		equal(c, string(got), "echo", "what came back")
		conn.Close()
		c.ok(l.Close(), "close")
		c.absent(c.path("sock"))
		c.ok(os.Chdir("/"), "chdir back")
	}},
	{name: "device_nodes", run: func(c *checkT) {
		null := int(unix.Mkdev(1, 3))
		c.ok(unix.Mknod(c.path("null"), unix.S_IFCHR|0o666, null), "mknod")
		st := c.lstat(c.path("null"))
		equal(c, st.Mode, uint32(unix.S_IFCHR|0o644), "mode")
		equal(c, st.Rdev, uint64(null), "device number")
		c.ok(unix.Mknod(c.path("big"), unix.S_IFBLK|0o600, int(unix.Mkdev(300, 70000))), "mknod")
		equal(c, c.lstat(c.path("big")).Rdev, unix.Mkdev(300, 70000), "big device number")
		fd := c.open(c.path("null"), unix.O_RDWR, 0)
		n, err := unix.Write(fd, []byte("away"))
		c.ok(err, "write to the device")
		equal(c, n, 4, "written")
		n, err = unix.Read(fd, make([]byte, 4))
		c.ok(err, "read from the device")
		equal(c, n, 0, "read")
	}},
	{name: "mknod_of_a_regular_file", run: func(c *checkT) {
		c.ok(unix.Mknod(c.path("f"), unix.S_IFREG|0o640, 0), "mknod")
		equal(c, c.lstat(c.path("f")).Mode, uint32(unix.S_IFREG|0o640), "mode")
		c.write(c.path("f"), "content")
		c.holds(c.path("f"), "content")
	}},
}

// linkChecks are about hard links.
var linkChecks = []check{
	{name: "link", run: func(c *checkT) {
		c.write(c.path("a"), "one")
		c.mkdir(c.path("d"))
		c.ok(unix.Link(c.path("a"), c.path("d", "b")), "link")
		for _, name := range []string{c.path("a"), c.path("d", "b"), c.native() + "/a"} {
			st := c.lstat(name)
			equal(c, uint64(st.Nlink), 2, "links")
			equal(c, st.Ino, c.lstat(c.path("a")).Ino, "inode")
		}
		fd := c.open(c.path("d", "b"), unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("two!"), 0)
		c.ok(err, "write by one name")
		c.holds(c.path("a"), "two!")
		equal(c, c.lstat(c.path("a")).Size, int64(4), "size by the other name")
		c.ok(unix.Chmod(c.path("a"), 0o600), "chmod")
		equal(c, c.lstat(c.path("d", "b")).Mode&0o777, uint32(0o600), "mode by the other name")
		c.ok(unix.Unlink(c.path("a")), "unlink")
		equal(c, uint64(c.fstat(fd).Nlink), 1, "links left, by the handle")
		equal(c, uint64(c.lstat(c.path("d", "b")).Nlink), 1, "links left")
		c.holds(c.path("d", "b"), "two!")
	}},
	{name: "link_while_open", run: func(c *checkT) {
		fd := c.open(c.path("a"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Link(c.path("a"), c.path("b")), "link")
		other := c.open(c.path("b"), unix.O_RDWR, 0)
		_, err := unix.Pwrite(fd, []byte("one mapping"), 0)
		c.ok(err, "write")
		c.fdHolds(other, "one mapping")
		c.ok(unix.Ftruncate(other, 3), "ftruncate")
		c.fdHolds(fd, "one")
	}},
	{name: "link_errors", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.mkdir(c.path("d"))
		c.errno(unix.Link(c.path("f"), c.path("f")), unix.EEXIST, "link over itself")
		c.errno(unix.Link(c.path("f"), c.path("d")), unix.EEXIST, "link over a directory")
		c.errno(unix.Link(c.path("d"), c.path("e")), unix.EPERM, "link of a directory")
		c.errno(unix.Link(c.path("nothing"), c.path("e")), unix.ENOENT, "link of nothing")
		c.errno(unix.Link(c.path("f"), "/dev/f"), unix.EXDEV, "link to another file system")
	}},
	{name: "link_of_symlink_and_fifo", run: func(c *checkT) {
		c.ok(unix.Symlink("nowhere", c.path("s")), "symlink")
		c.ok(unix.Link(c.path("s"), c.path("s2")), "link of a symlink")
		equal(c, c.lstat(c.path("s2")).Ino, c.lstat(c.path("s")).Ino, "inode")
		target, err := os.Readlink(c.path("s2"))
		c.ok(err, "readlink")
		equal(c, target, "nowhere", "target")
		c.ok(unix.Mkfifo(c.path("p"), 0o644), "mkfifo")
		c.ok(unix.Link(c.path("p"), c.path("p2")), "link of a fifo")
		equal(c, uint64(c.lstat(c.path("p")).Nlink), 2, "links")
	}},
	{name: "link_of_an_unlinked_file", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(unix.Unlink(c.path("f")), "unlink")
		err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+itoa(fd), unix.AT_FDCWD, c.path("g"), unix.AT_SYMLINK_FOLLOW)
		c.errno(err, unix.ENOENT, "linkat")
	}},
}
