package fs

import (
	"os"
	"slices"
	"strings"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// What follows is what a subtree can ask about a power cut. Without a history all of it is
// EOPNOTSUPP.

// History returns the model of the mount's history, nil if it has none.
func (s *Session) History() crash.Model { return s.opts.History }

// HandOver has the kernel send what clients have stored through their mappings.
func (s *Session) HandOver(w *wire.Worker) {
	if s.history != nil {
		s.history.handOver(w, 0)
	}
}

// Pending calls yield for the operations that a power cut could take, in their order; see
// [crash.Log.Pending]. yield must not call the session.
func (s *Session) Pending(yield func(op *crash.Op, needs []string) bool) {
	if s.history != nil {
		s.history.log.Pending(yield)
	}
}

// enter begins a look at the tree as a power cut would surely leave it; the function that
// it returns ends it.
func (h *history) enter() (end func(), err error) {
	if h == nil {
		return nil, syscall.EOPNOTSUPP
	}
	h.gate.RLock()
	h.names.Lock()
	return func() {
		h.names.Unlock()
		h.gate.RUnlock()
	}, nil
}

// knows reports whether the nodes are those of the time after the last power cut.
func (h *history) knows(n *Node) bool { return h.s.nodes.get(n.id) == n }

// DurableLookup returns what a name in a directory surely is after a power cut now, and
// counts a lookup.
func (s *Session) DurableLookup(dir *Node, name string) (*Node, error) {
	h := s.history
	end, err := h.enter()
	if err != nil {
		return nil, err
	}
	defer end()
	if err := CheckName(name); err != nil {
		return nil, err
	}
	switch {
	case !h.knows(dir):
		return nil, syscall.ESTALE
	case dir.id == fuse.RootID && s.reserves(name):
		return nil, syscall.ENOENT
	}
	if inode, touched := h.log.DurableEntry(crash.Entry{Dir: inodeOf(dir), Name: name}); touched {
		n := h.node(inode)
		if n == nil {
			return nil, syscall.ENOENT
		}
		s.nodes.hold(n)
		return n, nil
	}
	d, err := s.dir(dir)
	if err != nil {
		return nil, err
	}
	defer s.dirs.put(d)
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, os.NewSyscallError("fstatat", err)
	}
	return s.nodes.look(&st, link{dir.id, name}), nil
}

// DurableEntry is an entry of a directory; Mode is its type (inode(7)), Inode the number
// that the mount shows.
type DurableEntry struct {
	Name  string
	Mode  uint32
	Inode uint64
}

// DurableEntries returns the entries that a directory surely has after a power cut now, in
// the order of their names.
func (s *Session) DurableEntries(dir *Node) ([]DurableEntry, error) {
	h := s.history
	end, err := h.enter()
	if err != nil {
		return nil, err
	}
	defer end()
	if !h.knows(dir) {
		return nil, syscall.ESTALE
	}
	d, err := s.dir(dir)
	if err != nil {
		return nil, err
	}
	defer s.dirs.put(d)
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("openat", err)
	}
	listed := dirHandle{fd: fd, dev: dir.key.Dev}
	if dir.id == fuse.RootID {
		listed.hidden = h.stash.name
	}
	defer listed.close()
	touched := h.log.DurableEntries(inodeOf(dir))
	var entries []DurableEntry
	err = listed.each(&s.devices, func(e wire.Dirent, name string) {
		if _, changed := touched[name]; !changed && name != "." && name != ".." {
			entries = append(entries, DurableEntry{name, e.Type << 12, e.Ino})
		}
	})
	for name, inode := range touched {
		if n := h.node(inode); n != nil {
			entries = append(entries, DurableEntry{name, n.kind, s.devices.inode(n.key)})
		}
	}
	slices.SortFunc(entries, func(a, b DurableEntry) int { return strings.Compare(a.Name, b.Name) })
	return entries, err
}

// DurableStat is stat(2) of a node as it surely is after a power cut now.
func (s *Session) DurableStat(n *Node, st *unix.Stat_t) error {
	end, err := s.history.enter()
	if err != nil {
		return err
	}
	defer end()
	h := s.history
	if !h.knows(n) {
		return syscall.ESTALE
	}
	if err := s.StatBacking(n, st); err != nil {
		return err
	}
	if n.kind == modeRegular {
		st.Size = h.log.DurableSize(inodeOf(n), st.Size)
	}
	if value, touched := h.log.DurableAttr(inodeOf(n), crash.AttrMode); touched {
		fromModeValue(value, st)
	}
	return nil
}

