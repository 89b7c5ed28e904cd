package fs

import (
	"sync"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// deviceTable knows the filesystems that the backing directory spans: its own,
// and those mounted inside it. Inode numbers of different filesystems can be
// equal, and the mount has only one st_dev, so the numbers of the others are
// moved apart.
type deviceTable struct {
	root uint64

	mu     sync.Mutex
	others map[uint64]*device
	own    int // a descriptor on the backing directory's filesystem, or -1
}

// device is a filesystem mounted inside the backing directory.
type device struct {
	number uint64 // from 1, in the order of discovery
	fd     int    // a directory on it, opened for syncfs(2); -1 if it could not be
}

// deviceShift is where a device's number goes in an inode number. Filesystems
// that number densely, which are nearly all, stay far below it.
const deviceShift = 48

// init makes the table for a backing directory on the device root.
func (t *deviceTable) init(root uint64) {
	t.root, t.own = root, -1
	t.others = make(map[uint64]*device)
}

// inode returns the inode number to show for key: the backing's own, unless it
// lies on another device than the root.
func (t *deviceTable) inode(key mapping.ID) uint64 {
	if key.Dev == t.root {
		return key.Ino
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return key.Ino ^ t.otherLocked(key.Dev).number<<deviceShift
}

// otherLocked returns what is known of a device that is not the root's. t.mu must
// be held.
func (t *deviceTable) otherLocked(dev uint64) *device {
	d := t.others[dev]
	if d == nil {
		d = &device{number: uint64(len(t.others) + 1), fd: -1}
		t.others[dev] = d
	}
	return d
}

// written tells the table that files of the directory dirfd, which is on dev, are
// about to change: Sync has to reach that filesystem. Others are left alone, so
// that they can be unmounted.
func (t *deviceTable) written(dev uint64, dirfd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.own
	if dev != t.root {
		at = &t.otherLocked(dev).fd
	}
	if *at < 0 {
		if fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			*at = fd
		}
	}
}

// descriptors returns a descriptor of each filesystem that has one.
func (t *deviceTable) descriptors() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	var fds []int
	if t.own >= 0 {
		fds = append(fds, t.own)
	}
	for _, d := range t.others {
		if d.fd >= 0 {
			fds = append(fds, d.fd)
		}
	}
	return fds
}

// close closes the descriptors.
func (t *deviceTable) close() {
	for _, fd := range t.descriptors() {
		unix.Close(fd)
	}
}
