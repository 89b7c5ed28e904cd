package posix

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
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
		c.setidDrops(0o6777, 0o777, func(int) error { return unix.Truncate(c.Path("f"), 1) })
	}},
	{name: "setid_open_truncate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(int) error {
			fd, err := unix.Open(c.Path("f"), unix.O_WRONLY|unix.O_TRUNC, 0)
			unix.Close(fd)
			return err
		})
	}},
	{name: "setid_fallocate_by_a_user", run: func(c *checkT) {
		c.setidDrops(0o6777, 0o777, func(fd int) error { return unix.Fallocate(fd, 0, 0, 100) })
	}},
	{name: "setid_kept_for_root", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		c.Ok(unix.Chmod(c.Path("f"), 0o6755), "chmod")
		fd := c.Open(c.Path("f"), unix.O_RDWR, 0)
		for _, op := range []struct {
			name string
			do   func() error
		}{
			{"write", func() error { _, err := unix.Pwrite(fd, []byte("x"), 0); return err }},
			{"ftruncate", func() error { return unix.Ftruncate(fd, 2) }},
			{"truncate", func() error { return unix.Truncate(c.Path("f"), 1) }},
		} {
			c.Ok(op.do(), "%s", op.name)
			harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o6755, "mode after %s by root", op.name)
		}
	}},
	{name: "setid_chown", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o6755), "chmod")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o755, "mode after chown by root")
		c.Ok(unix.Chmod(c.Path("f"), 0o6755), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Ok(unix.Chown(c.Path("f"), -1, harness.AliceGroup), "chgrp")
		})
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o755, "mode after chgrp by the owner")
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Chmod(c.Path("d"), 0o2755), "chmod")
		c.Ok(unix.Chown(c.Path("d"), harness.Alice, harness.AliceGroup), "chown")
		harness.Equal(c, c.Lstat(c.Path("d")).Mode&0o7777, 0o2755, "mode of a directory after chown")
	}},
	{name: "setgid_chmod_by_a_stranger_to_the_group", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.BobGroup), "chown")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Ok(unix.Chmod(c.Path("f"), 0o2755), "chmod")
		})
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o755, "mode")
	}},
	{name: "capability_dropped_by_write", run: func(c *checkT) {
		c.Write(c.Path("f"), "program")
		c.Ok(unix.Setxattr(c.Path("f"), "security.capability", capNetRaw, 0), "setxattr")
		fd := c.Open(c.Path("f"), unix.O_WRONLY, 0)
		_, err := unix.Write(fd, []byte("other"))
		c.Ok(err, "write")
		_, err = unix.Getxattr(c.Path("f"), "security.capability", make([]byte, 64))
		c.Errno(err, unix.ENODATA, "getxattr after the write")
	}},
}

// capNetRaw is a security.capability value: revision 2, CAP_NET_RAW permitted
// (linux/capability.h, struct vfs_cap_data).
var capNetRaw = []byte{0x01, 0, 0, 0x02, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// setidDrops checks the mode of root's file f, which alice may write, before and
// after she does something with it.
func (c *checkT) setidDrops(before, after uint32, do func(fd int) error) {
	c.Write(c.Path("f"), "data")
	c.Ok(unix.Chmod(c.Path("f"), before), "chmod")
	harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, before, "mode before")
	c.As(harness.Alice, harness.AliceGroup, func() {
		fd, err := unix.Open(c.Path("f"), unix.O_RDWR, 0)
		c.Ok(err, "open")
		defer unix.Close(fd)
		c.Ok(do(fd), "the change")
		harness.Equal(c, c.Fstat(fd).Mode&0o7777, after, "mode after, by the handle")
	})
	harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, after, "mode after")
	harness.Equal(c, c.Lstat(c.Native()+"/f").Mode&0o7777, after, "mode after, below")
}

