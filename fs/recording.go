package fs

import (
	"os"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
)

// A recording calls inodes by the numbers of their nodes. So the nodes that it has seen
// stay known until the mount ends, and each is introduced by a name that it has.

// introduce tells a recording of the nodes that an operation names and that are new to it.
// One that a name of the operation leads to needs no word.
func (h *history) introduce(op *crash.Op, nodes []*Node) {
	if h.introduced == nil {
		return
	}
	for _, n := range nodes {
		if n == nil {
			continue
		}
		i := inodeOf(n)
		byItself := op.Kind <= crash.Rename && op.Kind != crash.Link && (i == op.Inode || i == op.Replaced)
		h.introduceNode(n, byItself, op.Entry)
	}
}

// introduceNode tells a recording of a node and of the directories above it, unless it
// knows them or byItself says that it will. but is a name that the recording does not have
// yet.
func (h *history) introduceNode(n *Node, byItself bool, but crash.Entry) {
	h.mu.Lock()
	known := h.introduced[n.id]
	h.introduced[n.id] = true
	h.mu.Unlock()
	if known {
		return
	}
	h.s.nodes.hold(n)
	if byItself {
		return
	}
	for i := 0; ; i++ {
		l, ok := n.linkAt(i)
		if !ok {
			return
		}
		dir := h.s.nodes.get(l.dir)
		if dir == nil {
			continue
		}
		if e := (crash.Entry{Dir: inodeOf(dir), Name: l.name}); e != but {
			h.introduceNode(dir, false, crash.Entry{})
			h.log.Know(inodeOf(n), e)
			return
		}
	}
}

// forgetIntroduced is for the time after a power cut, when nodes have other numbers. h.mu
// must be held.
func (h *history) forgetIntroduced() {
	if h.introduced != nil {
		h.introduced = map[fuse.NodeID]bool{fuse.RootID: true}
	}
}

// madeOf says what the new inode at p is, of which stat(2) says st.
func madeOf(p place, st *unix.Stat_t) (*crash.Made, error) {
	made := &crash.Made{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Device: st.Rdev}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return made, nil
	}
	var target [unix.PathMax]byte
	n, err := unix.Readlinkat(p.dir.fd, p.name, target[:])
	if err != nil {
		return nil, os.NewSyscallError("readlinkat", err)
	}
	made.Target = target[:n:n]
	return made, nil
}

// Promise notes what a client says to have made durable, after all that the client has
// stored before.
func (s *Session) Promise(w *wire.Worker, text string) {
	s.HandOver(w)
	if s.history != nil {
		s.history.log.Promise(text)
	}
}

// Promises calls yield for the promises in order; see [crash.Log.Promises].
func (s *Session) Promises(yield func(crash.Promise) bool) {
	if s.history != nil {
		s.history.log.Promises(yield)
	}
}

// RecordingError returns what ended the recording of the history, if anything did.
func (s *Session) RecordingError() error {
	if s.history == nil {
		return nil
	}
	return s.history.log.RecordingError()
}
