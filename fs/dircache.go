package fs

import (
	"container/list"
	"sync"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// dirCache keeps descriptors of directories, the most recently used ones: every
// operation on a name works from its directory's descriptor, so no path is ever
// longer than a name, and only a bounded number of descriptors is open however
// many directories the kernel knows.
type dirCache struct {
	max int

	mu   sync.Mutex
	dirs map[fuse.NodeID]*dirFD
	lru  list.List // of *dirFD, the one whose last use ended first in front
}

// dirFD is an O_PATH descriptor of a directory.
type dirFD struct {
	id   fuse.NodeID
	fd   int
	refs int           // guarded by the cache
	at   *list.Element // the place on the lru
	gone bool          // taken out of the cache: closed with the last use
}

// get returns the directory's descriptor if the cache has it. The caller gives
// it back with put.
func (c *dirCache) get(id fuse.NodeID) *dirFD {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dirs[id]
	if d != nil {
		d.refs++
	}
	return d
}

// add takes over fd as the directory's descriptor and returns it held. If
// somebody else was faster, theirs is returned and fd is closed.
func (c *dirCache) add(id fuse.NodeID, fd int) *dirFD {
	c.mu.Lock()
	d := c.dirs[id]
	if d != nil {
		d.refs++
		c.mu.Unlock()
		unix.Close(fd)
		return d
	}
	d = &dirFD{id: id, fd: fd, refs: 1}
	c.dirs[id] = d
	d.at = c.lru.PushBack(d)
	var old *dirFD
	if len(c.dirs) > c.max {
		if old = c.unusedLocked(); old != nil {
			c.removeLocked(old)
		}
	}
	c.mu.Unlock()
	if old != nil {
		unix.Close(old.fd)
	}
	return d
}

// unusedLocked returns the directory that has been unused the longest, or nil. Those in
// use that it has to pass are few: a request uses two at the most. c.mu must be held.
func (c *dirCache) unusedLocked() *dirFD {
	for e := c.lru.Front(); e != nil; e = e.Next() {
		if d := e.Value.(*dirFD); d.refs == 0 {
			return d
		}
	}
	return nil
}

// removeLocked takes d out of the cache. c.mu must be held.
func (c *dirCache) removeLocked(d *dirFD) {
	delete(c.dirs, d.id)
	c.lru.Remove(d.at)
	d.gone = true
}

// put ends a use of d.
func (c *dirCache) put(d *dirFD) {
	c.mu.Lock()
	d.refs--
	idle := d.refs == 0
	if idle && !d.gone {
		c.lru.MoveToBack(d.at)
	}
	closing := idle && d.gone
	c.mu.Unlock()
	if closing {
		unix.Close(d.fd)
	}
}

// forget closes the descriptor of a directory that the kernel knows no longer.
func (c *dirCache) forget(id fuse.NodeID) {
	c.mu.Lock()
	d := c.dirs[id]
	closing := false
	if d != nil {
		c.removeLocked(d)
		closing = d.refs == 0
	}
	c.mu.Unlock()
	if closing {
		unix.Close(d.fd)
	}
}

// close closes every descriptor.
func (c *dirCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.dirs {
		unix.Close(d.fd)
	}
	c.dirs = nil
	c.lru.Init()
}
