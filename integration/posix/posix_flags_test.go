package posix

import (
	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// The attributes of chattr(1) that are used here: FS_IMMUTABLE_FL, FS_APPEND_FL and
// FS_NODUMP_FL of linux/fs.h.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNodump    = 0x40
)

// flagsChecks are about the attributes of inodes.
var flagsChecks = []check{
	{name: "inode_flags", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Mkdir(c.Path("d"))
		for _, name := range []string{"f", "d"} {
			c.setFlags(name, flagNodump)
			harness.Equal(c, c.flags(c.Path(name))&flagNodump, flagNodump, "flags of %s", name)
			harness.Equal(c, c.flags(c.Native()+"/"+name)&flagNodump, flagNodump, "flags of %s in the directory", name)
			c.setFlags(name, 0)
			harness.Equal(c, c.flags(c.Path(name))&flagNodump, 0, "flags of %s afterwards", name)
		}
	}},
	{name: "inode_flag_immutable", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		defer c.setFlags("f", 0)
		c.setFlags("f", flagImmutable)
		_, err := unix.Open(c.Path("f"), unix.O_WRONLY, 0)
		c.Errno(err, unix.EPERM, "open for writing")
		c.Errno(unix.Unlink(c.Path("f")), unix.EPERM, "unlink")
		c.Errno(unix.Chmod(c.Path("f"), 0o600), unix.EPERM, "chmod")
		c.Holds(c.Path("f"), "data")
		c.setFlags("f", 0)
		c.Write(c.Path("f"), "new")
		c.Holds(c.Path("f"), "new")
	}},
	{name: "inode_flag_append", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		defer c.setFlags("f", 0)
		keep := c.Open(c.Path("f"), unix.O_RDWR, 0) // so that it can be opened for writing
		c.setFlags("f", flagAppend)
		_, err := unix.Open(c.Path("f"), unix.O_WRONLY, 0)
		c.Errno(err, unix.EPERM, "open for writing")
		fd := c.Open(c.Path("f"), unix.O_WRONLY|unix.O_APPEND, 0)
		_, err = unix.Write(fd, []byte(" more"))
		c.Ok(err, "append")
		c.FdHolds(keep, "data more")
	}},
	{name: "inode_flags_need_the_owner", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		c.Ok(unix.Chmod(c.Path("f"), 0o666), "chmod")
		c.As(harness.Alice, harness.AliceGroup, func() {
			fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
			c.Errno(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flagNodump), unix.EPERM, "chattr of another's file")
		})
	}},
	{name: "ioctl_unknown", run: func(c *checkT) {
		c.Write(c.Path("f"), "")
		fd := c.Open(c.Path("f"), unix.O_RDONLY, 0)
		_, err := unix.IoctlGetInt(fd, 0x80047aff)
		c.Errno(err, unix.ENOTTY, "ioctl that nobody knows")
	}},
	{name: "birth_time", run: func(c *checkT) {
		c.Write(c.Path("f"), "data")
		var here, there unix.Statx_t
		c.Ok(unix.Statx(unix.AT_FDCWD, c.Path("f"), 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &here), "statx")
		c.Ok(unix.Statx(unix.AT_FDCWD, c.Native()+"/f", 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &there), "statx")
		harness.Equal(c, here.Mask&unix.STATX_BTIME, there.Mask&unix.STATX_BTIME, "whether there is a birth time")
		harness.Equal(c, here.Btime.Sec, there.Btime.Sec, "seconds of the birth time")
		harness.Equal(c, here.Btime.Nsec, there.Btime.Nsec, "nanoseconds of the birth time")
		harness.Equal(c, here.Size, 4, "size")
	}},
}

// flags returns the attributes of a file or directory.
func (c *checkT) flags(path string) int {
	fd := c.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	defer unix.Close(fd)
	value, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	c.Ok(err, "FS_IOC_GETFLAGS of %s", path)
	return value & (flagImmutable | flagAppend | flagNodump)
}

// setFlags sets those of the attributes above that a file has.
func (c *checkT) setFlags(name string, flags int) {
	fd := c.Open(c.Path(name), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	defer unix.Close(fd)
	now, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	c.Ok(err, "FS_IOC_GETFLAGS of %s", name)
	now = now&^(flagImmutable|flagAppend|flagNodump) | flags
	c.Ok(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, now), "FS_IOC_SETFLAGS of %s", name)
}
