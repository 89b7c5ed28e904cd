package posix

import (
	"bytes"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// readsCount sets the access time of a file or directory back, calls read, and checks
// whether the time says that it was read.
func (c *checkT) readsCount(path string, counts bool, what string, read func()) {
	past := []unix.Timespec{harness.LongAgo, {Nsec: unix.UTIME_OMIT}}
	c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, path, past, 0), "utimensat")
	harness.Equal(c, c.Lstat(path).Atim, harness.LongAgo, "atime that was set")
	read()
	atime := c.Lstat(path).Atim
	if recent := time.Since(time.Unix(atime.Unix())) < time.Minute; recent != counts {
		c.Fatalf("%s: atime is %v, the read counts: want %v", what, time.Unix(atime.Unix()), counts)
	}
}

// readAll opens a file, reads all of it and closes it. What was written just before
// comes from the daemon, and not from the kernel's cache.
func (c *checkT) readAll(path string, flags int) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	c.Ok(err, "open")
	defer unix.Close(fd)
	c.readFD(fd)
}

func (c *checkT) readFD(fd int) {
	// Past the kernel's cache of the mount.
	c.Ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := unix.Pread(fd, buf, off)
		c.Ok(err, "pread")
		if n == 0 {
			return
		}
		off += int64(n)
	}
}

// atimeChecks are about access times (mount(8): relatime).
var atimeChecks = []check{
	{name: "atime_of_reads", run: func(c *checkT) {
		// Small ones and large ones, first ones and later ones: of a mapping and past it.
		for _, size := range []int{1, 5000, 300_000} {
			c.Write(c.Path("f"), string(bytes.Repeat([]byte("x"), size)))
			for range 3 {
				c.readsCount(c.Path("f"), true, "read", func() { c.readAll(c.Path("f"), 0) })
			}
			fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
			for range 3 {
				c.readsCount(c.Path("f"), true, "read by a descriptor", func() { c.readFD(fd) })
				_, err := unix.Pwrite(fd, []byte("y"), 0)
				c.Ok(err, "pwrite")
			}
		}
	}},
	{name: "atime_of_the_second_read", run: func(c *checkT) {
		c.Write(c.Path("f"), "some bytes")
		c.readsCount(c.Path("f"), true, "the first", func() { c.readAll(c.Path("f"), 0) })
		first := c.Lstat(c.Path("f"))
		harness.Tick()
		c.readAll(c.Path("f"), 0)
		harness.Equal(c, c.Lstat(c.Path("f")).Atim, first.Atim, "atime after the second read")
		harness.Equal(c, c.Lstat(c.Path("f")).Ctim, first.Ctim, "ctime after reads")
	}},
	{name: "atime_of_writes", run: func(c *checkT) {
		page := bytes.Repeat([]byte("x"), os.Getpagesize())
		c.Write(c.Path("f"), string(page))
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		for i := range int64(3) {
			c.readsCount(c.Path("f"), false, "write of a page, fsync", func() {
				_, err := unix.Pwrite(fd, page, i*int64(len(page)))
				c.Ok(err, "pwrite")
				c.Ok(unix.Fsync(fd), "fsync")
			})
		}
	}},
	// The kernel's own cache reads the page of which a write changes a part.
	{name: "atime_of_small_writes", writeThrough: true, run: func(c *checkT) {
		c.Write(c.Path("f"), string(bytes.Repeat([]byte("x"), 5000)))
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		for _, size := range []int64{1, 5000, 20_000, 100} {
			c.readsCount(c.Path("f"), false, "write, truncation, fsync", func() {
				for i := range 3 {
					_, err := unix.Pwrite(fd, []byte("y"), int64(i))
					c.Ok(err, "pwrite")
				}
				c.Ok(unix.Ftruncate(fd, size), "ftruncate")
				c.Ok(unix.Fsync(fd), "fsync")
			})
		}
	}},
	{name: "atime_of_O_NOATIME", run: func(c *checkT) {
		for _, size := range []int{1, 5000, 300_000} {
			c.Write(c.Path("f"), string(bytes.Repeat([]byte("x"), size)))
			for range 3 {
				c.readsCount(c.Path("f"), false, "O_NOATIME", func() { c.readAll(c.Path("f"), unix.O_NOATIME) })
			}
			// Beside somebody whose reads count.
			fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
			for range 2 {
				c.readsCount(c.Path("f"), true, "without", func() { c.readFD(fd) })
				c.readsCount(c.Path("f"), false, "O_NOATIME beside it", func() { c.readAll(c.Path("f"), unix.O_NOATIME) })
			}
		}
	}},
	{name: "atime_of_O_NOATIME_set_later", notPassed: true, run: func(c *checkT) {
		c.Write(c.Path("f"), "some bytes")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		for _, quiet := range []int{unix.O_NOATIME, 0, unix.O_NOATIME} {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, quiet)
			c.Ok(err, "fcntl")
			c.readsCount(c.Path("f"), quiet == 0, "after fcntl(F_SETFL)", func() { c.readFD(fd) })
		}
	}},
	{name: "atime_O_NOATIME_is_for_owners", run: func(c *checkT) {
		c.Write(c.Path("f"), "root's")
		c.Ok(unix.Chmod(c.Path("f"), 0o666), "chmod")
		c.Write(c.Path("hers"), "alice's")
		c.Ok(unix.Chown(c.Path("hers"), harness.Alice, harness.AliceGroup), "chown")
		c.As(harness.Alice, harness.AliceGroup, func() {
			_, err := unix.Open(c.Path("f"), unix.O_RDONLY|unix.O_NOATIME, 0)
			c.Errno(err, unix.EPERM, "O_NOATIME for somebody else's file")
			fd, err := unix.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Ok(err, "open")
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NOATIME)
			c.Errno(err, unix.EPERM, "fcntl(O_NOATIME)")
			unix.Close(fd)
			c.readsCount(c.Path("hers"), false, "O_NOATIME of the owner", func() { c.readAll(c.Path("hers"), unix.O_NOATIME) })
		})
	}},
	{name: "atime_of_a_mapping", run: func(c *checkT) {
		c.Write(c.Path("f"), string(bytes.Repeat([]byte("x"), 5000)))
		c.readsCount(c.Path("f"), true, "a load from a mapping", func() {
			fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
			mem, err := syscall.Mmap(fd, 0, 5000, unix.PROT_READ, unix.MAP_SHARED)
			c.Ok(err, "mmap")
			harness.Equal(c, mem[0], 'x', "loaded byte")
			c.Ok(syscall.Munmap(mem), "munmap")
		})
	}},
	{name: "atime_of_a_directory", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "")
		list := func(flags int) func() {
			return func() {
				fd, err := unix.Open(c.Path("d"), unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
				c.Ok(err, "open")
				d := os.NewFile(uintptr(fd), "d")
				defer d.Close()
				_, err = d.ReadDir(-1)
				c.Ok(err, "readdir")
			}
		}
		c.readsCount(c.Path("d"), true, "readdir", list(0))
		c.readsCount(c.Path("d"), false, "readdir with O_NOATIME", list(unix.O_NOATIME))
	}},
	{name: "atime_that_was_set", run: func(c *checkT) {
		c.Write(c.Path("f"), "some bytes")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		c.readFD(fd)
		want := []unix.Timespec{{Sec: 5000, Nsec: 7}, {Sec: 4000, Nsec: 8}}
		c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), want, 0), "utimensat")
		st := c.Fstat(fd)
		harness.Equal(c, st.Atim, want[0], "atime")
		harness.Equal(c, st.Mtim, want[1], "mtime")
	}},
}
