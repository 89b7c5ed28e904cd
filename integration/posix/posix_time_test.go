package posix

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// stamps are the times of one file, comparable.
type stamps struct{ mtime, ctime int64 }

func stampsOf(st unix.Stat_t) stamps { return stamps{st.Mtim.Nano(), st.Ctim.Nano()} }

// advanced fails the check unless both times are later than before.
func (c *checkT) advanced(path string, before stamps, what string) stamps {
	now := stampsOf(c.Lstat(path))
	if now.mtime <= before.mtime {
		c.Fatalf("%s: mtime stays at %v", what, time.Unix(0, before.mtime))
	}
	if now.ctime <= before.ctime {
		c.Fatalf("%s: ctime stays at %v", what, time.Unix(0, before.ctime))
	}
	return now
}

// timeChecks are about time stamps.
var timeChecks = []check{
	{name: "utimens_set", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		for _, sec := range []int64{0, 1, 1_000_000_000, 1<<31 - 1, 1 << 31, 4_102_444_800} {
			ts := []unix.Timespec{{Sec: sec, Nsec: 123_456_789}, {Sec: sec, Nsec: 987_654_321}}
			c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), ts, 0), "utimensat %d", sec)
			st, below := c.Lstat(c.Path("f")), c.Lstat(c.Native()+"/f")
			harness.Equal(c, st.Atim, ts[0], "atime")
			harness.Equal(c, st.Mtim, ts[1], "mtime")
			harness.Equal(c, below.Atim, ts[0], "atime below")
			harness.Equal(c, below.Mtim, ts[1], "mtime below")
		}
	}},
	{name: "utimens_before_1970", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		for _, sec := range []int64{-1, -86_400 * 365 * 10, -1<<31 + 1} {
			want := unix.Timespec{Sec: sec, Nsec: 500_000_000}
			c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), []unix.Timespec{want, want}, 0), "utimensat")
			harness.Equal(c, c.Lstat(c.Path("f")).Mtim, want, "mtime")
			harness.Equal(c, c.Lstat(c.Native()+"/f").Mtim, want, "mtime below")
		}
	}},
	{name: "utimens_after_2262", run: func(c *checkT) {
		// Nanoseconds since 1970 do not fit in 64 bits any more.
		c.Write(c.Path("f"), "")
		want := unix.Timespec{Sec: 13_569_465_600, Nsec: 7} // in 2400
		c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), []unix.Timespec{want, want}, 0), "utimensat")
		harness.Equal(c, c.Lstat(c.Path("f")).Mtim, want, "mtime")
		harness.Equal(c, c.Lstat(c.Native()+"/f").Mtim, want, "mtime below")
	}},
	{name: "utimens_now_and_omit", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		old := unix.Timespec{Sec: 1000, Nsec: 5}
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
		set := func(atime, mtime unix.Timespec) unix.Stat_t {
			c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), []unix.Timespec{atime, mtime}, 0), "utimensat")
			return c.Lstat(c.Path("f"))
		}
		recent := func(ts unix.Timespec) bool {
			age := time.Since(time.Unix(ts.Unix()))
			return age > -time.Second && age < 30*time.Second
		}
		set(old, old)
		st := set(omit, now)
		harness.Equal(c, st.Atim, old, "atime under OMIT")
		harness.Equal(c, recent(st.Mtim), true, "mtime is now")
		set(old, old)
		st = set(now, omit)
		harness.Equal(c, st.Mtim, old, "mtime under OMIT")
		harness.Equal(c, recent(st.Atim), true, "atime is now")
		set(old, old)
		st = set(omit, omit)
		harness.Equal(c, st.Atim, old, "atime")
		harness.Equal(c, st.Mtim, old, "mtime")
	}},
	{name: "utimens_of_a_symlink", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Symlink("f", c.Path("s")), "symlink")
		before := c.Lstat(c.Path("f")).Mtim
		want := unix.Timespec{Sec: 77, Nsec: 77}
		c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("s"), []unix.Timespec{want, want},
			unix.AT_SYMLINK_NOFOLLOW), "utimensat")
		harness.Equal(c, c.Lstat(c.Path("s")).Mtim, want, "mtime of the symlink")
		harness.Equal(c, c.Lstat(c.Path("f")).Mtim, before, "mtime of its target")
	}},
	{name: "utimens_of_others", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o666), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			ts := []unix.Timespec{{Sec: 5}, {Sec: 5}}
			c.Errno(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), ts, 0), unix.EPERM, "a time of one's choice")
			c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), nil, 0), "now, as a writer")
		})
		c.Ok(unix.Chmod(c.Path("f"), 0o644), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Errno(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), nil, 0), unix.EACCES, "now, as a reader")
		})
	}},
	{name: "write_advances_times", run: func(c *checkT) {
		fd := c.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		last := stampsOf(c.Lstat(c.Path("f")))
		// The second and third write hit a page that is dirty already: storing
		// there advances nothing by itself.
		for i := range 3 {
			harness.Tick()
			_, err := unix.Pwrite(fd, []byte("data"), int64(i))
			c.Ok(err, "pwrite")
			last = c.advanced(c.Path("f"), last, fmt.Sprint("write ", i))
			harness.Equal(c, stampsOf(c.Fstat(fd)), last, "times by the handle")
		}
		c.Ok(unix.Fsync(fd), "fsync")
		harness.Equal(c, stampsOf(c.Lstat(c.Path("f"))), last, "times after fsync")
		harness.Equal(c, stampsOf(c.Lstat(c.Native()+"/f")), last, "times below after fsync")
		harness.Tick()
		_, err := unix.Pwrite(fd, []byte("data"), 0)
		c.Ok(err, "pwrite")
		c.advanced(c.Path("f"), last, "write to a clean page")
	}},
	{name: "times_below_after_close", mountOnly: true, run: func(c *checkT) {
		fd, err := unix.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(err, "open")
		for range 3 { // the last one is a store to a page that is dirty already
			harness.Tick()
			_, err = unix.Pwrite(fd, []byte("data"), 0)
			c.Ok(err, "pwrite")
		}
		written := time.Now()
		harness.Tick()
		c.Ok(unix.Close(fd), "close")
		// The kernel does not wait for the daemon when it closes a file.
		deadline := time.Now().Add(2 * time.Second)
		for {
			below := c.Lstat(c.Below("f")).Mtim
			if written.Sub(time.Unix(below.Unix())) < 15*time.Millisecond {
				return
			}
			if time.Now().After(deadline) {
				c.Fatalf("mtime below: got %v, want %v", below, written)
			}
			time.Sleep(time.Millisecond)
		}
	}},
	{name: "set_mtime_survives_earlier_writes", run: func(c *checkT) {
		// cp -p and tar write first and then set the time: late stamping of the
		// write must not undo that, not even at close.
		fd, err := unix.Open(c.Path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.Ok(err, "open")
		for range 3 {
			_, err = unix.Pwrite(fd, []byte("data"), 0)
			c.Ok(err, "pwrite")
		}
		want := unix.Timespec{Sec: 1_000_000, Nsec: 1}
		c.Ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.Path("f"), []unix.Timespec{want, want}, 0), "utimensat")
		c.Ok(unix.Fsync(fd), "fsync")
		harness.Equal(c, c.Fstat(fd).Mtim, want, "mtime after fsync")
		c.Ok(unix.Close(fd), "close")
		harness.Equal(c, c.Lstat(c.Path("f")).Mtim, want, "mtime after close")
		harness.Equal(c, c.Lstat(c.Native()+"/f").Mtim, want, "mtime below")
	}},
	{name: "mapped_store_advances_times", notPassed: true, run: func(c *checkT) {
		p := os.Getpagesize()
		c.Write(c.Path("f"), string(make([]byte, p)))
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		mem, err := unix.Mmap(fd, 0, p, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.Ok(err, "mmap")
		defer unix.Munmap(mem)
		last := stampsOf(c.Lstat(c.Path("f")))
		for i := range 2 {
			harness.Tick()
			mem[i] = 'x'
			c.Ok(unix.Msync(mem, unix.MS_SYNC), "msync")
			if i > 0 && c.Backing == "" {
				continue // tmpfs stamps a page's first store only; the mount is to do better
			}
			last = c.advanced(c.Path("f"), last, fmt.Sprint("store ", i))
		}
	}},
	{name: "size_changes_advance_times", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		last := stampsOf(c.Lstat(c.Path("f")))
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"ftruncate down", func() error { return unix.Ftruncate(fd, 2) }},
			{"ftruncate up", func() error { return unix.Ftruncate(fd, 9000) }},
			{"truncate", func() error { return unix.Truncate(c.Path("f"), 5000) }},
			{"fallocate", func() error { return unix.Fallocate(fd, 0, 0, 20000) }},
			{"open with O_TRUNC", func() error {
				other, err := unix.Open(c.Path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
				unix.Close(other)
				return err
			}},
		} {
			harness.Tick()
			c.Ok(op.do(), "%s", op.name)
			last = c.advanced(c.Path("f"), last, op.name)
		}
	}},
	{name: "ctime_of_metadata", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"chmod", func() error { return unix.Chmod(c.Path("f"), 0o600) }},
			{"chown", func() error { return unix.Chown(c.Path("f"), harness.Alice, -1) }},
			{"link", func() error { return unix.Link(c.Path("f"), c.Path("g")) }},
			{"unlink", func() error { return unix.Unlink(c.Path("g")) }},
			{"setxattr", func() error { return unix.Setxattr(c.Path("f"), "user.x", []byte("1"), 0) }},
		} {
			before := stampsOf(c.Lstat(c.Path("f")))
			harness.Tick()
			c.Ok(op.do(), "%s", op.name)
			after := stampsOf(c.Lstat(c.Path("f")))
			harness.Equal(c, after.mtime, before.mtime, "mtime after %s", op.name)
			if after.ctime <= before.ctime {
				c.Fatalf("%s: ctime stays", op.name)
			}
		}
	}},
	{name: "directory_times", run: func(c *checkT) {
		last := stampsOf(c.Lstat(c.Dir))
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"create", func() error { c.Write(c.Path("f"), ""); return nil }},
			{"mkdir", func() error { return unix.Mkdir(c.Path("d"), 0o755) }},
			{"symlink", func() error { return unix.Symlink("f", c.Path("s")) }},
			{"link", func() error { return unix.Link(c.Path("f"), c.Path("l")) }},
			{"rename", func() error { return unix.Rename(c.Path("f"), c.Path("g")) }},
			{"unlink", func() error { return unix.Unlink(c.Path("g")) }},
			{"rmdir", func() error { return unix.Rmdir(c.Path("d")) }},
		} {
			harness.Tick()
			c.Ok(op.do(), "%s", op.name)
			last = c.advanced(c.Dir, last, op.name)
		}
	}},
}
