package mapping

import "golang.org/x/sys/unix"

// traits are what the engine wants to know of a filesystem.
type traits struct {
	// fillsHoles: it keeps a page for every hole that is looked at through a mapping.
	// tmpfs and ramfs give it memory that a read(2) of the hole would not take, and
	// that can be lacking.
	fillsHoles bool
	// keepsATime: it is mounted so that access times never change.
	keepsATime bool
	// strictATime: it is mounted so that they change with every read, and not only with
	// the first after a change or in a day (mount(8): strictatime, relatime).
	strictATime bool
}

// traitsOf returns the traits of the filesystem that fd is on.
func traitsOf(fd int) (is traits) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return is
	}
	is.fillsHoles = st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
	is.keepsATime = st.Flags&(unix.ST_NOATIME|unix.ST_RDONLY) != 0
	is.strictATime = !is.keepsATime && st.Flags&unix.ST_RELATIME == 0
	return is
}