// ReadDurable reads from off on what a file surely has after a power cut now, and returns
// how many bytes there are: fewer than len(p) only at the end of the file.
func (s *Session) ReadDurable(n *Node, p []byte, off int64) (int, error) {
	end, err := s.history.enter()
	if err != nil {
		return 0, err
	}
	defer end()
	if !s.history.knows(n) {
		return 0, syscall.ESTALE
	}
	var count int
	err = s.WithBacking(n, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		count, err = s.history.log.ReadDurable(inodeOf(n), p, off, st.Size, func(p []byte, off int64) (int, error) {
			return preadAll(fd, p, off)
		})
		return err
	})
	return count, err
}

// preadAll reads until p is full or the file ends.
func preadAll(fd int, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		m, err := unix.Pread(fd, p[n:], off+int64(n))
		if err != nil {
			return n, os.NewSyscallError("pread", err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// Readlink returns where a symbolic link points.
func (s *Session) Readlink(n *Node) ([]byte, error) {
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err != nil {
		return nil, err
	}
	defer s.leave(p)
	var target [unix.PathMax]byte
	length, err := unix.Readlinkat(p.dir.fd, p.name, target[:])
	if err != nil {
		return nil, os.NewSyscallError("readlinkat", err)
	}
	return target[:length], nil
}

// durableChanged tells the subtree that more of a file is durable than it was.
func (s *Session) durableChanged(n *Node) { s.subtree.DurableChanged(n) }

// Msync is [mapping.File.Msync] of a node's file. With a history MS_ASYNC does nothing, as
// on Linux: the backing file has what is durable, and nothing else.
func (s *Session) Msync(n *Node, f *mapping.File, off, length int64, flags int) error {
	h := s.history
	if h == nil {
		return f.Msync(off, length, flags)
	}
	h.gate.RLock()
	defer h.gate.RUnlock()
	if !h.knows(n) {
		return syscall.ESTALE
	}
	defer h.lock(n).Unlock()
	if err := f.Msync(off, length, flags&^unix.MS_ASYNC); err != nil {
		return err
	}
	if flags&unix.MS_SYNC != 0 {
		if off == 0 && length == 0 {
			h.synced(n, true)
		} else {
			h.log.SyncRange(inodeOf(n), off, pagesEnd(off, length))
			s.durableChanged(n)
		}
	}
	if flags&unix.MS_INVALIDATE != 0 {
		h.reverted(n, off, length)
	}
	return nil
}

// Madvise is [mapping.File.Madvise] of a node's file.
func (s *Session) Madvise(n *Node, f *mapping.File, off, length int64, advice int) error {
	h := s.history
	if h == nil || advice != unix.MADV_DONTNEED {
		return f.Madvise(off, length, advice)
	}
	h.gate.RLock()
	defer h.gate.RUnlock()
	if !h.knows(n) {
		return syscall.ESTALE
	}
	defer h.lock(n).Unlock()
	if err := f.Madvise(off, length, advice); err != nil {
		return err
	}
	h.reverted(n, off, length)
	return nil
}

// reverted notes that pages of a file were given up. The file's lock must be held.
func (h *history) reverted(n *Node, off, length int64) {
	if off == 0 && length == 0 {
		h.log.RevertAll(inodeOf(n)) // with the size
	} else {
		h.log.Revert(inodeOf(n), off, pagesEnd(off, length))
	}
	h.names.Lock()
	defer h.names.Unlock()
	h.settle([]crash.Inode{inodeOf(n)})
}

// abandon is [mapping.File.AbandonUnsynced] of a node's file.
func (s *Session) abandon(n *Node, f *mapping.File) error {
	h := s.history
	if h == nil {
		return f.AbandonUnsynced()
	}
	defer h.lock(n).Unlock()
	if err := f.AbandonUnsynced(); err != nil {
		return err
	}
	h.log.Abandon(inodeOf(n))
	return nil
}
