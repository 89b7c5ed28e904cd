package integration

import (
	"bytes"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// longAgo is an access time that the next read changes, because it is before that of
// the last change.
var longAgo = unix.Timespec{Sec: 1000}

// readsCount sets the access time of a file or directory back, calls read, and checks
// whether the time says that it was read.
func (c *checkT) readsCount(path string, counts bool, what string, read func()) {
	past := []unix.Timespec{longAgo, {Nsec: unix.UTIME_OMIT}}
	c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, path, past, 0), "utimensat")
	equal(c, c.lstat(path).Atim, longAgo, "atime that was set")
	read()
	atime := c.lstat(path).Atim
	if recent := time.Since(time.Unix(atime.Unix())) < time.Minute; recent != counts {
		c.Fatalf("%s: atime is %v, the read counts: want %v", what, time.Unix(atime.Unix()), counts)
	}
}

// readAll opens a file, reads all of it and closes it. What was written just before
// comes from the daemon, and not from the kernel's cache.
func (c *checkT) readAll(path string, flags int) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	c.ok(err, "open")
	defer unix.Close(fd)
	c.readFD(fd)
}

func (c *checkT) readFD(fd int) {
	// Past the kernel's cache of the mount.
	c.ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := unix.Pread(fd, buf, off)
		c.ok(err, "pread")
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
			c.write(c.path("f"), string(bytes.Repeat([]byte("x"), size)))
			for range 3 {
				c.readsCount(c.path("f"), true, "read", func() { c.readAll(c.path("f"), 0) })
			}
			fd := c.open(c.path("f"), unix.O_RDWR, 0)
			for range 3 {
				c.readsCount(c.path("f"), true, "read by a descriptor", func() { c.readFD(fd) })
				_, err := unix.Pwrite(fd, []byte("y"), 0)
				c.ok(err, "pwrite")
			}
		}
	}},
	{name: "atime_of_the_second_read", run: func(c *checkT) {
		c.write(c.path("f"), "some bytes")
		c.readsCount(c.path("f"), true, "the first", func() { c.readAll(c.path("f"), 0) })
		first := c.lstat(c.path("f"))
		tick()
		c.readAll(c.path("f"), 0)
		equal(c, c.lstat(c.path("f")).Atim, first.Atim, "atime after the second read")
		equal(c, c.lstat(c.path("f")).Ctim, first.Ctim, "ctime after reads")
	}},
	{name: "atime_of_writes", run: func(c *checkT) {
		page := bytes.Repeat([]byte("x"), os.Getpagesize())
		c.write(c.path("f"), string(page))
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		for i := range int64(3) {
			c.readsCount(c.path("f"), false, "write of a page, fsync", func() {
				_, err := unix.Pwrite(fd, page, i*int64(len(page)))
				c.ok(err, "pwrite")
				c.ok(unix.Fsync(fd), "fsync")
			})
		}
	}},
	// The kernel's own cache reads the page of which a write changes a part.
	{name: "atime_of_small_writes", writeThrough: true, run: func(c *checkT) {
		c.write(c.path("f"), string(bytes.Repeat([]byte("x"), 5000)))
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		for _, size := range []int64{1, 5000, 20_000, 100} {
			c.readsCount(c.path("f"), false, "write, truncation, fsync", func() {
				for i := range 3 {
					_, err := unix.Pwrite(fd, []byte("y"), int64(i))
					c.ok(err, "pwrite")
				}
				c.ok(unix.Ftruncate(fd, size), "ftruncate")
				c.ok(unix.Fsync(fd), "fsync")
			})
		}
	}},
	{name: "atime_of_O_NOATIME", run: func(c *checkT) {
		for _, size := range []int{1, 5000, 300_000} {
			c.write(c.path("f"), string(bytes.Repeat([]byte("x"), size)))
			for range 3 {
				c.readsCount(c.path("f"), false, "O_NOATIME", func() { c.readAll(c.path("f"), unix.O_NOATIME) })
			}
			// Beside somebody whose reads count.
			fd := c.open(c.path("f"), unix.O_RDONLY, 0)
			for range 2 {
				c.readsCount(c.path("f"), true, "without", func() { c.readFD(fd) })
				c.readsCount(c.path("f"), false, "O_NOATIME beside it", func() { c.readAll(c.path("f"), unix.O_NOATIME) })
			}
		}
	}},
	{name: "atime_of_O_NOATIME_set_later", run: func(c *checkT) {
		c.write(c.path("f"), "some bytes")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		for _, quiet := range []int{unix.O_NOATIME, 0, unix.O_NOATIME} {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, quiet)
			c.ok(err, "fcntl")
			c.readsCount(c.path("f"), quiet == 0, "after fcntl(F_SETFL)", func() { c.readFD(fd) })
		}
	}},
	{name: "atime_O_NOATIME_is_for_owners", run: func(c *checkT) {
		c.write(c.path("f"), "root's")
		c.ok(unix.Chmod(c.path("f"), 0o666), "chmod")
		c.write(c.path("hers"), "alice's")
		c.ok(unix.Chown(c.path("hers"), alice, aliceGroup), "chown")
		c.as(alice, aliceGroup, func() {
			_, err := unix.Open(c.path("f"), unix.O_RDONLY|unix.O_NOATIME, 0)
			c.errno(err, unix.EPERM, "O_NOATIME for somebody else's file")
			fd, err := unix.Open(c.path("f"), unix.O_RDONLY, 0)
			c.ok(err, "open")
			_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NOATIME)
			c.errno(err, unix.EPERM, "fcntl(O_NOATIME)")
			unix.Close(fd)
			c.readsCount(c.path("hers"), false, "O_NOATIME of the owner", func() { c.readAll(c.path("hers"), unix.O_NOATIME) })
		})
	}},
	{name: "atime_of_a_mapping", run: func(c *checkT) {
		c.write(c.path("f"), string(bytes.Repeat([]byte("x"), 5000)))
		c.readsCount(c.path("f"), true, "a load from a mapping", func() {
			fd := c.open(c.path("f"), unix.O_RDONLY, 0)
			c.ok(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), "fadvise")
			mem, err := syscall.Mmap(fd, 0, 5000, unix.PROT_READ, unix.MAP_SHARED)
			c.ok(err, "mmap")
			equal(c, mem[0], 'x', "loaded byte")
			c.ok(syscall.Munmap(mem), "munmap")
		})
	}},
	{name: "atime_of_a_directory", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "")
		list := func(flags int) func() {
			return func() {
				fd, err := unix.Open(c.path("d"), unix.O_RDONLY|unix.O_DIRECTORY|flags, 0)
				c.ok(err, "open")
				d := os.NewFile(uintptr(fd), "d")
				defer d.Close()
				_, err = d.ReadDir(-1)
				c.ok(err, "readdir")
			}
		}
		c.readsCount(c.path("d"), true, "readdir", list(0))
		c.readsCount(c.path("d"), false, "readdir with O_NOATIME", list(unix.O_NOATIME))
	}},
	{name: "atime_that_was_set", run: func(c *checkT) {
		c.write(c.path("f"), "some bytes")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		c.readFD(fd)
		want := []unix.Timespec{{Sec: 5000, Nsec: 7}, {Sec: 4000, Nsec: 8}}
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), want, 0), "utimensat")
		st := c.fstat(fd)
		equal(c, st.Atim, want[0], "atime")
		equal(c, st.Mtim, want[1], "mtime")
	}},
}
