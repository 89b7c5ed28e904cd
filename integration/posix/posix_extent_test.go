package posix

import (
	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// extentChecks are about holes, and about copies that need not pass through memory.
var extentChecks = []check{
	{name: "seek_data_and_hole", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.sparse(fd, 1<<20, 256<<10, 64<<10)
		c.seeks(fd, unix.SEEK_DATA, 0, 256<<10)
		c.seeks(fd, unix.SEEK_HOLE, 0, 0)
		c.seeks(fd, unix.SEEK_DATA, 256<<10+5, 256<<10+5)
		c.seeks(fd, unix.SEEK_HOLE, 256<<10, 320<<10)
		_, err := unix.Seek(fd, 320<<10, unix.SEEK_DATA)
		c.Errno(err, unix.ENXIO, "SEEK_DATA after the last data")
		_, err = unix.Seek(fd, 1<<20, unix.SEEK_HOLE)
		c.Errno(err, unix.ENXIO, "SEEK_HOLE at the end")
	}},
	{name: "seek_without_holes", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.seeks(fd, unix.SEEK_DATA, 2, 2)
		c.seeks(fd, unix.SEEK_HOLE, 0, 4)
	}},
	{name: "seek_data_after_a_store", run: func(c *checkT) {
		// The kernel has not sent the page when it asks where the data is.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(unix.Ftruncate(fd, 1<<20), "ftruncate")
		mem, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.Ok(err, "mmap")
		defer func() { _ = unix.Munmap(mem) }()
		mem[512<<10] = 1
		at, err := unix.Seek(fd, 0, unix.SEEK_DATA)
		c.Ok(err, "SEEK_DATA")
		if at > 512<<10 {
			c.Fatalf("SEEK_DATA from 0: %d, past the store at %d", at, 512<<10)
		}
	}},
	{name: "copy_file_range_inside_a_file", run: func(c *checkT) {
		c.Write(c.Path("f"), "0123456789")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		from, to := int64(2), int64(20)
		n, err := unix.CopyFileRange(fd, &from, fd, &to, 4, 0)
		c.Ok(err, "copy_file_range")
		harness.Equal(c, n, 4, "bytes copied")
		c.FdHolds(fd, "0123456789\x00\x00\x00\x00\x00\x00\x00\x00\x00\x002345")
	}},
	{name: "copy_file_range_past_the_end", run: func(c *checkT) {
		c.Write(c.Path("f"), "0123456789")
		from := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		to := c.Open(c.Path("g"), unix.O_CREAT|unix.O_RDWR, 0o644)
		off := int64(8)
		n, err := unix.CopyFileRange(from, &off, to, nil, 100, 0)
		c.Ok(err, "copy_file_range")
		harness.Equal(c, n, 2, "bytes copied")
		c.FdHolds(to, "89")
		n, err = unix.CopyFileRange(from, &off, to, nil, 100, 0)
		c.Ok(err, "copy_file_range at the end")
		harness.Equal(c, n, 0, "bytes copied at the end")
	}},
}

// sparse makes a file of the given size that has data of a length at off alone.
func (c *checkT) sparse(fd int, size, off, length int64) {
	c.Ok(unix.Ftruncate(fd, size), "ftruncate")
	data := make([]byte, length)
	for i := range data {
		data[i] = 'x'
	}
	_, err := unix.Pwrite(fd, data, off)
	c.Ok(err, "pwrite")
}

// seeks checks where lseek(2) gets to.
func (c *checkT) seeks(fd, whence int, from, want int64) {
	at, err := unix.Seek(fd, from, whence)
	c.Ok(err, "lseek %d from %d", whence, from)
	harness.Equal(c, at, want, "lseek %d from %d", whence, from)
}
