package fs

import (
	"fmt"
	"os"
	"strconv"
)

// maxBackground is how many requests that no client waits for, reads ahead above
// all, the kernel may have under way. Its own limit of 12 leaves workers without
// work while a client copies.
const maxBackground = 64

// backgroundRoom is how many there may be while requests wait for a device. The kernel
// knows no shares: when 64 such requests of one user wait, nobody's files are read
// ahead, or closed, any more. As a rule the lower number is better, because whoever
// comes next queues behind all of them.
const backgroundRoom = maxWorkers + maxWaiting + maxBackground

// background is the kernel's limit of background requests of this mount, which can be
// changed where the filesystem fusectl is mounted.
type background struct {
	file  string // "" if it is not known
	wide  bool
	fixed bool // it cannot be changed here
}

// find looks for the file that has the limit of the mount at mountpoint.
func (b *background) find(mountpoint string) {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return
	}
	if entry, found := table.at(mountpoint); found {
		b.file = fmt.Sprintf("/sys/fs/fuse/connections/%d/max_background", entry.minor)
	}
}

// widen sets the limit to backgroundRoom, or back to maxBackground.
func (b *background) widen(wide bool) {
	if b.file == "" || b.fixed || b.wide == wide {
		return
	}
	limit := maxBackground
	if wide {
		limit = backgroundRoom
	}
	if err := os.WriteFile(b.file, []byte(strconv.Itoa(limit)), 0); err != nil {
		b.fixed = true
		return
	}
	b.wide = wide
}
