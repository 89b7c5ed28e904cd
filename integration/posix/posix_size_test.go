package posix

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// sizeChecks are about truncation and holes: what lies beyond the old end of a
// file must read as zeros, whatever lay there before.
var sizeChecks = []check{
	{name: "truncate_down_and_up", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		truncates := map[string]func(size int) error{
			"path":   func(size int) error { return unix.Truncate(c.Path("f"), int64(size)) },
			"handle": func(size int) error { return unix.Ftruncate(fd, int64(size)) },
		}
		full := bytes.Repeat([]byte{0xee}, 3*os.Getpagesize())
		for by, truncate := range truncates {
			for _, small := range edges() {
				_, err := unix.Pwrite(fd, full, 0)
				c.Ok(err, "pwrite")
				c.Ok(truncate(small), "truncate to %d by %s", small, by)
				c.FdHolds(fd, string(full[:small]))
				c.Ok(truncate(len(full)), "truncate back by %s", by)
				want := append(bytes.Clone(full[:small]), make([]byte, len(full)-small)...)
				c.FdHolds(fd, string(want))
				c.Holds(c.Native()+"/f", string(want))
			}
		}
	}},
	{name: "truncate_small_then_9000", run: func(c *checkT) {
		c.Write(c.Path("f"), "hello")
		c.Ok(unix.Truncate(c.Path("f"), 3), "truncate")
		c.Ok(unix.Truncate(c.Path("f"), 9000), "truncate")
		c.Holds(c.Path("f"), "hel"+strings.Repeat("\x00", 8997))
		c.Holds(c.Native()+"/f", "hel"+strings.Repeat("\x00", 8997))
	}},
	{name: "truncate_up_keeps_data", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		size := int64(4)
		for _, edge := range edges() {
			if int64(edge) < size {
				continue
			}
			size = int64(edge)
			c.Ok(unix.Truncate(c.Path("f"), size), "truncate to %d", size)
			harness.Equal(c, c.Lstat(c.Path("f")).Size, size, "size")
			c.Holds(c.Path("f"), "data"+strings.Repeat("\x00", edge-4))
		}
	}},
	{name: "write_past_the_end_leaves_zeros", run: func(c *checkT) {
		// The old content must not come back between the cut and the write.
		p := os.Getpagesize()
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		full := bytes.Repeat([]byte{0xee}, 4*p)
		for _, cut := range edges() {
			for _, gap := range []int{1, p - 1, p, p + 1} {
				_, err := unix.Pwrite(fd, full, 0)
				c.Ok(err, "pwrite")
				c.Ok(unix.Ftruncate(fd, int64(cut)), "ftruncate")
				_, err = unix.Pwrite(fd, []byte("x"), int64(cut+gap))
				c.Ok(err, "pwrite past the end")
				want := string(full[:cut]) + strings.Repeat("\x00", gap) + "x"
				c.FdHolds(fd, want)
				c.Holds(c.Native()+"/f", want)
			}
		}
	}},
	{name: "truncate_while_mapped_by_the_engine", run: func(c *checkT) {
		// Growing beyond any span that was mapped for the small file.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		var model []byte
		for i := range 12 {
			end := 1 << (12 + i)
			data := harness.Pattern(i, 100)
			_, err := unix.Pwrite(fd, data, int64(end-50))
			c.Ok(err, "pwrite")
			model = append(model, make([]byte, end+50-len(model))...)
			copy(model[end-50:], data)
			c.FdHolds(fd, string(model))
		}
		c.Ok(unix.Ftruncate(fd, 10), "ftruncate")
		c.FdHolds(fd, string(model[:10]))
	}},
	{name: "truncate_errors", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		c.Errno(unix.Truncate(c.Path("f"), -1), unix.EINVAL, "truncate to -1")
		c.Errno(unix.Truncate(c.Path("nothing"), 0), unix.ENOENT, "truncate nothing")
		c.Ok(unix.Mkfifo(c.Path("p"), 0o644), "mkfifo")
		c.Errno(unix.Truncate(c.Path("p"), 0), unix.EINVAL, "truncate a fifo")
		c.Holds(c.Path("f"), "data")
	}},
	{name: "sparse_holes", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Pwrite(fd, []byte("end"), 64<<20)
		c.Ok(err, "pwrite")
		harness.Equal(c, c.Fstat(fd).Size, int64(64<<20+3), "size")
		if blocks := c.Fstat(fd).Blocks; blocks > 2048 {
			c.Fatalf("a hole of 64 MiB takes %d blocks", blocks)
		}
		got := make([]byte, 10000)
		n, err := unix.Pread(fd, got, 64<<20-9000)
		c.Ok(err, "pread")
		harness.SameBytes(c, string(got[:n]), strings.Repeat("\x00", 9000)+"end", "the hole's end")
		_, err = unix.Pwrite(fd, []byte("mid"), 32<<20)
		c.Ok(err, "write into the hole")
		n, err = unix.Pread(fd, got[:5], 32<<20-1)
		c.Ok(err, "pread")
		harness.SameBytes(c, string(got[:n]), "\x00mid\x00", "the hole's middle")
	}},
	{name: "big_offsets", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		const tib = 1 << 40
		_, err := unix.Pwrite(fd, []byte("far"), tib)
		c.Ok(err, "pwrite at 1 TiB")
		harness.Equal(c, c.Fstat(fd).Size, int64(tib+3), "size")
		got := make([]byte, 9)
		n, err := unix.Pread(fd, got, tib-3)
		c.Ok(err, "pread")
		harness.SameBytes(c, string(got[:n]), "\x00\x00\x00far", "data at 1 TiB")
		c.Ok(unix.Ftruncate(fd, 2*tib), "ftruncate to 2 TiB")
		harness.Equal(c, c.Fstat(fd).Size, int64(2*tib), "size")
		c.Ok(unix.Ftruncate(fd, 5), "ftruncate to 5")
		c.FdHolds(fd, "\x00\x00\x00\x00\x00")
	}},
	{name: "file_size_limit", run: func(c *checkT) {
		// Past the limit of the file system below, the mount answers as that
		// does, and nothing of it lasts.
		mine := c.Open(c.Path("mine"), unix.O_CREAT|unix.O_RDWR, 0o644)
		theirs := c.Open(c.Native()+"/theirs", unix.O_CREAT|unix.O_RDWR, 0o644)
		for _, off := range []int64{1<<44 - 1, 1 << 44, 1 << 46, 1 << 52, 1<<62 + 1, 1<<63 - 2, 1<<63 - 1} {
			for _, op := range []struct {
				name string
				do   func(fd int) error
			}{
				{"pwrite", func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), off); return err }},
				{"ftruncate", func(fd int) error { return unix.Ftruncate(fd, off) }},
			} {
				got, want := op.do(mine), op.do(theirs)
				harness.Equal(c, fmt.Sprint(got), fmt.Sprint(want), "%s at %#x", op.name, off)
				harness.Equal(c, c.Fstat(mine).Size, c.Fstat(theirs).Size, "size after %s at %#x", op.name, off)
				c.Ok(unix.Ftruncate(mine, 0), "ftruncate")
				c.Ok(unix.Ftruncate(theirs, 0), "ftruncate")
			}
		}
	}},
	{name: "rlimit_fsize", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		limit := unix.Rlimit{Cur: 8192, Max: unix.RLIM_INFINITY}
		c.Ok(unix.Setrlimit(unix.RLIMIT_FSIZE, &limit), "setrlimit")
		// Go ignores SIGXFSZ, so the errno arrives.
		n, err := unix.Pwrite(fd, make([]byte, 4096), 6000)
		c.Ok(err, "pwrite across the limit")
		harness.Equal(c, n, 8192-6000, "written up to the limit")
		_, err = unix.Pwrite(fd, []byte("x"), 8192)
		c.Errno(err, unix.EFBIG, "pwrite past the limit")
		c.Errno(unix.Ftruncate(fd, 8193), unix.EFBIG, "ftruncate past the limit")
		harness.Equal(c, c.Fstat(fd).Size, int64(8192), "size")
	}},
}