// userChecks are about who may do what, and to whom it then belongs.
var userChecks = []check{
	{name: "owner_of_new_files", run: func(c *checkT) {
		c.Ok(unix.Chmod(c.Dir, 0o777), "chmod")
		var names []string
		c.As(harness.Alice, harness.AliceGroup, func() { names = c.MakeOneOfEach(c.Dir) })
		for _, name := range names {
			for _, dir := range []string{c.Dir, c.Native()} {
				st := c.Lstat(filepath.Join(dir, name))
				harness.Equal(c, st.Uid, uint32(harness.Alice), "owner of the %s", name)
				harness.Equal(c, st.Gid, uint32(harness.AliceGroup), "group of the %s", name)
			}
		}
	}},
	{name: "setgid_directory", run: func(c *checkT) {
		c.Ok(unix.Chown(c.Dir, 0, harness.BobGroup), "chown")
		c.Ok(unix.Chmod(c.Dir, 0o2777), "chmod")
		check := func(names []string, owner uint32) {
			for _, name := range names {
				st := c.Lstat(c.Path(name))
				harness.Equal(c, st.Uid, owner, "owner of the %s", name)
				harness.Equal(c, st.Gid, uint32(harness.BobGroup), "group of the %s", name)
				harness.Equal(c, st.Mode&unix.S_ISGID != 0, name == "dir", "set-gid bit of the %s", name)
				c.Ok(os.Remove(c.Path(name)), "remove")
			}
		}
		check(c.MakeOneOfEach(c.Dir), 0)
		var names []string
		c.As(harness.Alice, harness.AliceGroup, func() { names = c.MakeOneOfEach(c.Dir) })
		check(names, harness.Alice)
	}},
	{name: "setgid_directory_strips_the_bit_of_strangers", run: func(c *checkT) {
		// A user outside the group cannot make a set-group-id program of it.
		c.Ok(unix.Chown(c.Dir, 0, harness.BobGroup), "chown")
		c.Ok(unix.Chmod(c.Dir, 0o2777), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() { c.Open(c.Path("f"), unix.O_CREAT|unix.O_WRONLY, 0o2755) })
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o755, "mode")
	}},
	{name: "sticky_directory", run: func(c *checkT) {
		c.Mkdir(c.Path("tmp"))
		c.Ok(unix.Chmod(c.Path("tmp"), 0o1777), "chmod")
		harness.Equal(c, c.Lstat(c.Path("tmp")).Mode&0o7777, 0o1777, "mode")
		var names []string
		c.As(harness.Alice, harness.AliceGroup, func() { names = c.MakeOneOfEach(c.Path("tmp")) })
		c.As(harness.Bob, harness.BobGroup, func() {
			for _, name := range names {
				mine := c.Path("tmp", name)
				err := unix.Unlink(mine)
				if name == "dir" {
					err = unix.Rmdir(mine)
				}
				c.Errno(err, unix.EPERM, "removal of another's %s", name)
				c.Errno(unix.Rename(mine, c.Path("tmp", "stolen")), unix.EPERM, "rename of another's %s", name)
			}
			c.Write(c.Path("tmp", "bobs"), "")
			c.Errno(unix.Rename(c.Path("tmp", "bobs"), c.Path("tmp", "file")), unix.EPERM, "rename over another's file")
			c.Ok(unix.Unlink(c.Path("tmp", "bobs")), "removal of one's own")
		})
		c.As(harness.Alice, harness.AliceGroup, func() {
			for _, name := range names {
				c.Ok(os.Remove(c.Path("tmp", name)), "removal of one's own %s", name)
			}
		})
	}},
	{name: "permission_of_files", run: func(c *checkT) {
		c.Write(c.Path("f"), "secret")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		for _, row := range []struct {
			mode     uint32
			uid, gid int
			flags    int
			allowed  bool
		}{
			{0o400, harness.Alice, harness.AliceGroup, unix.O_RDONLY, true},
			{0o400, harness.Alice, harness.AliceGroup, unix.O_WRONLY, false},
			{0o044, harness.Alice, harness.AliceGroup, unix.O_RDONLY, false}, // the owner's bits count, not the best
			{0o040, harness.Bob, harness.AliceGroup, unix.O_RDONLY, true},
			{0o404, harness.Bob, harness.AliceGroup, unix.O_RDONLY, false},
			{0o004, harness.Bob, harness.BobGroup, unix.O_RDONLY, true},
			{0o660, harness.Bob, harness.BobGroup, unix.O_RDONLY, false},
			{0o006, harness.Bob, harness.BobGroup, unix.O_RDWR, true},
			{0o004, harness.Bob, harness.BobGroup, unix.O_RDONLY | unix.O_TRUNC, false},
			{0, 0, 0, unix.O_RDWR, true},
		} {
			c.Ok(unix.Chmod(c.Path("f"), row.mode), "chmod")
			try := func() {
				fd, err := unix.Open(c.Path("f"), row.flags, 0)
				what := fmt.Sprintf("open(%#x) by %d:%d of mode %o", row.flags, row.uid, row.gid, row.mode)
				if row.allowed {
					c.Ok(err, "%s", what)
					unix.Close(fd)
				} else {
					c.Errno(err, unix.EACCES, "%s", what)
				}
			}
			if row.uid == 0 {
				try()
			} else {
				c.As(row.uid, row.gid, try)
			}
		}
		c.Holds(c.Path("f"), "secret")
	}},
	{name: "permission_of_directories", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Write(c.Path("d", "f"), "inside")
		c.Ok(unix.Chmod(c.Path("d"), 0o711), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			_, err := os.ReadDir(c.Path("d"))
			c.Errno(err, unix.EACCES, "list a directory without r")
			c.Holds(c.Path("d", "f"), "inside")
			_, err = unix.Open(c.Path("d", "new"), unix.O_CREAT|unix.O_WRONLY, 0o644)
			c.Errno(err, unix.EACCES, "create without w")
			c.Errno(unix.Mkdir(c.Path("d", "new"), 0o755), unix.EACCES, "mkdir without w")
			c.Errno(unix.Unlink(c.Path("d", "f")), unix.EACCES, "unlink without w")
			c.Errno(unix.Rename(c.Path("d", "f"), c.Path("d", "g")), unix.EACCES, "rename without w")
		})
		c.Ok(unix.Chmod(c.Path("d"), 0o744), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			names, err := readNames(c.Path("d"))
			c.Ok(err, "list with r")
			harness.Equal(c, fmt.Sprint(names), "[f]", "names")
			var st unix.Stat_t
			c.Errno(unix.Lstat(c.Path("d", "f"), &st), unix.EACCES, "stat without x")
		})
	}},
	{name: "permission_of_changes", run: func(c *checkT) {
		c.Ok(unix.Chmod(c.Dir, 0o777), "chmod")
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o666), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Errno(unix.Chmod(c.Path("f"), 0o777), unix.EPERM, "chmod of another's file")
			c.Errno(unix.Chown(c.Path("f"), harness.Alice, -1), unix.EPERM, "chown to oneself")
			c.Errno(unix.Mknod(c.Path("dev"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM,
				"mknod of a device")
		})
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Ok(unix.Chmod(c.Path("f"), 0o600), "chmod of one's own file")
			c.Errno(unix.Chown(c.Path("f"), harness.Bob, -1), unix.EPERM, "give a file away")
			c.Errno(unix.Chown(c.Path("f"), -1, harness.BobGroup), unix.EPERM, "chgrp to a strange group")
		})
	}},
	{name: "supplementary_groups", run: func(c *checkT) {
		c.Write(c.Path("f"), "for the group")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, harness.AliceGroup), "chown")
		c.Ok(unix.Chmod(c.Path("f"), 0o640), "chmod")
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Chown(c.Path("d"), harness.Alice, harness.AliceGroup), "chown")
		c.Ok(unix.Chmod(c.Path("d"), 0o770), "chmod")
		c.AsGroups(harness.Bob, harness.BobGroup, []uint32{harness.AliceGroup}, func() {
			c.Holds(c.Path("f"), "for the group")
			c.Write(c.Path("d", "new"), "x")
			c.Errno(unix.Access(c.Path("f"), unix.W_OK), unix.EACCES, "write")
			c.Ok(unix.Chown(c.Path("d", "new"), -1, harness.AliceGroup), "chgrp to a group of one's own")
		})
		harness.Equal(c, c.Lstat(c.Path("d", "new")).Uid, uint32(harness.Bob), "owner")
		harness.Equal(c, c.Lstat(c.Path("d", "new")).Gid, uint32(harness.AliceGroup), "group")
	}},
}
