package posix

import (
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// backingChecks are about changes of BACKING behind the mount's back.
var backingChecks = []check{
	{name: "backing_new_name", mountOnly: true, run: func(c *checkT) {
		c.Absent(c.Path("f")) // a negative entry is cached now
		c.Write(c.Below("f"), "from below")
		harness.Expired()
		c.Holds(c.Path("f"), "from below")
		if got := names(c.entries(c.Dir)); len(got) != 3 {
			c.Fatalf("entries: got %q, want f and the dots", got)
		}
	}},
	{name: "backing_lost_name", mountOnly: true, run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Ok(unix.Unlink(c.Below("f")), "unlink below")
		harness.Expired()
		c.Absent(c.Path("f"))
		c.FdHolds(fd, "data")
		_, err := unix.Pwrite(fd, []byte("DATA"), 0)
		c.Ok(err, "write to the open file")
		c.FdHolds(fd, "DATA")
	}},
	{name: "backing_new_attributes", mountOnly: true, run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Lstat(c.Path("f"))
		c.Ok(unix.Chmod(c.Below("f"), 0o600), "chmod below")
		c.Ok(unix.Chown(c.Below("f"), harness.Alice, harness.AliceGroup), "chown below")
		harness.Expired()
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o777, 0o600, "mode")
		harness.Equal(c, c.Lstat(c.Path("f")).Uid, uint32(harness.Alice), "owner")
	}},
	{name: "backing_new_content", mountOnly: true, run: func(c *checkT) {
		for _, content := range []string{"first", "other, and longer", "short", "SHORT"} {
			harness.Tick()
			c.Write(c.Below("f"), content)
			harness.Expired()
			c.Holds(c.Path("f"), content)
		}
	}},
	{name: "backing_content_of_an_open_file", mountOnly: true, run: func(c *checkT) {
		c.Write(c.Path("f"), "first")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		c.FdHolds(fd, "first")
		harness.Tick()
		c.Write(c.Below("f"), "second, longer")
		harness.Expired()
		// Another open makes the kernel look again, for all who have it open.
		c.Holds(c.Path("f"), "second, longer")
		c.FdHolds(fd, "second, longer")
	}},
	{name: "backing_appended_below", mountOnly: true, run: func(c *checkT) {
		c.Write(c.Path("f"), "one ")
		c.Holds(c.Path("f"), "one ")
		f, err := os.OpenFile(c.Below("f"), os.O_APPEND|os.O_WRONLY, 0)
		c.Ok(err, "open below")
		defer f.Close()
		_, err = f.WriteString("two ")
		c.Ok(err, "append below")
		// An append through the mount goes behind it, at once or after the timeout.
		harness.Expired()
		a := c.Open(c.Path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		_, err = unix.Write(a, []byte("three"))
		c.Ok(err, "append")
		c.Holds(c.Path("f"), "one two three")
		c.Holds(c.Below("f"), "one two three")
	}},
	{name: "backing_truncated_below", mountOnly: true, run: func(c *checkT) {
		// The pages behind the new end are gone under the engine's mapping.
		p := os.Getpagesize()
		c.Write(c.Path("f"), strings.Repeat("x", 8*p))
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		c.FdHolds(fd, strings.Repeat("x", 8*p))
		c.Ok(unix.Truncate(c.Below("f"), 10), "truncate below")
		// Whatever the caches say for the moment: no crash, no error but EIO.
		_, err := unix.Pwrite(fd, []byte("y"), int64(5*p))
		if err != nil {
			c.Errno(err, unix.EIO, "write where the file has gone")
		}
		c.Ok(unix.Truncate(c.Below("f"), 10), "truncate below")
		harness.Expired()
		c.Holds(c.Path("f"), strings.Repeat("x", 10))
		c.Ok(unix.Truncate(c.Below("f"), int64(p)), "truncate up below")
		harness.Expired()
		c.Holds(c.Path("f"), strings.Repeat("x", 10)+strings.Repeat("\x00", p-10))
	}},
	{name: "backing_name_replaced", mountOnly: true, run: func(c *checkT) {
		// As editors save: the name means another file now, of the same size.
		old, replacement := strings.Repeat("o", 10000), strings.Repeat("n", 10000)
		c.Write(c.Path("f"), old)
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Write(c.Below("t"), replacement)
		c.Ok(unix.Rename(c.Below("t"), c.Below("f")), "rename below")
		// Within the timeout: one file or the other or ESTALE, never a mix.
		got, err := os.ReadFile(c.Path("f"))
		if err != nil {
			c.Errno(err, unix.ESTALE, "read within the timeout")
		} else if s := string(got); s != old && s != replacement {
			harness.SameBytes(c, s, replacement, "read within the timeout")
		}
		harness.Expired()
		c.Holds(c.Path("f"), replacement)
		harness.Equal(c, c.Lstat(c.Path("f")).Ino, c.Lstat(c.Below("f")).Ino, "inode")
		c.FdHolds(fd, old)
		_, err = unix.Pwrite(fd, []byte("late"), 0)
		c.Ok(err, "write to the replaced file")
		c.Holds(c.Below("f"), replacement)
		c.Holds(c.Path("f"), replacement)
	}},
	{name: "backing_replaced_by_another_kind", mountOnly: true, run: func(c *checkT) {
		c.Write(c.Path("x"), "file")
		c.Holds(c.Path("x"), "file")
		c.Ok(unix.Unlink(c.Below("x")), "unlink below")
		c.Mkdir(c.Below("x"))
		c.Write(c.Below("x/f"), "inside")
		harness.Expired()
		c.Holds(c.Path("x", "f"), "inside")
		c.Ok(os.RemoveAll(c.Below("x")), "remove below")
		c.Ok(unix.Symlink("nowhere", c.Below("x")), "symlink below")
		harness.Expired()
		target, err := os.Readlink(c.Path("x"))
		c.Ok(err, "readlink")
		harness.Equal(c, target, "nowhere", "target")
	}},
	{name: "backing_directory_moved", mountOnly: true, run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "data")
		fd := c.Open(c.Path("d", "f"), unix.O_RDWR, 0)
		dir := c.Open(c.Path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.Ok(unix.Rename(c.Below("d"), c.Below("e")), "rename below")
		c.Mkdir(c.Below("d"))
		c.Write(c.Below("d/f"), "another")
		harness.Expired()
		c.Holds(c.Path("d", "f"), "another")
		c.Holds(c.Path("e", "f"), "data")
		// The open ones follow their file, or say that they lost it.
		_, err := unix.Pwrite(fd, []byte("DATA"), 0)
		c.Ok(err, "write to the open file")
		c.Holds(c.Below("e/f"), "DATA")
		c.Holds(c.Below("d/f"), "another")
		f, err := unix.Openat(dir, "f", unix.O_RDONLY, 0)
		if err != nil {
			if !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOENT) {
				c.Fatalf("openat in the moved directory: got %v, want success, ESTALE or ENOENT", err)
			}
			return
		}
		defer unix.Close(f)
		c.FdHolds(f, "DATA")
	}},
	{name: "backing_symlink_is_no_way_out", mountOnly: true, run: func(c *checkT) {
		// A directory of the tree becomes a symlink to the outside: the daemon,
		// which is root, must not follow it. The outside is a directory of the
		// check's own and nothing of the machine, because a mount that does follow
		// takes the clean-up there too.
		outside, err := os.MkdirTemp("", "mapfs-outside-")
		c.Ok(err, "make the outside")
		c.Cleanup(func() { os.RemoveAll(outside) })
		c.Write(outside+"/f", "outside")
		c.Write(outside+"/secret", "")
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "inside")
		fd := c.Open(c.Path("d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		c.Ok(unix.Rename(c.Below("d"), c.Below("moved")), "rename below")
		c.Ok(unix.Symlink(outside, c.Below("d")), "symlink below")
		c.Cleanup(func() { _ = unix.Unlink(c.Below("d")) })
		for range 3 {
			f, err := unix.Openat(fd, "f", unix.O_RDONLY, 0)
			if err == nil {
				c.FdHolds(f, "inside")
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
			c.Ok(err, "list the outside")
			slices.Sort(got)
			harness.Equal(c, strings.Join(got, " "), "f secret", "names outside")
			harness.Expired()
		}
	}},
}
