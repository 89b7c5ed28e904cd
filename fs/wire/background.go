package wire

import (
	"fmt"
	"os"
	"strconv"

	"mapfs/fs/mountpoint"
)

// maxBackground is how many requests that no client waits for, reads ahead above
// all, the kernel may have under way. Its own limit of 12 leaves workers without
// work while a client copies.
const maxBackground = 64

// background is the kernel's limit of background requests of this mount, which can be
// changed where the filesystem fusectl is mounted.
//
// The kernel knows no shares: when 64 such requests of one user wait for a device,
// nobody's files are read ahead, or closed, any more. So while requests wait there may
// be as many as the connection can keep at all. Usually the lower number is better,
// because the next request queues behind all of them.

type background struct {
	file  string // "" if it is not known
	room  int    // the limit while requests wait
	wide  bool
	fixed bool // it cannot be changed here
}

// find looks for the file that has the limit of the mount at path.
func (b *background) find(path string) {
	if id, err := mountpoint.ConnectionID(path); err == nil {
		b.file = fmt.Sprintf("/sys/fs/fuse/connections/%d/max_background", id)
	}
}

// widen sets the limit to b.room, or back to maxBackground.
func (b *background) widen(wide bool) {
	if b.file == "" || b.fixed || b.wide == wide {
		return
	}
	limit := maxBackground
	if wide {
		limit = b.room
	}
	if err := os.WriteFile(b.file, []byte(strconv.Itoa(limit)), 0); err != nil {
		b.fixed = true
		return
	}
	b.wide = wide
}
