package fs

import (
	"errors"
	"log/slog"
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
func (n *notifier) start(conn *fuse.Conn, log *slog.Logger) {
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
				if err := conn.InvalidateNode(id, 0, -1); err != nil && !errors.Is(err, fuse.ErrNotCached) {
					log.Debug("invalidation refused", "node", id, "error", err)
				}
			}
		}
	})
}

// invalidate asks for the node's cached bytes and attributes to be dropped soon.
func (n *notifier) invalidate(id fuse.NodeID) {
	n.mu.Lock()
	n.nodes[id] = true
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// attributesChanged makes the kernel forget a node's attributes at once, after a
// request changed some that the kernel does not know it changes: a write that
// drops set-id bits, an access control list that sets the mode. Unlike the
// invalidation of bytes this touches no page and takes no lock of the inode, so
// it can be sent from inside a request.
func (s *Session) attributesChanged(n *node) {
	if err := s.conn.InvalidateNode(n.id, -1, 0); err != nil && !errors.Is(err, fuse.ErrNotCached) {
		s.log.Debug("invalidation refused", "node", n.id, "error", err)
	}
}

// stop ends the goroutine.
func (n *notifier) stop() {
	close(n.closed)
	n.done.Wait()
}
