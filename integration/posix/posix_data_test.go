package posix

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// edges are the offsets and lengths at which an off-by-one would show.
func edges() []int {
	p := os.Getpagesize()
	return []int{0, 1, p - 1, p, p + 1, 2*p - 1, 2 * p, 2*p + 1}
}

// dataChecks are about read and write.
var dataChecks = []check{
	{name: "read_write_page_edges", run: func(c *checkT) {
		// One file lives through all writes beside its model.
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		var model []byte
		seed := 0
		for _, off := range edges() {
			for _, length := range edges() {
				seed++
				data := harness.Pattern(seed, length)
				n, err := unix.Pwrite(fd, data, int64(off))
				c.Ok(err, "write %d bytes at %d", length, off)
				harness.Equal(c, n, length, "written at %d", off)
				if end := off + length; length > 0 && end > len(model) {
					model = append(model, make([]byte, end-len(model))...)
				}
				copy(model[min(off, len(model)):], data)
				c.FdHolds(fd, string(model))
				harness.Equal(c, c.Fstat(fd).Size, int64(len(model)), "size")
			}
		}
		for _, off := range edges() {
			for _, length := range edges() {
				got := make([]byte, length)
				n, err := unix.Pread(fd, got, int64(off))
				c.Ok(err, "read %d bytes at %d", length, off)
				want := model[min(off, len(model)):min(off+length, len(model))]
				harness.SameBytes(c, string(got[:n]), string(want), "range")
			}
		}
		c.Holds(c.Native()+"/f", string(model))
	}},
	{name: "read_at_the_end", run: func(c *checkT) {
		c.Write(c.Path("f"), "12345")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		b := make([]byte, 10)
		for _, row := range []struct{ off, want int64 }{{0, 5}, {4, 1}, {5, 0}, {6, 0}, {1 << 40, 0}} {
			n, err := unix.Pread(fd, b, row.off)
			c.Ok(err, "pread at %d", row.off)
			harness.Equal(c, int64(n), row.want, "bytes at %d", row.off)
		}
		_, err := unix.Pread(fd, b, -1)
		c.Errno(err, unix.EINVAL, "pread at -1")
	}},
	{name: "append_from_two_descriptors", run: func(c *checkT) {
		one := c.Open(c.Path("f"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
		two := c.Open(c.Path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		var want strings.Builder
		for i := range 200 {
			fd, line := one, "one\n"
			if i%2 == 1 {
				fd, line = two, "two, which is longer\n"
			}
			_, err := unix.Write(fd, []byte(line))
			c.Ok(err, "append %d", i)
			want.WriteString(line)
		}
		c.Holds(c.Path("f"), want.String())
		// Linux: pwrite on such a descriptor appends, whatever the offset.
		_, err := unix.Pwrite(one, []byte("end"), 0)
		c.Ok(err, "pwrite")
		c.Holds(c.Path("f"), want.String()+"end")
	}},
	{name: "append_after_truncate_by_another", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
		_, err := unix.Write(fd, []byte("0123456789"))
		c.Ok(err, "append")
		c.Ok(unix.Truncate(c.Path("f"), 3), "truncate")
		_, err = unix.Write(fd, []byte("ab"))
		c.Ok(err, "append")
		c.Holds(c.Path("f"), "012ab")
	}},
	{name: "write_visible_everywhere", run: func(c *checkT) {
		w := c.Open(c.Path("f"), unix.O_CREAT|unix.O_WRONLY, 0o644)
		r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		for i := range 20 {
			text := strings.Repeat(string(rune('a'+i)), 1000+i)
			_, err := unix.Pwrite(w, []byte(text), 0)
			c.Ok(err, "pwrite")
			c.FdHolds(r, text)
			// Before any fsync or close: the mapping is the page cache.
			c.Holds(c.Native()+"/f", text)
		}
	}},
	{name: "handle_modes", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		w := c.Open(c.Path("f"), unix.O_WRONLY, 0)
		_, err := unix.Write(r, []byte("x"))
		c.Errno(err, unix.EBADF, "write to a read-only descriptor")
		_, err = unix.Read(w, make([]byte, 1))
		c.Errno(err, unix.EBADF, "read from a write-only descriptor")
		c.Errno(unix.Ftruncate(r, 0), unix.EINVAL, "ftruncate a read-only descriptor")
		c.Holds(c.Path("f"), "data")
	}},
	{name: "write_only_unaligned", run: func(c *checkT) {
		// The kernel has to read the page to change a part of it.
		c.Write(c.Path("f"), strings.Repeat("a", 3*os.Getpagesize()))
		fd := c.Open(c.Path("f"), unix.O_WRONLY, 0)
		off := os.Getpagesize() - 2
		_, err := unix.Pwrite(fd, []byte("bbbb"), int64(off))
		c.Ok(err, "pwrite")
		want := bytes.Repeat([]byte("a"), 3*os.Getpagesize())
		copy(want[off:], "bbbb")
		c.Holds(c.Path("f"), string(want))
	}},
	{name: "handle_outlives_chmod_0", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		c.As(harness.Alice, harness.AliceGroup, func() {
			r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
			w := c.Open(c.Path("f"), unix.O_WRONLY, 0)
			c.Ok(unix.Chmod(c.Path("f"), 0), "chmod 0")
			_, err := unix.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Errno(err, unix.EACCES, "open after chmod 0")
			_, err = unix.Pwrite(w, []byte("DA"), 0)
			c.Ok(err, "write")
			c.FdHolds(r, "DAta")
			c.Ok(unix.Ftruncate(w, 1), "ftruncate")
			c.FdHolds(r, "D")
		})
	}},
	{name: "create_with_mode_0", run: func(c *checkT) {
		c.Ok(unix.Chmod(c.Dir, 0o777), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			for _, mode := range []uint32{0, 0o444} {
				fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
				_, err := unix.Write(fd, []byte("mine"))
				c.Ok(err, "write with mode %o", mode)
				c.FdHolds(fd, "mine")
				harness.Equal(c, c.Fstat(fd).Mode&0o7777, mode, "mode")
				c.Ok(unix.Unlink(c.Path("f")), "unlink")
			}
		})
	}},
	{name: "unlinked_open_file", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Write(fd, []byte("before"))
		c.Ok(err, "write")
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		c.Absent(c.Path("f"))
		_, err = unix.Pwrite(fd, []byte(" after"), 6)
		c.Ok(err, "write after unlink")
		c.FdHolds(fd, "before after")
		harness.Equal(c, uint64(c.Fstat(fd).Nlink), 0, "links")
		c.Ok(unix.Ftruncate(fd, 3), "ftruncate")
		c.Ok(unix.Ftruncate(fd, 9000), "ftruncate up")
		c.FdHolds(fd, "bef"+strings.Repeat("\x00", 8997))
		c.Ok(unix.Fchmod(fd, 0o600), "fchmod")
		harness.Equal(c, c.Fstat(fd).Mode&0o777, uint32(0o600), "mode")
		c.Ok(unix.Fchown(fd, harness.Alice, harness.AliceGroup), "fchown")
		harness.Equal(c, c.Fstat(fd).Uid, uint32(harness.Alice), "uid")
		c.Ok(unix.Futimes(fd, []unix.Timeval{{Sec: 1000}, {Sec: 2000}}), "futimes")
		harness.Equal(c, c.Fstat(fd).Mtim.Sec, int64(2000), "mtime")
		c.Ok(unix.Fsync(fd), "fsync")
		// The name is free for a file that has nothing to do with the old one.
		c.Write(c.Path("f"), "new")
		c.Holds(c.Path("f"), "new")
		c.FdHolds(fd, "bef"+strings.Repeat("\x00", 8997))
	}},
	{name: "unlinked_before_its_open", run: func(c *checkT) {
		// The kernel knows the inode, so its open comes through, as one does that
		// races with the unlink.
		c.Write(c.Path("f"), "still there")
		path := c.Open(c.Path("f"), unix.O_PATH, 0)
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		fd := c.Open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDWR, 0)
		c.FdHolds(fd, "still there")
		_, err := unix.Pwrite(fd, []byte("!"), 11)
		c.Ok(err, "write")
		c.FdHolds(fd, "still there!")
		harness.Equal(c, c.Fstat(fd).Size, int64(12), "size")
	}},
	{name: "unlinked_while_open_and_opened_again", run: func(c *checkT) {
		// Through a descriptor that is no open file to the daemon, after the last one
		// that is.
		c.Write(c.Path("f"), "still there")
		path := c.Open(c.Path("f"), unix.O_PATH, 0)
		fd, err := unix.Open(c.Path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		c.Ok(err, "open")
		c.Ok(unix.Unlink(c.Path("f")), "unlink")
		c.Ok(unix.Close(fd), "close")
		again := c.Open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDWR, 0)
		c.FdHolds(again, "still there")
	}},
	{name: "descriptors_exhausted", run: func(c *checkT) {
		// The process's own limit is EMFILE, for each call that opens, and makes nothing.
		var limit unix.Rlimit
		c.Ok(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit), "getrlimit")
		c.Ok(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 300, Max: limit.Max}), "setrlimit")
		defer func() { c.Ok(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit), "setrlimit") }()
		var fds []int
		var err error
		for i := 0; err == nil && i < 300; i++ {
			var fd int
			if fd, err = unix.Open(c.Path(itoa(i)), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err == nil {
				fds = append(fds, fd)
			}
		}
		c.Errno(err, unix.EMFILE, "open of one file too many")
		for name, open := range map[string]func() (int, error){
			"creat":     func() (int, error) { return unix.Creat(c.Path("new"), 0o600) },
			"read-only": func() (int, error) { return unix.Open(c.Path("0"), unix.O_RDONLY, 0) },
			"directory": func() (int, error) { return unix.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0) },
			"O_PATH":    func() (int, error) { return unix.Open(c.Path("0"), unix.O_PATH, 0) },
		} {
			_, err := open()
			c.Errno(err, unix.EMFILE, "%s", name)
		}
		c.Ok(unix.Close(fds[0]), "close")
		fd, err := unix.Creat(c.Path("new"), 0o600)
		c.Ok(err, "creat with a free descriptor")
		for _, fd := range append(fds[1:], fd) {
			c.Ok(unix.Close(fd), "close")
		}
	}},
	{name: "two_unlinked_of_one_name", run: func(c *checkT) {
		var fds []int
		for i := range 10 {
			fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
			_, err := unix.Write(fd, harness.Pattern(i, 5000))
			c.Ok(err, "write")
			c.Ok(unix.Unlink(c.Path("f")), "unlink")
			fds = append(fds, fd)
		}
		for i, fd := range fds {
			c.FdHolds(fd, string(harness.Pattern(i, 5000)))
		}
	}},
	{name: "write_after_last_close_of_another", run: func(c *checkT) {
		one := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		two, err := unix.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Ok(err, "open")
		c.Ok(unix.Close(two), "close")
		dup, err := unix.Dup(one)
		c.Ok(err, "dup")
		c.Ok(unix.Close(dup), "close of the duplicate")
		_, err = unix.Write(one, []byte("still open"))
		c.Ok(err, "write")
		c.FdHolds(one, "still open")
	}},
	{name: "vectors", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		n, err := unix.Pwritev(fd, [][]byte{[]byte("one"), nil, []byte("two"), harness.Pattern(1, 9000)}, 4090)
		c.Ok(err, "pwritev")
		harness.Equal(c, n, 9006, "written")
		got := [][]byte{make([]byte, 4090), make([]byte, 6), make([]byte, 9000)}
		n, err = unix.Preadv(fd, got, 0)
		c.Ok(err, "preadv")
		harness.Equal(c, n, 13096, "read")
		harness.SameBytes(c, string(got[1])+string(got[2]), "onetwo"+string(harness.Pattern(1, 9000)), "vectors")
	}},
	{name: "big_requests", run: func(c *checkT) {
		// More than any one request to the daemon can carry, at odd offsets.
		data := harness.Pattern(7, 5<<20+12345)
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		n, err := unix.Pwrite(fd, data, 777)
		c.Ok(err, "pwrite")
		harness.Equal(c, n, len(data), "written")
		want := strings.Repeat("\x00", 777) + string(data)
		c.FdHolds(fd, want)
		c.Holds(c.Native()+"/f", want)
	}},
	{name: "sync_flags", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR|unix.O_SYNC, 0o644)
		_, err := unix.Write(fd, []byte("synced"))
		c.Ok(err, "write with O_SYNC")
		c.Ok(unix.Fsync(fd), "fsync")
		c.Ok(unix.Fdatasync(fd), "fdatasync")
		c.Ok(unix.Syncfs(fd), "syncfs")
		r := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.Ok(unix.Fsync(r), "fsync of a read-only descriptor")
		d := c.Open(c.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.Ok(unix.Fsync(d), "fsync of a directory")
		c.Ok(unix.Fdatasync(d), "fdatasync of a directory")
		c.Holds(c.Native()+"/f", "synced")
	}},
	{name: "direct_io", run: func(c *checkT) {
		fd, err := unix.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644)
		if _, nativeErr := unix.Open(c.Native()+"/g", unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644); nativeErr != nil {
			c.Skip("O_DIRECT", "%v", nativeErr)
		}
		c.Ok(err, "open")
		defer unix.Close(fd)
		// Memory from mmap is aligned as O_DIRECT wants it.
		const length = 1 << 16
		mem, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		c.Ok(err, "mmap")
		want := harness.Pattern(3, length)
		copy(mem, want)
		n, err := unix.Pwrite(fd, mem, length)
		c.Ok(err, "pwrite")
		harness.Equal(c, n, length, "written")
		clear(mem)
		n, err = unix.Pread(fd, mem, length)
		c.Ok(err, "pread")
		harness.SameBytes(c, string(mem[:n]), string(want), "direct read")
		c.Holds(c.Path("f"), strings.Repeat("\x00", length)+string(want))
		// Mixed with the page cache of another descriptor.
		other := c.Open(c.Path("f"), unix.O_RDWR, 0)
		_, err = unix.Pwrite(other, []byte("cached"), length+100)
		c.Ok(err, "cached pwrite")
		_, err = unix.Pread(fd, mem, length)
		c.Ok(err, "pread")
		harness.SameBytes(c, string(mem[100:106]), "cached", "direct read of a cached write")
		copy(mem, "direct")
		_, err = unix.Pwrite(fd, mem[:os.Getpagesize()], length)
		c.Ok(err, "pwrite")
		got := make([]byte, 6)
		_, err = unix.Pread(other, got, length)
		c.Ok(err, "cached pread")
		harness.SameBytes(c, string(got), "direct", "cached read of a direct write")
	}},
	{name: "copy_file_range", run: func(c *checkT) {
		want := harness.Pattern(5, 300_001)
		c.Write(c.Path("from"), string(want))
		in := c.Open(c.Path("from"), unix.O_RDONLY, 0)
		out := c.Open(c.Path("to"), unix.O_CREAT|unix.O_RDWR, 0o644)
		for done := 0; done < len(want); {
			n, err := unix.CopyFileRange(in, nil, out, nil, len(want)-done, 0)
			c.Ok(err, "copy_file_range after %d bytes", done)
			if n == 0 {
				c.Fatalf("copy_file_range stops after %d bytes", done)
			}
			done += n
		}
		c.FdHolds(out, string(want))
	}},
	{name: "sendfile_and_splice", run: func(c *checkT) {
		want := harness.Pattern(6, 100_001)
		c.Write(c.Path("from"), string(want))
		in, err := os.Open(c.Path("from"))
		c.Ok(err, "open")
		defer in.Close()
		r, w, err := os.Pipe()
		c.Ok(err, "pipe")
		go func() {
			// From the page cache of the file into the pipe.
			for off := int64(0); off < int64(len(want)); {
				n, err := unix.Sendfile(int(w.Fd()), int(in.Fd()), &off, len(want))
				if err != nil || n == 0 {
					break
				}
			}
			w.Close()
		}()
		got, err := io.ReadAll(r)
		c.Ok(err, "read")
		harness.SameBytes(c, string(got), string(want), "sent")
	}},
	{name: "ioctl_of_regular_files", run: func(c *checkT) {
		c.Write(c.Path("f"), "12345678")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		c.Errno(err, unix.ENOTTY, "TCGETS")
		// FIONREAD (TIOCINQ by its other name) of a regular file is the kernel's own: the bytes left.
		_, err = unix.Read(fd, make([]byte, 3))
		c.Ok(err, "read")
		left, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		c.Ok(err, "FIONREAD")
		harness.Equal(c, left, 5, "FIONREAD")
	}},
}
