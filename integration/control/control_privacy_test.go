package control

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// mayOpen fails the check unless the current user may, or may not, open a file
// and read it.
func (c *treeT) mayOpen(path string, flags int, may bool) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if !may {
		if err == nil {
			unix.Close(fd)
		}
		c.Errno(err, unix.EACCES, "open(%#x) of %s", flags, path)
		return
	}
	c.Ok(err, "open(%#x) of %s", flags, path)
	defer unix.Close(fd)
	if flags == unix.O_RDONLY {
		_, err = unix.Read(fd, make([]byte, 10))
		c.Ok(err, "read of %s", path)
	}
}

// tells are the parts of a file's directory that whoever may read the file may
// read.
var tells = []string{"status", "pages", "map", "unsynced", "backing"}

// privacyChecks are about other users: of a file they see here no more than they
// may read, and they command nothing.
var privacyChecks = []treeCheck{
	{name: "private_by_mode", run: func(c *treeT) {
		c.Write(c.Path("f"), "secret")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		for _, row := range []struct {
			mode     uint32
			uid, gid int
			groups   []uint32
			may      bool
		}{
			{0o644, harness.Bob, harness.BobGroup, nil, true},
			{0o640, harness.Bob, harness.BobGroup, nil, false},
			{0o600, harness.Bob, harness.BobGroup, nil, false},
			{0o600, harness.Alice, harness.AliceGroup, nil, true},
			{0o044, harness.Alice, harness.AliceGroup, nil, false}, // the owner's bits count, not the best
			{0o640, harness.Bob, harness.AliceGroup, nil, true},
			{0o640, harness.Bob, harness.BobGroup, []uint32{harness.AliceGroup}, true},
			{0o604, harness.Bob, harness.BobGroup, []uint32{harness.AliceGroup}, false},
			{0o222, harness.Bob, harness.BobGroup, nil, false},
		} {
			c.Ok(unix.Chmod(c.Path("f"), row.mode), "chmod")
			c.AsGroups(row.uid, row.gid, row.groups, func() {
				for _, name := range tells {
					c.mayOpen(c.of("f", name), unix.O_RDONLY, row.may)
				}
				_, err := unix.Getxattr(c.Path("f"), "user.mapfs.dirty_pages", make([]byte, 10))
				if row.may {
					c.Ok(err, "getxattr")
				} else {
					c.Errno(err, unix.EACCES, "getxattr")
				}
				// Commands and memory are the daemon's user's, whoever owns the file.
				c.mayOpen(c.of("f", "ctl"), unix.O_RDONLY, false)
				c.mayOpen(c.of("f", "ctl"), unix.O_WRONLY, false)
				c.mayOpen(c.of("f", "ctl"), unix.O_RDWR, false)
				c.mayOpen(c.of("f", "memory"), unix.O_RDONLY, false)
				for _, name := range tells {
					c.mayOpen(c.of("f", name), unix.O_WRONLY, false)
				}
			})
			for _, name := range tells {
				c.mayOpen(c.of("f", name), unix.O_RDONLY, true) // root may
			}
		}
	}},
	{name: "private_by_directory", run: func(c *treeT) {
		c.Mkdir(c.Path("d"))
		c.Mkdir(c.Path("d", "e"))
		c.Write(c.Path("d", "e", "f"), "secret name, secret text")
		c.text(c.of("d/e/f", "memory")) // mapped, so that maps has a line
		line := filepath.Base(c.Dir) + "/d/e/f"
		for _, row := range []struct {
			mode        uint32
			list, reach bool
		}{
			{0o755, true, true}, {0o711, false, true}, {0o700, false, false}, {0o744, true, false},
		} {
			c.Ok(unix.Chmod(c.Path("d"), row.mode), "chmod")
			c.As(harness.Alice, harness.AliceGroup, func() {
				_, err := os.ReadDir(c.of("d"))
				if row.list {
					c.Ok(err, "list of the mirror of mode %o", row.mode)
				} else {
					c.Errno(err, unix.EACCES, "list of the mirror of mode %o", row.mode)
				}
				for _, name := range tells {
					c.mayOpen(c.of("d/e/f", name), unix.O_RDONLY, row.reach)
				}
				harness.Equal(c, len(c.mapsOf(line)) == 1, row.reach, "line in maps with mode %o", row.mode)
			})
			harness.Equal(c, len(c.mapsOf(line)), 1, "lines in root's maps")
		}
	}},
	{name: "private_maps", run: func(c *treeT) {
		for name, mode := range map[string]uint32{"open": 0o644, "closed": 0o600, "group": 0o640} {
			c.Write(c.Path(name), name)
			c.Ok(unix.Chmod(c.Path(name), mode), "chmod")
			c.Ok(unix.Chown(c.Path(name), -1, harness.BobGroup), "chown")
			c.text(c.of(name, "memory"))
		}
		seen := func(name string) bool { return len(c.mapsOf(filepath.Base(c.Dir)+"/"+name)) == 1 }
		c.As(harness.Alice, harness.AliceGroup, func() {
			harness.Equal(c, seen("open"), true, "alice sees what all may read")
			harness.Equal(c, seen("closed"), false, "alice sees root's")
			harness.Equal(c, seen("group"), false, "alice sees bob's group's")
		})
		c.AsGroups(harness.Bob, harness.AliceGroup, []uint32{harness.BobGroup}, func() {
			harness.Equal(c, seen("group"), true, "bob sees his group's")
			harness.Equal(c, seen("closed"), false, "bob sees root's")
		})
		harness.Equal(c, seen("closed"), true, "root sees root's")
		// A file that is gone is nobody else's to see.
		fd := c.Open(c.Path("open"), unix.O_RDWR, 0)
		_, err := unix.Pread(fd, make([]byte, 4), 0)
		c.Ok(err, "pread")
		c.Ok(unix.Unlink(c.Path("open")), "unlink")
		ino := fmt.Sprintf(" %d ", c.Fstat(fd).Ino)
		harness.Equal(c, strings.Contains(c.text(c.tree("maps")), ino), true, "root sees the mapping of a removed file")
		c.As(harness.Alice, harness.AliceGroup, func() {
			harness.Equal(c, strings.Contains(c.text(c.tree("maps")), ino), false, "alice sees the mapping of a removed file")
		})
	}},
	{name: "private_root", run: func(c *treeT) {
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.mayOpen(c.tree("status"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("maps"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("metrics"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("events"), unix.O_RDONLY, false)
			c.mayOpen(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, false)
			c.mayOpen(c.tree("faults"), unix.O_RDONLY, false)
			c.mayOpen(c.tree("ctl"), unix.O_RDONLY, false)
			c.mayOpen(c.tree("ctl"), unix.O_WRONLY, false)
			c.mayOpen(c.tree("status"), unix.O_WRONLY, false)
			_, err := harness.RunErr("sh", "-c", `env echo sync >"$1"`, "sh", c.tree("ctl"))
			if err == nil || !strings.Contains(err.Error(), "denied") {
				c.Fatalf("a command by another user: %v", err)
			}
		})
	}},
	{name: "private_status_tells_no_names", run: func(c *treeT) {
		// Everybody may read the mount's status and metrics: no file may be in them.
		c.Ok(os.WriteFile(c.Path("very-secret-name"), []byte("x"), 0o600), "write")
		c.text(c.of("very-secret-name", "memory"))
		c.As(harness.Alice, harness.AliceGroup, func() {
			for _, name := range []string{"status", "metrics", "maps"} {
				if strings.Contains(c.text(c.tree(name)), "secret") {
					c.Fatalf("%s tells another user a name", name)
				}
			}
			_, err := strconv.Atoi(c.value(c.tree("status"), "files"))
			c.Ok(err, "files in status")
		})
	}},
}
