package integration

import (
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// expired waits until the kernel must ask for names and attributes again.
func expired() { time.Sleep(1200 * time.Millisecond) }

// below is a name in BACKING.
func (c *checkT) below(name string) string { return c.backing + "/" + name }

// backingChecks are about changes of BACKING behind the mount's back.
var backingChecks = []check{
	{name: "backing_new_name", mountOnly: true, run: func(c *checkT) {
		c.absent(c.path("f")) // a negative entry is cached now
		c.write(c.below("f"), "from below")
		expired()
		c.holds(c.path("f"), "from below")
		if got := names(c.entries(c.dir)); len(got) != 3 {
			c.Fatalf("entries: got %q, want f and the dots", got)
		}
	}},
	{name: "backing_lost_name", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("f"), "data")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		c.ok(unix.Unlink(c.below("f")), "unlink below")
		expired()
		c.absent(c.path("f"))
		c.fdHolds(fd, "data")
		_, err := unix.Pwrite(fd, []byte("DATA"), 0)
		c.ok(err, "write to the open file")
		c.fdHolds(fd, "DATA")
	}},
	{name: "backing_new_attributes", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.lstat(c.path("f"))
		c.ok(unix.Chmod(c.below("f"), 0o600), "chmod below")
		c.ok(unix.Chown(c.below("f"), alice, aliceGroup), "chown below")
		expired()
		equal(c, c.lstat(c.path("f")).Mode&0o777, 0o600, "mode")
		equal(c, c.lstat(c.path("f")).Uid, uint32(alice), "owner")
	}},
	{name: "backing_new_content", mountOnly: true, run: func(c *checkT) {
		for _, content := range []string{"first", "other, and longer", "short", "SHORT"} {
			tick()
			c.write(c.below("f"), content)
			expired()
			c.holds(c.path("f"), content)
		}
	}},
	{name: "backing_content_of_an_open_file", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("f"), "first")
		fd := c.open(c.path("f"), unix.O_RDONLY, 0)
		c.fdHolds(fd, "first")
		tick()
		c.write(c.below("f"), "second, longer")
		expired()
		// Another open makes the kernel look again, for all who have it open.
		c.holds(c.path("f"), "second, longer")
		c.fdHolds(fd, "second, longer")
	}},
	{name: "backing_appended_below", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("f"), "one ")
		c.holds(c.path("f"), "one ")
		f, err := os.OpenFile(c.below("f"), os.O_APPEND|os.O_WRONLY, 0)
		c.ok(err, "open below")
		defer f.Close()
		_, err = f.WriteString("two ")
		c.ok(err, "append below")
		// An append through the mount goes behind it, at once or after the timeout.
		expired()
		a := c.open(c.path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		_, err = unix.Write(a, []byte("three"))
		c.ok(err, "append")
		c.holds(c.path("f"), "one two three")
		c.holds(c.below("f"), "one two three")
	}},
	{name: "backing_truncated_below", mountOnly: true, run: func(c *checkT) {
		// The pages behind the new end are gone under the engine's mapping.
		p := os.Getpagesize()
		c.write(c.path("f"), strings.Repeat("x", 8*p))
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		c.fdHolds(fd, strings.Repeat("x", 8*p))
		c.ok(unix.Truncate(c.below("f"), 10), "truncate below")
		// Whatever the caches say for the moment: no crash, no error but EIO.
		_, err := unix.Pwrite(fd, []byte("y"), int64(5*p))
		if err != nil {
			c.errno(err, unix.EIO, "write where the file has gone")
		}
		c.ok(unix.Truncate(c.below("f"), 10), "truncate below")
		expired()
		c.holds(c.path("f"), strings.Repeat("x", 10))
		c.ok(unix.Truncate(c.below("f"), int64(p)), "truncate up below")
		expired()
		c.holds(c.path("f"), strings.Repeat("x", 10)+strings.Repeat("\x00", p-10))
	}},
	{name: "backing_name_replaced", mountOnly: true, run: func(c *checkT) {
		// As editors save: the name means another file now, of the same size.
		old, replacement := strings.Repeat("o", 10000), strings.Repeat("n", 10000)
		c.write(c.path("f"), old)
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		c.write(c.below("t"), replacement)
		c.ok(unix.Rename(c.below("t"), c.below("f")), "rename below")
		// Within the timeout: one file or the other or ESTALE, never a mix.
		got, err := os.ReadFile(c.path("f"))
		if err != nil {
			c.errno(err, unix.ESTALE, "read within the timeout")
		} else if s := string(got); s != old && s != replacement {
			sameBytes(c, s, replacement, "read within the timeout")
		}
		expired()
		c.holds(c.path("f"), replacement)
		equal(c, c.lstat(c.path("f")).Ino, c.lstat(c.below("f")).Ino, "inode")
		c.fdHolds(fd, old)
		_, err = unix.Pwrite(fd, []byte("late"), 0)
		c.ok(err, "write to the replaced file")
		c.holds(c.below("f"), replacement)
		c.holds(c.path("f"), replacement)
	}},
	{name: "backing_replaced_by_another_kind", mountOnly: true, run: func(c *checkT) {
		c.write(c.path("x"), "file")
		c.holds(c.path("x"), "file")
		c.ok(unix.Unlink(c.below("x")), "unlink below")
		c.mkdir(c.below("x"))
		c.write(c.below("x/f"), "inside")
		expired()
		c.holds(c.path("x", "f"), "inside")
		c.ok(os.RemoveAll(c.below("x")), "remove below")
		c.ok(unix.Symlink("nowhere", c.below("x")), "symlink below")
		expired()
		target, err := os.Readlink(c.path("x"))
		c.ok(err, "readlink")
		equal(c, target, "nowhere", "target")
	}},
	{name: "backing_directory_moved", mountOnly: true, run: func(c *checkT) {
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "data")
		fd := c.open(c.path("d", "f"), unix.O_RDWR, 0)
		dir := c.open(c.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(unix.Rename(c.below("d"), c.below("e")), "rename below")
		c.mkdir(c.below("d"))
		c.write(c.below("d/f"), "another")
		expired()
		c.holds(c.path("d", "f"), "another")
		c.holds(c.path("e", "f"), "data")
		// The open ones follow their file, or say that they lost it.
		_, err := unix.Pwrite(fd, []byte("DATA"), 0)
		c.ok(err, "write to the open file")
		c.holds(c.below("e/f"), "DATA")
		c.holds(c.below("d/f"), "another")
		f, err := unix.Openat(dir, "f", unix.O_RDONLY, 0)
		if err != nil {
			if !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
				c.Fatalf("openat in the moved directory: got %v, want success, ESTALE or ENOENT", err)
			}
			return
		}
		defer unix.Close(f)
		c.fdHolds(f, "DATA")
	}},
	{name: "backing_symlink_is_no_way_out", mountOnly: true, run: func(c *checkT) {
		// A directory of the tree becomes a symlink to the outside: the daemon,
		// which is root, must not follow it. The outside is a directory of the
		// check's own and nothing of the machine, because a mount that does follow
		// takes the clean-up there too.
		outside, err := os.MkdirTemp("", "mapfs-outside-")
		c.ok(err, "make the outside")
		c.Cleanup(func() { os.RemoveAll(outside) })
		c.write(outside+"/f", "outside")
		c.write(outside+"/secret", "")
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "inside")
		fd := c.open(c.path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.ok(unix.Rename(c.below("d"), c.below("moved")), "rename below")
		c.ok(unix.Symlink(outside, c.below("d")), "symlink below")
		c.Cleanup(func() { _ = unix.Unlink(c.below("d")) })
		for range 3 {
			f, err := unix.Openat(fd, "f", unix.O_RDONLY, 0)
			if err == nil {
				c.fdHolds(f, "inside")
				unix.Close(f)
			} else if !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
				c.Fatalf("openat: got %v, want success, ESTALE or ENOENT", err)
			}
			var st unix.Stat_t
			if unix.Fstatat(fd, "secret", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				c.Fatalf("the daemon followed a symlink out of BACKING")
			}
			if f, err := unix.Openat(fd, "made", unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
				unix.Close(f)
			}
			_ = unix.Unlinkat(fd, "secret", 0)
			got, err := readNames(outside)
			c.ok(err, "list the outside")
			slices.Sort(got)
			equal(c, strings.Join(got, " "), "f secret", "names outside")
			expired()
		}
	}},
}
