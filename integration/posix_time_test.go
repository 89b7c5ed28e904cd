package integration

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// stamps are the times of one file, comparable.
type stamps struct{ mtime, ctime int64 }

func stampsOf(st unix.Stat_t) stamps { return stamps{st.Mtim.Nano(), st.Ctim.Nano()} }

// advanced fails the check unless both times are later than before.
func (c *checkT) advanced(path string, before stamps, what string) stamps {
	now := stampsOf(c.lstat(path))
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
		c.write(c.path("f"), "")
		for _, sec := range []int64{0, 1, 1_000_000_000, 1<<31 - 1, 1 << 31, 4_102_444_800} {
			ts := []unix.Timespec{{Sec: sec, Nsec: 123_456_789}, {Sec: sec, Nsec: 987_654_321}}
			c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), ts, 0), "utimensat %d", sec)
			st, below := c.lstat(c.path("f")), c.lstat(c.native()+"/f")
			equal(c, st.Atim, ts[0], "atime")
			equal(c, st.Mtim, ts[1], "mtime")
			equal(c, below.Atim, ts[0], "atime below")
			equal(c, below.Mtim, ts[1], "mtime below")
		}
	}},
	{name: "utimens_before_1970", run: func(c *checkT) {
		c.write(c.path("f"), "")
		for _, sec := range []int64{-1, -86_400 * 365 * 10, -1<<31 + 1} {
			want := unix.Timespec{Sec: sec, Nsec: 500_000_000}
			c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{want, want}, 0), "utimensat")
			equal(c, c.lstat(c.path("f")).Mtim, want, "mtime")
			equal(c, c.lstat(c.native()+"/f").Mtim, want, "mtime below")
		}
	}},
	{name: "utimens_after_2262", run: func(c *checkT) {
		// Nanoseconds since 1970 do not fit in 64 bits any more.
		c.write(c.path("f"), "")
		want := unix.Timespec{Sec: 13_569_465_600, Nsec: 7} // in 2400
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{want, want}, 0), "utimensat")
		equal(c, c.lstat(c.path("f")).Mtim, want, "mtime")
		equal(c, c.lstat(c.native()+"/f").Mtim, want, "mtime below")
	}},
	{name: "utimens_now_and_omit", run: func(c *checkT) {
		c.write(c.path("f"), "")
		old := unix.Timespec{Sec: 1000, Nsec: 5}
		now := unix.Timespec{Nsec: unix.UTIME_NOW}
		omit := unix.Timespec{Nsec: unix.UTIME_OMIT}
		set := func(atime, mtime unix.Timespec) unix.Stat_t {
			c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{atime, mtime}, 0), "utimensat")
			return c.lstat(c.path("f"))
		}
		recent := func(ts unix.Timespec) bool {
			age := time.Since(time.Unix(ts.Unix()))
			return age > -time.Second && age < 30*time.Second
		}
		set(old, old)
		st := set(omit, now)
		equal(c, st.Atim, old, "atime under OMIT")
		equal(c, recent(st.Mtim), true, "mtime is now")
		set(old, old)
		st = set(now, omit)
		equal(c, st.Mtim, old, "mtime under OMIT")
		equal(c, recent(st.Atim), true, "atime is now")
		set(old, old)
		st = set(omit, omit)
		equal(c, st.Atim, old, "atime")
		equal(c, st.Mtim, old, "mtime")
	}},
	{name: "utimens_of_a_symlink", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Symlink("f", c.path("s")), "symlink")
		before := c.lstat(c.path("f")).Mtim
		want := unix.Timespec{Sec: 77, Nsec: 77}
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("s"), []unix.Timespec{want, want},
			unix.AT_SYMLINK_NOFOLLOW), "utimensat")
		equal(c, c.lstat(c.path("s")).Mtim, want, "mtime of the symlink")
		equal(c, c.lstat(c.path("f")).Mtim, before, "mtime of its target")
	}},
	{name: "utimens_of_others", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Chmod(c.path("f"), 0o666), "chmod")
		c.as(alice, aliceGroup, func() {
			ts := []unix.Timespec{{Sec: 5}, {Sec: 5}}
			c.errno(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), ts, 0), unix.EPERM, "a time of one's choice")
			c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), nil, 0), "now, as a writer")
		})
		c.ok(unix.Chmod(c.path("f"), 0o644), "chmod")
		c.as(alice, aliceGroup, func() {
			c.errno(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), nil, 0), unix.EACCES, "now, as a reader")
		})
	}},
	{name: "write_advances_times", run: func(c *checkT) {
		fd := c.open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		last := stampsOf(c.lstat(c.path("f")))
		// The second and third write hit a page that is dirty already: storing
		// there advances nothing by itself.
		for i := range 3 {
			tick()
			_, err := unix.Pwrite(fd, []byte("data"), int64(i))
			c.ok(err, "pwrite")
			last = c.advanced(c.path("f"), last, fmt.Sprint("write ", i))
			equal(c, stampsOf(c.fstat(fd)), last, "times by the handle")
		}
		c.ok(unix.Fsync(fd), "fsync")
		equal(c, stampsOf(c.lstat(c.path("f"))), last, "times after fsync")
		equal(c, stampsOf(c.lstat(c.native()+"/f")), last, "times below after fsync")
		tick()
		_, err := unix.Pwrite(fd, []byte("data"), 0)
		c.ok(err, "pwrite")
		c.advanced(c.path("f"), last, "write to a clean page")
	}},
	{name: "times_below_after_close", mountOnly: true, run: func(c *checkT) {
		fd, err := unix.Open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(err, "open")
		for range 3 { // the last one is a store to a page that is dirty already
			tick()
			_, err = unix.Pwrite(fd, []byte("data"), 0)
			c.ok(err, "pwrite")
		}
		written := time.Now()
		tick()
		c.ok(unix.Close(fd), "close")
		// The kernel does not wait for the daemon when it closes a file.
		deadline := time.Now().Add(2 * time.Second)
		for {
			below := c.lstat(c.below("f")).Mtim
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
		fd, err := unix.Open(c.path("f"), unix.O_CREAT|unix.O_RDWR, 0o644)
		c.ok(err, "open")
		for range 3 {
			_, err = unix.Pwrite(fd, []byte("data"), 0)
			c.ok(err, "pwrite")
		}
		want := unix.Timespec{Sec: 1_000_000, Nsec: 1}
		c.ok(unix.UtimesNanoAt(unix.AT_FDCWD, c.path("f"), []unix.Timespec{want, want}, 0), "utimensat")
		c.ok(unix.Fsync(fd), "fsync")
		equal(c, c.fstat(fd).Mtim, want, "mtime after fsync")
		c.ok(unix.Close(fd), "close")
		equal(c, c.lstat(c.path("f")).Mtim, want, "mtime after close")
		equal(c, c.lstat(c.native()+"/f").Mtim, want, "mtime below")
	}},
	{name: "mapped_store_advances_times", run: func(c *checkT) {
		p := os.Getpagesize()
		c.write(c.path("f"), string(make([]byte, p)))
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		mem, err := unix.Mmap(fd, 0, p, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.ok(err, "mmap")
		defer unix.Munmap(mem)
		last := stampsOf(c.lstat(c.path("f")))
		for i := range 2 {
			tick()
			mem[i] = 'x'
			c.ok(unix.Msync(mem, unix.MS_SYNC), "msync")
			if i > 0 && c.backing == "" {
				continue // tmpfs stamps a page's first store only; the mount is to do better
			}
			last = c.advanced(c.path("f"), last, fmt.Sprint("store ", i))
		}
	}},
	{name: "size_changes_advance_times", run: func(c *checkT) {
		c.write(c.path("f"), "data")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		last := stampsOf(c.lstat(c.path("f")))
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"ftruncate down", func() error { return unix.Ftruncate(fd, 2) }},
			{"ftruncate up", func() error { return unix.Ftruncate(fd, 9000) }},
			{"truncate", func() error { return unix.Truncate(c.path("f"), 5000) }},
			{"fallocate", func() error { return unix.Fallocate(fd, 0, 0, 20000) }},
			{"open with O_TRUNC", func() error {
				other, err := unix.Open(c.path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
				unix.Close(other)
				return err
			}},
		} {
			tick()
			c.ok(op.do(), "%s", op.name)
			last = c.advanced(c.path("f"), last, op.name)
		}
	}},
	{name: "ctime_of_metadata", run: func(c *checkT) {
		c.write(c.path("f"), "")
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"chmod", func() error { return unix.Chmod(c.path("f"), 0o600) }},
			{"chown", func() error { return unix.Chown(c.path("f"), alice, -1) }},
			{"link", func() error { return unix.Link(c.path("f"), c.path("g")) }},
			{"unlink", func() error { return unix.Unlink(c.path("g")) }},
			{"setxattr", func() error { return unix.Setxattr(c.path("f"), "user.x", []byte("1"), 0) }},
		} {
			before := stampsOf(c.lstat(c.path("f")))
			tick()
			c.ok(op.do(), "%s", op.name)
			after := stampsOf(c.lstat(c.path("f")))
			equal(c, after.mtime, before.mtime, "mtime after %s", op.name)
			if after.ctime <= before.ctime {
				c.Fatalf("%s: ctime stays", op.name)
			}
		}
	}},
	{name: "directory_times", run: func(c *checkT) {
		last := stampsOf(c.lstat(c.dir))
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"create", func() error { c.write(c.path("f"), ""); return nil }},
			{"mkdir", func() error { return unix.Mkdir(c.path("d"), 0o755) }},
			{"symlink", func() error { return unix.Symlink("f", c.path("s")) }},
			{"link", func() error { return unix.Link(c.path("f"), c.path("l")) }},
			{"rename", func() error { return unix.Rename(c.path("f"), c.path("g")) }},
			{"unlink", func() error { return unix.Unlink(c.path("g")) }},
			{"rmdir", func() error { return unix.Rmdir(c.path("d")) }},
		} {
			tick()
			c.ok(op.do(), "%s", op.name)
			last = c.advanced(c.dir, last, op.name)
		}
	}},
}
