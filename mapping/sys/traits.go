package sys

import "golang.org/x/sys/unix"

// Traits are what the engine wants to know of a filesystem.
type Traits struct {
	// FillsHoles: it keeps a page for every hole that is looked at through a mapping.
	// tmpfs and ramfs give it memory that a read(2) of the hole would not take, and
	// that can be lacking.
	FillsHoles bool
	// KeepsATime: it is mounted so that access times never change.
	KeepsATime bool
	// StrictATime: it is mounted so that they change with every read, and not only with
	// the first after a change or in a day (mount(8): strictatime, relatime).
	StrictATime bool
}

// TraitsOf returns the traits of the filesystem that fd is on.
func TraitsOf(fd int) (is Traits) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return is
	}
	is.FillsHoles = st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
	is.KeepsATime = st.Flags&(unix.ST_NOATIME|unix.ST_RDONLY) != 0
	is.StrictATime = !is.KeepsATime && st.Flags&unix.ST_RELATIME == 0
	return is
}
