package posix

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// bob is a third user beside root and harness.Alice.
const bob, bobGroup = harness.Alice + 1, harness.AliceGroup + 1

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// aclChecks are about access control lists (acl(5)), which the kernel has to obey.
var aclChecks = []check{
	{name: "acl_lets_one_user_in", run: func(c *checkT) {
		c.Write(c.Path("f"), "for alice")
		c.Ok(unix.Chmod(c.Path("f"), 0o600), "chmod")
		c.Ok(unix.Setxattr(c.Path("f"), aclAccess, acl(6, harness.Alice, 4, 0, 4, 0), 0), "setxattr")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Holds(c.Path("f"), "for alice")
			_, err := unix.Open(c.Path("f"), unix.O_WRONLY, 0)
			c.Errno(err, unix.EACCES, "open for writing by who may read")
		})
		c.As(bob, bobGroup, func() {
			_, err := unix.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Errno(err, unix.EACCES, "open by who is not in the list")
		})
	}},
	{name: "acl_keeps_one_user_out", run: func(c *checkT) {
		c.Write(c.Path("f"), "not for alice")
		c.Ok(unix.Setxattr(c.Path("f"), aclAccess, acl(6, harness.Alice, 0, 4, 4, 4), 0), "setxattr")
		c.As(harness.Alice, harness.AliceGroup, func() {
			_, err := unix.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Errno(err, unix.EACCES, "open by who is kept out")
		})
		c.As(bob, bobGroup, func() { c.Holds(c.Path("f"), "not for alice") })
	}},
	{name: "acl_and_mode_in_step", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o600), "chmod")
		c.Ok(unix.Setxattr(c.Path("f"), aclAccess, acl(6, harness.Alice, 6, 0, 6, 0), 0), "setxattr")
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o777, 0o660, "mode: the mask is the group's bits")
		c.Ok(unix.Chmod(c.Path("f"), 0o640), "chmod")
		c.hasACL("f", aclAccess, acl(6, harness.Alice, 6, 0, 4, 0))
		c.As(harness.Alice, harness.AliceGroup, func() {
			_, err := unix.Open(c.Path("f"), unix.O_WRONLY, 0)
			c.Errno(err, unix.EACCES, "open for writing against the mask")
		})
		c.Ok(unix.Removexattr(c.Path("f"), aclAccess), "removexattr")
		c.As(harness.Alice, harness.AliceGroup, func() {
			_, err := unix.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Errno(err, unix.EACCES, "open after the list is gone")
		})
	}},
	{name: "acl_default_is_inherited", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Setxattr(c.Path("d"), aclDefault, acl(7, harness.Alice, 6, 5, 7, 0), 0), "setxattr")
		old := unix.Umask(0o077)
		defer unix.Umask(old)
		unix.Close(c.Open(c.Path("d", "f"), unix.O_CREAT|unix.O_WRONLY, 0o666))
		// A default list stands in the place of the umask.
		harness.Equal(c, c.Lstat(c.Path("d", "f")).Mode&0o777, 0o660, "mode of the file")
		c.hasACL("d/f", aclAccess, acl(6, harness.Alice, 6, 5, 6, 0))
		c.Ok(unix.Mkdir(c.Path("d", "e"), 0o777), "mkdir")
		c.hasACL("d/e", aclDefault, acl(7, harness.Alice, 6, 5, 7, 0))
		unix.Close(c.Open(c.Path("plain"), unix.O_CREAT|unix.O_WRONLY, 0o666))
		harness.Equal(c, c.Lstat(c.Path("plain")).Mode&0o777, 0o600, "mode where the umask counts")
		c.Ok(unix.Mknod(c.Path("fifo"), unix.S_IFIFO|0o666, 0), "mknod")
		harness.Equal(c, c.Lstat(c.Path("fifo")).Mode&0o777, 0o600, "mode of a fifo")
		c.Ok(unix.Mkdir(c.Path("e"), 0o777), "mkdir")
		harness.Equal(c, c.Lstat(c.Path("e")).Mode&0o777, 0o700, "mode of a directory")
	}},
	{name: "acl_needs_the_owner", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o666), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Errno(unix.Setxattr(c.Path("f"), aclAccess, acl(6, bob, 6, 6, 6, 6), 0), unix.EPERM, "a list on another's file")
		})
	}},
	{name: "acl_drops_the_set_group_id_bit", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chown(c.Path("f"), harness.Alice, bobGroup), "chown")
		c.Ok(unix.Chmod(c.Path("f"), 0o2755), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			c.Ok(unix.Setxattr(c.Path("f"), aclAccess, acl(7, bob, 5, 5, 5, 5), 0), "setxattr")
		})
		harness.Equal(c, c.Lstat(c.Path("f")).Mode&0o7777, 0o755, "mode")
	}},
	{name: "set_group_id_in_a_directory_of_a_supplementary_group", run: func(c *checkT) {
		c.Mkdir(c.Path("d"))
		c.Ok(unix.Chown(c.Path("d"), harness.Alice, bobGroup), "chown")
		c.Ok(unix.Chmod(c.Path("d"), 0o2777), "chmod")
		for _, test := range []struct {
			name   string
			groups []uint32
			want   uint32
		}{{"member", []uint32{uint32(bobGroup)}, 0o2750}, {"other", nil, 0o0750}} {
			c.AsGroups(harness.Alice, harness.AliceGroup, test.groups, func() {
				unix.Close(c.Open(c.Path("d", test.name), unix.O_CREAT|unix.O_WRONLY, 0o2770)) // less the umask of 022
			})
			st := c.Lstat(c.Path("d", test.name))
			harness.Equal(c, st.Gid, uint32(bobGroup), "group of what a %s made", test.name)
			harness.Equal(c, st.Mode&0o7777, test.want, "mode of what a %s made", test.name)
		}
	}},
}

// acl is the value of a list with one user, and the permissions of owner, user, group,
// mask and others, in the layout of linux/posix_acl_xattr.h.
func acl(owner uint16, user uint32, its, group, mask, other uint16) []byte {
	const nobody = 1<<32 - 1
	value := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, owner, nobody}, {2, its, user}, {4, group, nobody}, {16, mask, nobody}, {32, other, nobody}} {
		value = binary.LittleEndian.AppendUint16(value, e.tag)
		value = binary.LittleEndian.AppendUint16(value, e.perm)
		value = binary.LittleEndian.AppendUint32(value, e.id)
	}
	return value
}

// hasACL checks a list.
func (c *checkT) hasACL(name, attribute string, want []byte) {
	value := make([]byte, 1024)
	n, err := unix.Getxattr(c.Path(name), attribute, value)
	c.Ok(err, "getxattr %s", attribute)
	if !bytes.Equal(value[:n], want) {
		c.Fatalf("%s of %s: got %x, want %x", attribute, name, value[:n], want)
	}
}
