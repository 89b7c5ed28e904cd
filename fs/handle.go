package fs

import (
	"sync"

	"bazil.org/fuse"

	"mapfs/mapping"
)

// handle is one open file or directory of a client. Exactly one of file, dir and
// sub is set.
type handle struct {
	node *Node // of file or dir
	file *mapping.File
	dir  *dirHandle
	sub  SubtreeHandle

	// flags are those of open(2).
	flags int
	// user is who is charged for the handle.
	user uint32

	// lost says that the power failed since it was opened.
	lost bool

	// failures is the count of failed write-backs this handle has been told of.
	// The file's Sync guards it.
	failures uint64
}

// close closes what a handle of a directory or of the subtree holds; nil holds
// nothing.
func (h *handle) close() {
	switch {
	case h == nil:
	case h.dir != nil:
		h.dir.close()
	case h.sub != nil:
		h.sub.Close()
	}
}

// handleTable finds a handle by its number, which the kernel sends with every
// read and write: hence a slice.
type handleTable struct {
	mu      sync.RWMutex
	handles []*handle
	free    []fuse.HandleID
}

// add stores h and returns its number.
func (t *handleTable) add(h *handle) fuse.HandleID {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := len(t.free); k > 0 {
		id := t.free[k-1]
		t.free = t.free[:k-1]
		t.handles[id] = h
		return id
	}
	t.handles = append(t.handles, h)
	return fuse.HandleID(len(t.handles) - 1)
}

// get returns the handle with the given number, or nil.
func (t *handleTable) get(id fuse.HandleID) *handle {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if uint64(id) >= uint64(len(t.handles)) {
		return nil
	}
	return t.handles[id]
}

// remove takes a handle out and returns it, or nil.
func (t *handleTable) remove(id fuse.HandleID) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	if uint64(id) >= uint64(len(t.handles)) {
		return nil
	}
	h := t.handles[id]
	if h != nil {
		t.handles[id] = nil
		t.free = append(t.free, id)
	}
	return h
}

// closeHandle takes the handle with the given number out, takes its charge back and
// returns it, or nil. What it holds is the caller's to close.
func (s *Session) closeHandle(id fuse.HandleID) *handle {
	h := s.handles.remove(id)
	if h != nil {
		s.dismiss(h.user)
	}
	return h
}

// close closes what the kernel had no time to release.
func (t *handleTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.handles {
		h.close()
	}
	t.handles, t.free = nil, nil
}
