package wire

import (
	"bytes"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// The notifications that are sent: enum fuse_notify_code of linux/fuse.h.
const (
	notifyPoll       = 1
	notifyInvalInode = 2
	notifyInvalEntry = 3
)

// notify sends a notification. That the kernel has nothing of what it is about is no
// error.
func (c *Conn) notify(code int32, body ...[]byte) error {
	message := bytes.Join(append([][]byte{make([]byte, headerSize)}, body...), nil)
	header := outHeader{Len: uint32(len(message)), Error: code}
	copy(message, BytesOf(&header))
	if _, err := unix.Write(c.dev, message); err != nil && err != syscall.ENOENT {
		return err
	}
	return nil
}

// Wakeup tells those who wait in poll(2) for an open file to look again.
func (c *Conn) Wakeup(wakeup PollWakeup) {
	// A poller that is gone is nobody to tell.
	_ = c.notify(notifyPoll, BytesOf(&wakeup.kh))
}

// invalidateNode sends a notification about the bytes of a node from off on, or, with -1,
// about its attributes alone.
func (c *Conn) invalidateNode(id fuse.NodeID, off, size int64) {
	out := struct {
		Ino      uint64
		Off, Len int64
	}{uint64(id), off, size}
	if err := c.notify(notifyInvalInode, BytesOf(&out)); err != nil {
		c.log.Debug("invalidation refused", "node", id, "error", err)
	}
}

// invalidateEntry makes the kernel forget what a name leads to.
func (c *Conn) invalidateEntry(name Name) {
	out := struct {
		Parent         uint64
		Namelen, Flags uint32
	}{uint64(name.Dir), uint32(len(name.Name)), 0}
	if err := c.notify(notifyInvalEntry, BytesOf(&out), []byte(name.Name), []byte{0}); err != nil {
		c.log.Debug("invalidation refused", "directory", name.Dir, "name", name.Name, "error", err)
	}
}
