package wire

import (
	"sync"

	"bazil.org/fuse"
)

// notifier tells the kernel to drop what it has cached. It does so from a
// goroutine of its own: a notification sent from inside a request, or under a
// lock that a request needs, waits for that very request.
type notifier struct {
	mu     sync.Mutex
	nodes  map[fuse.NodeID]bool
	wake   chan struct{}
	closed chan struct{}
	done   sync.WaitGroup
}

// start starts the goroutine.
func (n *notifier) start(c *Conn) {
	n.nodes = make(map[fuse.NodeID]bool)
	n.wake = make(chan struct{}, 1)
	n.closed = make(chan struct{})
	n.done.Go(func() {
		for {
			select {
			case <-n.closed:
				return
			case <-n.wake:
			}
			n.mu.Lock()
			nodes := n.nodes
			n.nodes = make(map[fuse.NodeID]bool)
			n.mu.Unlock()
			for id := range nodes {
				c.invalidateNode(id, 0, -1)
			}
		}
	})
}

// Invalidate asks the kernel to drop what it has cached of a node, bytes and
// attributes, soon.
func (c *Conn) Invalidate(id fuse.NodeID) {
	n := &c.notifier
	n.mu.Lock()
	n.nodes[id] = true
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// InvalidateAttributes makes the kernel forget a node's attributes at once. Unlike the
// invalidation of bytes this touches no page and takes no lock of the inode, so it can
// be sent from inside a request.
func (c *Conn) InvalidateAttributes(id fuse.NodeID) {
	c.invalidateNode(id, -1, 0)
}

// stop ends the goroutine.
func (n *notifier) stop() {
	close(n.closed)
	n.done.Wait()
}

// Name is a name in a directory.
type Name struct {
	Dir  fuse.NodeID
	Name string
}

// HandOver has the kernel send what clients have stored to the cached pages of nodes, drop
// the pages, and forget what the names lead to. The channel is closed when it has, and
// every store was answered: whoever waits for it must not keep requests from being
// answered.
func (c *Conn) HandOver(nodes []fuse.NodeID, names []Name) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, name := range names {
			c.invalidateEntry(name)
		}
		for _, id := range nodes {
			c.invalidateNode(id, 0, -1)
		}
	}()
	return done
}
