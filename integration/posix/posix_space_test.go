package posix

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// spaceChecks are about allocation.
var spaceChecks = []check{
	{name: "fallocate", run: func(c *checkT) {
		p := int64(os.Getpagesize())
		full := bytes.Repeat([]byte{0xaa}, int(8*p))
		for _, mode := range []struct {
			name  string
			flags uint32
			grows bool // beyond the end of the file
			zeros bool // the range inside the file
		}{
			{"allocate", 0, true, false},
			{"keep_size", unix.FALLOC_FL_KEEP_SIZE, false, false},
			{"punch_hole", unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, false, true},
			{"zero_range", unix.FALLOC_FL_ZERO_RANGE, true, true},
			{"zero_range_keep_size", unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE, false, true},
		} {
			for _, r := range [][2]int64{{0, p}, {p, 2 * p}, {1, p}, {p - 1, 2}, {100, 5 * p}, {7*p + 1, 3 * p},
				{8 * p, p}, {20 * p, 1}} {
				what := fmt.Sprintf("%s of [%d, %d)", mode.name, r[0], r[0]+r[1])
				fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o644)
				_, err := unix.Pwrite(fd, full, 0)
				c.Ok(err, "pwrite")
				err = unix.Fallocate(fd, mode.flags, r[0], r[1])
				if other := c.nativeFallocate(mode.flags, r[0], r[1]); other != nil {
					// What the native file system cannot do, the mount cannot.
					harness.Equal(c, fmt.Sprint(err), fmt.Sprint(other), "%s", what)
					continue
				}
				c.Ok(err, "%s", what)
				want := bytes.Clone(full)
				if end := int(r[0] + r[1]); mode.grows && end > len(want) {
					want = append(want, make([]byte, end-len(want))...)
				}
				if mode.zeros {
					from := min(int(r[0]), len(want))
					clear(want[from:min(from+int(r[1]), len(want))])
				}
				harness.Equal(c, c.Fstat(fd).Size, int64(len(want)), "size after %s", what)
				c.FdHolds(fd, string(want))
				c.Holds(c.Native()+"/f", string(want))
			}
		}
	}},
	{name: "fallocate_frees_and_takes_space", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		if err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20); err != nil {
			c.Fatalf("fallocate: %v", err)
		}
		if got := c.Fstat(fd).Blocks; got < 1<<20/512 {
			c.Fatalf("1 MiB allocated, but only %d blocks", got)
		}
		harness.Equal(c, c.Fstat(fd).Size, int64(0), "size")
		c.Ok(unix.Ftruncate(fd, 1<<20), "ftruncate")
		c.Ok(unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20), "punch")
		if got := c.Fstat(fd).Blocks; got > 64 {
			c.Fatalf("everything punched, but %d blocks are left", got)
		}
	}},
	{name: "fallocate_errors", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		w := c.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Errno(unix.Fallocate(w, 0, -1, 1), unix.EINVAL, "negative offset")
		c.Errno(unix.Fallocate(w, 0, 0, 0), unix.EINVAL, "no length")
		r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.Errno(unix.Fallocate(r, 0, 0, 10), unix.EBADF, "read-only descriptor")
		c.FdHolds(w, "data")
	}},
	{name: "lseek", run: func(c *checkT) {
		c.Write(c.Path("f"), "0123456789")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		for _, row := range []struct {
			off    int64
			whence int
			want   int64
		}{
			{4, unix.SEEK_SET, 4}, {3, unix.SEEK_CUR, 7}, {-2, unix.SEEK_END, 8}, {90, unix.SEEK_END, 100},
			{0, unix.SEEK_DATA, 0}, {3, unix.SEEK_DATA, 3}, {0, unix.SEEK_HOLE, 10},
		} {
			got, err := unix.Seek(fd, row.off, row.whence)
			c.Ok(err, "lseek %d from %d", row.off, row.whence)
			harness.Equal(c, got, row.want, "lseek %d from %d", row.off, row.whence)
		}
		_, err := unix.Seek(fd, -1, unix.SEEK_SET)
		c.Errno(err, unix.EINVAL, "lseek to -1")
		for _, whence := range []int{unix.SEEK_DATA, unix.SEEK_HOLE} {
			_, err = unix.Seek(fd, 11, whence)
			c.Errno(err, unix.ENXIO, "lseek past the end from %d", whence)
		}
		// SEEK_END follows a change by another descriptor.
		other := c.Open(c.Path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		_, err = unix.Write(other, []byte("more"))
		c.Ok(err, "append")
		got, err := unix.Seek(fd, 0, unix.SEEK_END)
		c.Ok(err, "lseek")
		harness.Equal(c, got, int64(14), "the end")
	}},
	{name: "seek_data_never_skips_data", run: func(c *checkT) {
		// Holes may be reported as data, never data as a hole.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		const at = 8 << 20
		_, err := unix.Pwrite(fd, []byte("data"), at)
		c.Ok(err, "pwrite")
		c.Ok(unix.Ftruncate(fd, 2*at), "ftruncate")
		data, err := unix.Seek(fd, 0, unix.SEEK_DATA)
		c.Ok(err, "SEEK_DATA")
		if data > at {
			c.Fatalf("SEEK_DATA says %d, but there is data at %d", data, at)
		}
		hole, err := unix.Seek(fd, at, unix.SEEK_HOLE)
		c.Ok(err, "SEEK_HOLE")
		if hole < at+4 {
			c.Fatalf("SEEK_HOLE says %d, inside the data", hole)
		}
	}},
	{name: "no_space_in_a_name_only", run: func(c *checkT) {
		// Blocks are those of the file below, not guessed from the size.
		c.Write(c.Path("f"), strings.Repeat("x", 100_000))
		c.Ok(syncFile(c.Path("f")), "fsync")
		harness.Equal(c, c.Lstat(c.Path("f")).Blocks, c.Lstat(c.Native()+"/f").Blocks, "blocks")
		harness.Equal(c, c.Lstat(c.Path("f")).Blksize, c.Lstat(c.Native()+"/f").Blksize, "block size")
	}},
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// nativeFallocate is the answer of the file system below to the same call.
func (c *checkT) nativeFallocate(flags uint32, off, length int64) error {
	fd, err := unix.Open(c.Native()+"/native", unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o644)
	c.Ok(err, "open the native file")
	defer unix.Close(fd)
	c.Ok(unix.Ftruncate(fd, int64(8*os.Getpagesize())), "ftruncate the native file")
	return unix.Fallocate(fd, flags, off, length)
}
