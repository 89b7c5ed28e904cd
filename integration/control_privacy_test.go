package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mayOpen fails the check unless the current user may, or may not, open a file
// and read it.
func (c *checkT) mayOpen(path string, flags int, may bool) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if !may {
		if err == nil {
			unix.Close(fd)
		}
		c.errno(err, unix.EACCES, "open(%#x) of %s", flags, path)
		return
	}
	c.ok(err, "open(%#x) of %s", flags, path)
	defer unix.Close(fd)
	if flags == unix.O_RDONLY {
		_, err = unix.Read(fd, make([]byte, 10))
		c.ok(err, "read of %s", path)
	}
}

// tells are the parts of a file's directory that whoever may read the file may
// read.
var tells = []string{"status", "pages", "map", "unsynced", "backing"}

// privacyChecks are about other users: of a file they see here no more than they
// may read, and they command nothing.
var privacyChecks = []check{
	{name: "private_by_mode", run: func(c *checkT) {
		c.write(c.path("f"), "secret")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		for _, row := range []struct {
			mode     uint32
			uid, gid int
			groups   []uint32
			may      bool
		}{
			{0o644, bob, bobGroup, nil, true},
			{0o640, bob, bobGroup, nil, false},
			{0o600, bob, bobGroup, nil, false},
			{0o600, alice, aliceGroup, nil, true},
			{0o044, alice, aliceGroup, nil, false}, // the owner's bits count, not the best
			{0o640, bob, aliceGroup, nil, true},
			{0o640, bob, bobGroup, []uint32{aliceGroup}, true},
			{0o604, bob, bobGroup, []uint32{aliceGroup}, false},
			{0o222, bob, bobGroup, nil, false},
		} {
			c.ok(unix.Chmod(c.path("f"), row.mode), "chmod")
			c.asGroups(row.uid, row.gid, row.groups, func() {
				for _, name := range tells {
					c.mayOpen(c.of("f", name), unix.O_RDONLY, row.may)
				}
				_, err := unix.Getxattr(c.path("f"), "user.mapfs.dirty_pages", make([]byte, 10))
				if row.may {
					c.ok(err, "getxattr")
				} else {
					c.errno(err, unix.EACCES, "getxattr")
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
	{name: "private_by_directory", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		c.mkdir(c.path("d", "e"))
		c.write(c.path("d", "e", "f"), "secret name, secret text")
		c.text(c.of("d/e/f", "memory")) // mapped, so that maps has a line
		line := filepath.Base(c.dir) + "/d/e/f"
		for _, row := range []struct {
			mode        uint32
			list, reach bool
		}{
			{0o755, true, true}, {0o711, false, true}, {0o700, false, false}, {0o744, true, false},
		} {
			c.ok(unix.Chmod(c.path("d"), row.mode), "chmod")
			c.as(alice, aliceGroup, func() {
				_, err := os.ReadDir(c.of("d"))
				if row.list {
					c.ok(err, "list of the mirror of mode %o", row.mode)
				} else {
					c.errno(err, unix.EACCES, "list of the mirror of mode %o", row.mode)
				}
				for _, name := range tells {
					c.mayOpen(c.of("d/e/f", name), unix.O_RDONLY, row.reach)
				}
				equal(c, len(c.mapsOf(line)) == 1, row.reach, "line in maps with mode %o", row.mode)
			})
			equal(c, len(c.mapsOf(line)), 1, "lines in root's maps")
		}
	}},
	{name: "private_maps", run: func(c *checkT) {
		for name, mode := range map[string]uint32{"open": 0o644, "closed": 0o600, "group": 0o640} {
			c.write(c.path(name), name)
			c.ok(unix.Chmod(c.path(name), mode), "chmod")
			c.ok(unix.Chown(c.path(name), -1, bobGroup), "chown")
			c.text(c.of(name, "memory"))
		}
		seen := func(name string) bool { return len(c.mapsOf(filepath.Base(c.dir)+"/"+name)) == 1 }
		c.as(alice, aliceGroup, func() {
			equal(c, seen("open"), true, "alice sees what all may read")
			equal(c, seen("closed"), false, "alice sees root's")
			equal(c, seen("group"), false, "alice sees bob's group's")
		})
		c.asGroups(bob, aliceGroup, []uint32{bobGroup}, func() {
			equal(c, seen("group"), true, "bob sees his group's")
			equal(c, seen("closed"), false, "bob sees root's")
		})
		equal(c, seen("closed"), true, "root sees root's")
		// A file that is gone is nobody else's to see.
		fd := c.open(c.path("open"), unix.O_RDWR, 0)
		_, err := unix.Pread(fd, make([]byte, 4), 0)
		c.ok(err, "pread")
		c.ok(unix.Unlink(c.path("open")), "unlink")
		ino := fmt.Sprintf(" %d ", c.fstat(fd).Ino)
		equal(c, strings.Contains(c.text(c.tree("maps")), ino), true, "root sees the mapping of a removed file")
		c.as(alice, aliceGroup, func() {
			equal(c, strings.Contains(c.text(c.tree("maps")), ino), false, "alice sees the mapping of a removed file")
		})
	}},
	{name: "private_root", run: func(c *checkT) {
		c.as(alice, aliceGroup, func() {
			c.mayOpen(c.tree("status"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("maps"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("metrics"), unix.O_RDONLY, true)
			c.mayOpen(c.tree("events"), unix.O_RDONLY, false)
			c.mayOpen(c.tree("events"), unix.O_RDONLY|unix.O_NONBLOCK, false)
			c.mayOpen(c.tree("ctl"), unix.O_RDONLY, false)
			c.mayOpen(c.tree("ctl"), unix.O_WRONLY, false)
			c.mayOpen(c.tree("status"), unix.O_WRONLY, false)
			_, err := runErr("sh", "-c", `env echo sync >"$1"`, "sh", c.tree("ctl"))
			if err == nil || !strings.Contains(err.Error(), "denied") {
				c.Fatalf("a command by another user: %v", err)
			}
		})
	}},
	{name: "private_status_tells_no_names", run: func(c *checkT) {
		// Everybody may read the mount's status and metrics: no file may be in them.
		c.ok(os.WriteFile(c.path("very-secret-name"), []byte("x"), 0o600), "write")
		c.text(c.of("very-secret-name", "memory"))
		c.as(alice, aliceGroup, func() {
			for _, name := range []string{"status", "metrics", "maps"} {
				if strings.Contains(c.text(c.tree(name)), "secret") {
					c.Fatalf("%s tells another user a name", name)
				}
			}
			_, err := strconv.Atoi(c.value(c.tree("status"), "files"))
			c.ok(err, "files in status")
		})
	}},
}
