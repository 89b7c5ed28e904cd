package integration

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// setidChecks are about when the set-user-id and set-group-id bits go.
var setidChecks = []check{
	{name: "setid_write_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(fd int) error {
			_, err := unix.Pwrite(fd, []byte("x"), 0)
			return err
		})
	}},
	{name: "setid_second_write_by_a_user", run: func(c *checkT) {
		// The kernel remembers that there was nothing to drop: chmod must undo that.
		c.setidDrops(0o777, 0o777, func(fd int) error {
			_, err := unix.Pwrite(fd, []byte("x"), 0)
			return err
		})
		c.setidDrops(0o6777, 0o777, func(fd int) error {
			_, err := unix.Pwrite(fd, []byte("y"), 0)
			return err
		})
	}},
	{name: "setid_ftruncate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(fd int) error { return unix.Ftruncate(fd, 1) })
	}},
	{name: "setid_truncate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(int) error { return unix.Truncate(c.path("f"), 1) })
	}},
	{name: "setid_open_truncate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(int) error {
			fd, err := unix.Open(c.path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
			unix.Close(fd)
			return err
		})
	}},
	{name: "setid_fallocate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
	}},
	{name: "setid_kept_for_root", run: func(c *checkT) {
		c.write(c.path("f"), "data")
		c.ok(unix.Chmod(c.path("f"), 0o6755), "chmod")
		fd := c.open(c.path("f"), unix.O_RDWR, 0)
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"write", func() error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err }},
			{"ftruncate", func() error { return unix.Ftruncate(fd, 2) }},
			{"truncate", func() error { return unix.Truncate(c.path("f"), 1) }},
		} {
			c.ok(op.do(), "%s", op.name)
			equal(c, c.lstat(c.path("f")).Mode&0o7777, 0o6755, "mode after %s by root", op.name)
		}
	}},
	{name: "setid_chown", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Chmod(c.path("f"), 0o6755), "chmod")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		equal(c, c.lstat(c.path("f")).Mode&0o7777, 0o755, "mode after chown by root")
		c.ok(unix.Chmod(c.path("f"), 0o6755), "chmod")
		c.as(alice, aliceGroup, func() {
			c.ok(unix.Chown(c.path("f"), -1, aliceGroup), "chgrp")
		})
		equal(c, c.lstat(c.path("f")).Mode&0o7777, 0o755, "mode after chgrp by the owner")
		c.mkdir(c.path("d"))
		c.ok(unix.Chmod(c.path("d"), 0o2755), "chmod")
		c.ok(unix.Chown(c.path("d"), alice, aliceGroup), "chown")
		equal(c, c.lstat(c.path("d")).Mode&0o7777, 0o2755, "mode of a directory after chown")
	}},
	{name: "setgid_chmod_by_a_stranger_to_the_group", run: func(c *checkT) {
		c.write(c.path("f"), "")
		c.ok(unix.Chown(c.path("f"), alice, bobGroup), "chown")
		c.as(alice, aliceGroup, func() {
			c.ok(unix.Chmod(c.path("f"), 0o2755), "chmod")
		})
		equal(c, c.lstat(c.path("f")).Mode&0o7777, 0o755, "mode")
	}},
	{name: "capability_dropped_by_write", run: func(c *checkT) {
		c.write(c.path("f"), "program")
		c.ok(unix.Setxattr(c.path("f"), "security.capability", capNetRaw, 0), "setxattr")
		fd := c.open(c.path("f"), unix.O_WRONLY, 0)
		_, err := unix.Write(fd, []byte("other"))
		c.ok(err, "write")
		_, err = unix.Getxattr(c.path("f"), "security.capability", make([]byte, 64))
		c.errno(err, unix.ENODATA, "getxattr after the write")
	}},
}

