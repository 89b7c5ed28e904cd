package integration

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// pattern is n bytes in which every 8 differ from every other 8 nearby.
func pattern(seed, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// edges are the offsets and lengths at which an off-by-one would show.
func edges() []int {
	p := os.Getpagesize()
	return []int{0, 1, p - 1, p, p + 1, 2*p - 1, 2 * p, 2*p + 1}
}

// dataChecks are about read and write.
var dataChecks = []check{
	{name: "read_write_page_edges", run: func(c *checkT) {
		// One file lives through all writes beside its model.
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		var model []byte
		seed := 0
		for _, off := range edges() {
			for _, length := range edges() {
				seed++
				data := pattern(seed, length)
				n, err := unix.Pwrite(fd, data, int64(off))
				c.ok(err, "write %d bytes at %d", length, off)
				equal(c, n, length, "written at %d", off)
				if end := off + length; length > 0 && end > len(model) {
					model = append(model, make([]byte, end-len(model))...)
				}
				copy(model[min(off, len(model)):], data)
				c.fdHolds(fd, string(model))
				equal(c, c.fstat(fd).Size, int64(len(model)), "size")
			}
		}
		for _, off := range edges() {
			for _, length := range edges() {
				got := make([]byte, length)
				n, err := unix.Pread(fd, got, int64(off))
				c.ok(err, "read %d bytes at %d", length, off)
				want := model[min(off, len(model)):min(off+length, len(model))]
				sameBytes(c, string(got[:n]), string(want), "range")
			}
		}
		c.holds(c.native()+"/f", string(model))
	}},
	{name: "read_at_the_end", run: func(c *checkT) {
		c.write(c.path("f"), "12345")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		b := make([]byte, 10)
		for _, row := range []struct{ off, want int64 }{{0, 5}, {4, 1}, {5, 0}, {6, 0}, {1 << 40, 0}} {
			n, err := unix.Pread(fd, b, row.off)
			c.ok(err, "pread at %d", row.off)
			equal(c, int64(n), row.want, "bytes at %d", row.off)
		}
		_, err := unix.Pread(fd, b, -1)
		c.errno(err, unix.EINVAL, "pread at -1")
	}},
	{name: "append_from_two_descriptors", run: func(c *checkT) {
		one := c.open(c.path("f"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
		two := c.open(c.path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		var want strings.Builder
		for i := range 200 {
			fd, line := one, "one\n"
			if i%2 == 1 {
				fd, line = two, "two, which is longer\n"
			}
			_, err := unix.Write(fd, []byte(line))
			c.ok(err, "append %d", i)
			want.WriteString(line)
		}
		c.holds(c.path("f"), want.String())
		// Linux: pwrite on such a descriptor appends, whatever the offset.
		_, err := unix.Pwrite(one, []byte("end"), 0)
		c.ok(err, "pwrite")
		c.holds(c.path("f"), want.String()+"end")
	}},
	{name: "append_after_truncate_by_another", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
		_, err := unix.Write(fd, []byte("0123456789"))
		c.ok(err, "append")
		c.ok(unix.Truncate(c.path("f"), 3), "truncate")
		_, err = unix.Write(fd, []byte("ab"))
		c.ok(err, "append")
		c.holds(c.path("f"), "012ab")
	}},
	{name: "write_visible_everywhere", run: func(c *checkT) {
		w := c.open(c.path("f"), unix.O_CREAT|unix.O_WRONLY, 0o644)
		r := c.open(c.path("f"), unix.O_RDONLY, 0)
		for i := range 20 {
			text := strings.Repeat(string(rune('a'+i)), 1000+i)
			_, err := unix.Pwrite(w, []byte(text), 0)
			c.ok(err, "pwrite")
			c.fdHolds(r, text)
			// Before any fsync or close: the mapping is the page cache.
			c.holds(c.native()+"/f", text)
		}
	}},
	{name: "handle_modes", run: func(c *checkT) {
		c.write(c.path("f"), "data")
		r := c.open(c.path("f"), unix.O_RDONLY, 0)
		w := c.open(c.path("f"), unix.O_WRONLY, 0)
		_, err := unix.Write(r, []byte("x"))
		c.errno(err, unix.EBADF, "write to a read-only descriptor")
		_, err = unix.Read(w, make([]byte, 1))
		c.errno(err, unix.EBADF, "read from a write-only descriptor")
		c.errno(unix.Ftruncate(r, 0), unix.EINVAL, "ftruncate a read-only descriptor")
		c.holds(c.path("f"), "data")
	}},
	{name: "write_only_unaligned", run: func(c *checkT) {
		// The kernel has to read the page to change a part of it.
		c.write(c.path("f"), strings.Repeat("a", 3*os.Getpagesize()))
		fd := c.open(c.path("f"), unix.O_WRONLY, 0)
		off := os.Getpagesize() - 2
		_, err := unix.Pwrite(fd, []byte("bbbb"), int64(off))
		c.ok(err, "pwrite")
		want := bytes.Repeat([]byte("a"), 3*os.Getpagesize())
		copy(want[off:], "bbbb")
		c.holds(c.path("f"), string(want))
	}},
	{name: "handle_outlives_chmod_0", run: func(c *checkT) {
		c.write(c.path("f"), "data")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		c.as(alice, aliceGroup, func() {
			r := c.open(c.path("f"), unix.O_RDONLY, 0)
			w := c.open(c.path("f"), unix.O_WRONLY, 0)
			c.ok(unix.Chmod(c.path("f"), 0), "chmod 0")
			_, err := unix.Open(c.path("f"), unix.O_RDONLY, 0)
			c.errno(err, unix.EACCES, "open after chmod 0")
			_, err = unix.Pwrite(w, []byte("DA"), 0)
			c.ok(err, "write")
			c.fdHolds(r, "DAta")
			c.ok(unix.Ftruncate(w, 1), "ftruncate")
			c.fdHolds(r, "D")
		})
	}},
	{name: "create_with_mode_0", run: func(c *checkT) {
		c.ok(unix.Chmod(c.dir, 0o777), "chmod")
		c.as(alice, aliceGroup, func() {
			for _, mode := range []uint32{0, 0o444} {
				fd := c.open(c.path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, mode)
				_, err := unix.Write(fd, []byte("mine"))
				c.ok(err, "write with mode %o", mode)
				c.fdHolds(fd, "mine")
				equal(c, c.fstat(fd).Mode&0o7777, mode, "mode")
				c.ok(unix.Unlink(c.path("f")), "unlink")
			}
		})
	}},
	{name: "unlinked_open_file", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		_, err := unix.Write(fd, []byte("before"))
		c.ok(err, "write")
		c.ok(unix.Unlink(c.path("f")), "unlink")
		c.absent(c.path("f"))
		_, err = unix.Pwrite(fd, []byte(" after"), 6)
		c.ok(err, "write after unlink")
		c.fdHolds(fd, "before after")
		equal(c, uint64(c.fstat(fd).Nlink), 0, "links")
		c.ok(unix.Ftruncate(fd, 3), "ftruncate")
		c.ok(unix.Ftruncate(fd, 9000), "ftruncate up")
		c.fdHolds(fd, "bef"+strings.Repeat("\x00", 8997))
		c.ok(unix.Fchmod(fd, 0o600), "fchmod")
		equal(c, c.fstat(fd).Mode&0o777, uint32(0o600), "mode")
		c.ok(unix.Fchown(fd, alice, aliceGroup), "fchown")
		equal(c, c.fstat(fd).Uid, uint32(alice), "uid")
		c.ok(unix.Futimes(fd, []unix.Timeval{{Sec: 1000}, {Sec: 2000}}), "futimes")
		equal(c, c.fstat(fd).Mtim.Sec, int64(2000), "mtime")
		c.ok(unix.Fsync(fd), "fsync")
		// The name is free for a file that has nothing to do with the old one.
		c.write(c.path("f"), "new")
		c.holds(c.path("f"), "new")
		c.fdHolds(fd, "bef"+strings.Repeat("\x00", 8997))
	}},
	{name: "unlinked_before_its_open", run: func(c *checkT) {
		// The kernel knows the inode, so its open comes through, as one does that
		// races with the unlink.
		c.write(c.path("f"), "still there")
		path := c.open(c.path("f"), unix.O_PATH, 0)
		c.ok(unix.Unlink(c.path("f")), "unlink")
		fd := c.open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDWR, 0)
		c.fdHolds(fd, "still there")
		_, err := unix.Pwrite(fd, []byte("!"), 11)
		c.ok(err, "write")
		c.fdHolds(fd, "still there!")
		equal(c, c.fstat(fd).Size, int64(12), "size")
	}},
	{name: "unlinked_while_open_and_opened_again", run: func(c *checkT) {
		// Through a descriptor that is no open file to the daemon, after the last one
		// that is.
		c.write(c.path("f"), "still there")
		path := c.open(c.path("f"), unix.O_PATH, 0)
		fd, err := unix.Open(c.path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		c.ok(err, "open")
		c.ok(unix.Unlink(c.path("f")), "unlink")
		c.ok(unix.Close(fd), "close")
		again := c.open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDWR, 0)
		c.fdHolds(again, "still there")
	}},
	{name: "descriptors_exhausted", run: func(c *checkT) {
		// The process's own limit is EMFILE, for each call that opens, and makes nothing.
		var limit unix.Rlimit
		c.ok(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit), "getrlimit")
		c.ok(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 300, Max: limit.Max}), "setrlimit")
		defer func() { c.ok(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit), "setrlimit") }()
		var fds []int
		var err error
		for i := 0; err == nil && i < 300; i++ {
			var fd int
			if fd, err = unix.Open(c.path(itoa(i)), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err == nil {
				fds = append(fds, fd)
			}
		}
		c.errno(err, unix.EMFILE, "open of one file too many")
		for name, open := range map[string]func() (int, error){
			"creat":     func() (int, error) { return unix.Creat(c.path("new"), 0o600) },
			"read-only": func() (int, error) { return unix.Open(c.path("0"), unix.O_RDONLY, 0) },
			"directory": func() (int, error) { return unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0) },
			"O_PATH":    func() (int, error) { return unix.Open(c.path("0"), unix.O_PATH, 0) },
		} {
			_, err := open()
			c.errno(err, unix.EMFILE, "%s", name)
		}
		c.ok(unix.Close(fds[0]), "close")
		fd, err := unix.Creat(c.path("new"), 0o600)
		c.ok(err, "creat with a free descriptor")
		for _, fd := range append(fds[1:], fd) {
			c.ok(unix.Close(fd), "close")
		}
	}},
	{name: "two_unlinked_of_one_name", run: func(c *checkT) {
		var fds []int
		for i := range 10 {
			fd := c.open(c.path("f"), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
			_, err := unix.Write(fd, pattern(i, 5000))
			c.ok(err, "write")
			c.ok(unix.Unlink(c.path("f")), "unlink")
			fds = append(fds, fd)
		}
		for i, fd := range fds {
			c.fdHolds(fd, string(pattern(i, 5000)))
		}
	}},
	{name: "write_after_last_close_of_another", run: func(c *checkT) {
		one := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		two, err := unix.Open(c.path("f"), unix.O_RDWR, 0)
		c.ok(err, "open")
		c.ok(unix.Close(two), "close")
		dup, err := unix.Dup(one)
		c.ok(err, "dup")
		c.ok(unix.Close(dup), "close of the duplicate")
		_, err = unix.Write(one, []byte("still open"))
		c.ok(err, "write")
		c.fdHolds(one, "still open")
	}},
	{name: "vectors", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		n, err := unix.Pwritev(fd, [][]byte{[]byte("one"), nil, []byte("two"), pattern(1, 9000)}, 4090)
		c.ok(err, "pwritev")
		equal(c, n, 9006, "written")
		got := [][]byte{make([]byte, 4090), make([]byte, 6), make([]byte, 9000)}
		n, err = unix.Preadv(fd, got, 0)
		c.ok(err, "preadv")
		equal(c, n, 13096, "read")
		sameBytes(c, string(got[1])+string(got[2]), "onetwo"+string(pattern(1, 9000)), "vectors")
	}},
	{name: "big_requests", run: func(c *checkT) {
		// More than any one request to the daemon can carry, at odd offsets.
		data := pattern(7, 5<<20+12345)
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		n, err := unix.Pwrite(fd, data, 777)
		c.ok(err, "pwrite")
		equal(c, n, len(data), "written")
		want := strings.Repeat("\x00", 777) + string(data)
		c.fdHolds(fd, want)
		c.holds(c.native()+"/f", want)
	}},
	{name: "sync_flags", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR|unix.O_SYNC, 0o644)
		_, err := unix.Write(fd, []byte("synced"))
		c.ok(err, "write with O_SYNC")
		c.ok(unix.Fsync(fd), "fsync")
		c.ok(unix.Fdatasync(fd), "fdatasync")
		c.ok(unix.Syncfs(fd), "syncfs")
		r := c.open(c.path("f"), unix.O_RDONLY, 0)
		c.ok(unix.Fsync(r), "fsync of a read-only descriptor")
		d := c.open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(unix.Fsync(d), "fsync of a directory")
		c.ok(unix.Fdatasync(d), "fdatasync of a directory")
		c.holds(c.native()+"/f", "synced")
	}},
	{name: "direct_io", run: func(c *checkT) {
		fd, err := unix.Open(c.path("f"), unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644)
		if _, nativeErr := unix.Open(c.native()+"/g", unix.O_CREAT|unix.O_RDWR|unix.O_DIRECT, 0o644); nativeErr != nil {
			c.skip("O_DIRECT", "%v", nativeErr)
		}
		c.ok(err, "open")
		defer unix.Close(fd)
		// Memory from mmap is aligned as O_DIRECT wants it.
		const length = 1 << 16
		mem, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		c.ok(err, "mmap")
		want := pattern(3, length)
		copy(mem, want)
		n, err := unix.Pwrite(fd, mem, length)
		c.ok(err, "pwrite")
		equal(c, n, length, "written")
		clear(mem)
		n, err = unix.Pread(fd, mem, length)
		c.ok(err, "pread")
		sameBytes(c, string(mem[:n]), string(want), "direct read")
		c.holds(c.path("f"), strings.Repeat("\x00", length)+string(want))
		// Mixed with the page cache of another descriptor.
		other := c.open(c.path("f"), unix.O_RDWR, 0)
		_, err = unix.Pwrite(other, []byte("cached"), length+100)
		c.ok(err, "cached pwrite")
		_, err = unix.Pread(fd, mem, length)
		c.ok(err, "pread")
		sameBytes(c, string(mem[100:106]), "cached", "direct read of a cached write")
		copy(mem, "direct")
		_, err = unix.Pwrite(fd, mem[:os.Getpagesize()], length)
		c.ok(err, "pwrite")
		got := make([]byte, 6)
		_, err = unix.Pread(other, got, length)
		c.ok(err, "cached pread")
		sameBytes(c, string(got), "direct", "cached read of a direct write")
	}},
	{name: "copy_file_range", run: func(c *checkT) {
		want := pattern(5, 300_001)
		c.write(c.path("from"), string(want))
		in := c.open(c.path("from"), unix.O_RDONLY, 0)
		out := c.open(c.path("to"), unix.O_CREAT|unix.O_RDWR, 0o644)
		for done := 0; done < len(want); {
			n, err := unix.CopyFileRange(in, nil, out, nil, len(want)-done, 0)
			c.ok(err, "copy_file_range after %d bytes", done)
			if n == 0 {
				c.Fatalf("copy_file_range stops after %d bytes", done)
			}
			done += n
		}
		c.fdHolds(out, string(want))
	}},
	{name: "sendfile_and_splice", run: func(c *checkT) {
		want := pattern(6, 100_001)
		c.write(c.path("from"), string(want))
		in, err := os.Open(c.path("from"))
		c.ok(err, "open")
		defer in.Close()
		r, w, err := os.Pipe()
		c.ok(err, "pipe")
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
		c.ok(err, "read")
		sameBytes(c, string(got), string(want), "sent")
	}},
	{name: "ioctl_of_regular_files", run: func(c *checkT) {
		c.write(c.path("f"), "12345678")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		c.errno(err, unix.ENOTTY, "TCGETS")
		// FIONREAD (TIOCINQ by its other name) of a regular file is the kernel's own: the bytes left.
		_, err = unix.Read(fd, make([]byte, 3))
		c.ok(err, "read")
		left, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		c.ok(err, "FIONREAD")
		equal(c, left, 5, "FIONREAD")
	}},
}