// capNetRaw is a security.capability value: revision 2, CAP_NET_RAW permitted
// (linux/capability.h, struct vfs_cap_data).
var capNetRaw = []byte{0x01, 0, 0, 0x02, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// setidDrops checks the mode of root's file f, which alice may write, before and
// after she does something with it.
func (c *checkT) setidDrops(before, after uint32, do func(fd int) error) {
	c.write(c.path("f"), "data")
	c.ok(unix.Chmod(c.path("f"), before), "chmod")
	equal(c, c.lstat(c.path("f")).Mode&0o7777, before, "mode before")
	c.as(alice, aliceGroup, func() {
		fd, err := unix.Open(c.path("f"), unix.O_RDWR, 0)
		c.ok(err, "open")
		defer unix.Close(fd)
		c.ok(do(fd), "the change")
		equal(c, c.fstat(fd).Mode&0o7777, after, "mode after, by the handle")
	})
	equal(c, c.lstat(c.path("f")).Mode&0o7777, after, "mode after")
	equal(c, c.lstat(c.native()+"/f").Mode&0o7777, after, "mode after, below")
}

// makeOneOfEach makes one thing of each kind in dir, and returns their names.
func (c *checkT) makeOneOfEach(dir string) []string {
	in := func(name string) string { return filepath.Join(dir, name) }
	fd, err := unix.Open(in("file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	c.ok(err, "create")
	unix.Close(fd)
	c.ok(unix.Mkdir(in("dir"), 0o755), "mkdir")
	c.ok(unix.Symlink("x", in("symlink")), "symlink")
	c.ok(unix.Mkfifo(in("fifo"), 0o644), "mkfifo")
	c.ok(unix.Mknod(in("socket"), unix.S_IFSOCK|0o644, 0), "mknod of a socket")
	c.ok(unix.Mknod(in("regular"), unix.S_IFREG|0o644, 0), "mknod of a regular file")
	return []string{"file", "dir", "symlink", "fifo", "socket", "regular"}
}

// userChecks are about who may do what, and to whom it then belongs.
var userChecks = []check{
	{name: "owner_of_new_files", run: func(c *checkT) {
		c.ok(unix.Chmod(c.dir, 0o777), "chmod")
		var names []string
		c.as(alice, aliceGroup, func() { names = c.makeOneOfEach(c.dir) })
		for _, name := range names {
			for _, dir := range []string{c.dir, c.native()} {
				st := c.lstat(filepath.Join(dir, name))
				equal(c, st.Uid, uint32(alice), "owner of the %s", name)
				equal(c, st.Gid, uint32(aliceGroup), "group of the %s", name)
			}
		}
	}},
	{name: "setgid_directory", run: func(c *checkT) {
		c.ok(unix.Chown(c.dir, 0, bobGroup), "chown")
		c.ok(unix.Chmod(c.dir, 0o2777), "chmod")
		check := func(names []string, owner uint32) {
			for _, name := range names {
				st := c.lstat(c.path(name))
				equal(c, st.Uid, owner, "owner of the %s", name)
				equal(c, st.Gid, uint32(bobGroup), "group of the %s", name)
				equal(c, st.Mode&unix.S_ISGID != 0, name == "dir", "set-gid bit of the %s", name)
				c.ok(os.Remove(c.path(name)), "remove")
			}
		}
		check(c.makeOneOfEach(c.dir), 0)
		var names []string
		c.as(alice, aliceGroup, func() { names = c.makeOneOfEach(c.dir) })
		check(names, alice)
	}},
	{name: "setgid_directory_strips_the_bit_of_strangers", run: func(c *checkT) {
		// A user outside the group cannot make a set-group-id program of it.
		c.ok(unix.Chown(c.dir, 0, bobGroup), "chown")
		c.ok(unix.Chmod(c.dir, 0o2777), "chmod")
		c.as(alice, aliceGroup, func() { c.open(c.path("f"), unix.O_CREAT|unix.O_WRONLY, 0o2755) })
		equal(c, c.lstat(c.path("f")).Mode&0o7777, 0o755, "mode")
	}},
	{name: "sticky_directory", run: func(c *checkT) {
		c.mkdir(c.path("tmp"))
		c.ok(unix.Chmod(c.path("tmp"), 0o1777), "chmod")
		equal(c, c.lstat(c.path("tmp")).Mode&0o7777, 0o1777, "mode")
		var names []string
		c.as(alice, aliceGroup, func() { names = c.makeOneOfEach(c.path("tmp")) })
		c.as(bob, bobGroup, func() {
			for _, name := range names {
				mine := c.path("tmp", name)
				err := unix.Unlink(mine)
				if name == "dir" {
					err = unix.Rmdir(mine)
				}
				c.errno(err, unix.EPERM, "removal of another's %s", name)
				c.errno(unix.Rename(mine, c.path("tmp", "stolen")), unix.EPERM, "rename of another's %s", name)
			}
			c.write(c.path("tmp", "bobs"), "")
			c.errno(unix.Rename(c.path("tmp", "bobs"), c.path("tmp", "file")), unix.EPERM, "rename over another's file")
			c.ok(unix.Unlink(c.path("tmp", "bobs")), "removal of one's own")
		})
		c.as(alice, aliceGroup, func() {
			for _, name := range names {
				c.ok(os.Remove(c.path("tmp", name)), "removal of one's own %s", name)
			}
		})
	}},
	{name: "permission_of_files", run: func(c *checkT) {
		c.write(c.path("f"), "secret")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		for _, row := range []struct {
			mode     uint32
			uid, gid int
			flags    int
			allowed  bool
		}{
			{0o400, alice, aliceGroup, unix.O_RDONLY, true},
			{0o400, alice, aliceGroup, unix.O_WRONLY, false},
			{0o044, alice, aliceGroup, unix.O_RDONLY, false}, // the owner's bits count, not the best
			{0o040, bob, aliceGroup, unix.O_RDONLY, true},
			{0o404, bob, aliceGroup, unix.O_RDONLY, false},
			{0o004, bob, bobGroup, unix.O_RDONLY, true},
			{0o660, bob, bobGroup, unix.O_RDONLY, false},
			{0o006, bob, bobGroup, unix.O_RDWR, true},
			{0o004, bob, bobGroup, unix.O_RDONLY | unix.O_TRUNC, false},
			{0, 0, 0, unix.O_RDWR, true},
		} {
			c.ok(unix.Chmod(c.path("f"), row.mode), "chmod")
			try := func() {
				fd, err := unix.Open(c.path("f"), row.flags, 0)
				what := fmt.Sprintf("open(%#x) by %d:%d of mode %o", row.flags, row.uid, row.gid, row.mode)
				if row.allowed {
					c.ok(err, "%s", what)
					unix.Close(fd)
				} else {
					c.errno(err, unix.EACCES, "%s", what)
				}
			}
			if row.uid == 0 {
				try()
			} else {
				c.as(row.uid, row.gid, try)
			}
		}
		c.holds(c.path("f"), "secret")
	}},
	{name: "permission_of_directories", run: func(c *checkT) {
		c.mkdir(c.path("d"))
		c.write(c.path("d", "f"), "inside")
		c.ok(unix.Chmod(c.path("d"), 0o711), "chmod")
		c.as(alice, aliceGroup, func() {
			_, err := os.ReadDir(c.path("d"))
			c.errno(err, unix.EACCES, "list a directory without r")
			c.holds(c.path("d", "f"), "inside")
			_, err = unix.Open(c.path("d", "new"), unix.O_CREAT|unix.O_WRONLY, 0o644)
			c.errno(err, unix.EACCES, "create without w")
			c.errno(unix.Mkdir(c.path("d", "new"), 0o755), unix.EACCES, "mkdir without w")
			c.errno(unix.Unlink(c.path("d", "f")), unix.EACCES, "unlink without w")
			c.errno(unix.Rename(c.path("d", "f"), c.path("d", "g")), unix.EACCES, "rename without w")
		})
		c.ok(unix.Chmod(c.path("d"), 0o744), "chmod")
		c.as(alice, aliceGroup, func() {
			names, err := readNames(c.path("d"))
			c.ok(err, "list with r")
			equal(c, fmt.Sprint(names), "[f]", "names")
			var st unix.Stat_t
			c.errno(unix.Lstat(c.path("d", "f"), &st), unix.EACCES, "stat without x")
		})
	}},
	{name: "permission_of_changes", run: func(c *checkT) {
		c.ok(unix.Chmod(c.dir, 0o777), "chmod")
		c.write(c.path("f"), "")
		c.ok(unix.Chmod(c.path("f"), 0o666), "chmod")
		c.as(alice, aliceGroup, func() {
			c.errno(unix.Chmod(c.path("f"), 0o777), unix.EPERM, "chmod of another's file")
			c.errno(unix.Chown(c.path("f"), alice, -1), unix.EPERM, "chown to oneself")
			c.errno(unix.Mknod(c.path("dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM,
				"mknod of a device")
		})
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		c.as(alice, aliceGroup, func() {
			c.ok(unix.Chmod(c.path("f"), 0o600), "chmod of one's own file")
			c.errno(unix.Chown(c.path("f"), bob, -1), unix.EPERM, "give a file away")
			c.errno(unix.Chown(c.path("f"), -1, bobGroup), unix.EPERM, "chgrp to a strange group")
		})
	}},
	{name: "supplementary_groups", run: func(c *checkT) {
		c.write(c.path("f"), "for the group")
		c.ok(unix.Chown(c.path("f"), alice, aliceGroup), "chown")
		c.ok(unix.Chmod(c.path("f"), 0o640), "chmod")
		c.mkdir(c.path("d"))
		c.ok(unix.Chown(c.path("d"), alice, aliceGroup), "chown")
		c.ok(unix.Chmod(c.path("d"), 0o770), "chmod")
		c.asGroups(bob, bobGroup, []uint32{aliceGroup}, func() {
			c.holds(c.path("f"), "for the group")
			c.write(c.path("d", "new"), "x")
			c.errno(unix.Access(c.path("f"), unix.W_OK), unix.EACCES, "write")
			c.ok(unix.Chown(c.path("d", "new"), -1, aliceGroup), "chgrp to a group of one's own")
		})
		equal(c, c.lstat(c.path("d", "new")).Uid, uint32(bob), "owner")
		equal(c, c.lstat(c.path("d", "new")).Gid, uint32(aliceGroup), "group")
	}},
}
