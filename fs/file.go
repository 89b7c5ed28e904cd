package fs

import (
	"os"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping"
)

// accessMode is what an open file is to be used for.
type accessMode int

const (
	accessRead accessMode = iota
	accessWrite
)

// acquire returns the file that serves n, with a reference. It is opened from
// one of n's names unless it is open already.
func (s *Session) acquire(n *Node, want accessMode) (*mapping.File, error) {
	var looked unix.Stat_t
	return s.acquireLooked(n, want, &looked)
}

// acquireLooked is acquire for who also wants to know what stat(2) says of the file.
// The link count of looked stays 0 where somebody has the file open already.
func (s *Session) acquireLooked(n *Node, want accessMode, looked *unix.Stat_t) (*mapping.File, error) {
	if f := n.openFile(); f != nil && f.Ref() {
		if want == accessRead || f.Writable() {
			return f, nil
		}
		defer f.Release(true)
		return s.upgrade(n, f)
	}
	if !s.files.Has(n.key) {
		if f := s.acquireNew(n, want, looked); f != nil {
			return f, nil
		}
	}
	var st unix.Stat_t
	p, err := s.locate(n, &st)
	if err != nil {
		return s.acquireLast(n, want)
	}
	defer s.leave(p)
	if f := s.files.Get(&st, want == accessWrite); f != nil {
		*looked = st
		return f, nil
	}
	f, err := s.openAt(n, p, want, st.Mode&0o111 != 0, &st)
	if wire.ErrnoOf(err) == syscall.ESTALE {
		// Replaced between the look and the open.
		return s.acquireLast(n, want)
	}
	return f, err
}

// acquireNew is acquire where all is as it was when n was looked up: its newest name
// is opened without another look. It returns nil if anything is in the way.
func (s *Session) acquireNew(n *Node, want accessMode, looked *unix.Stat_t) *mapping.File {
	l, ok := n.linkAt(0)
	if !ok || n.kind != modeRegular {
		return nil
	}
	p, err := s.entry(l.dir, l.name)
	if err != nil {
		return nil
	}
	defer s.leave(p)
	isProgram := n.known.Load()&program != 0
	var st unix.Stat_t
	f, err := s.openAt(n, p, want, isProgram, &st)
	if err != nil {
		return nil
	}
	if is := st.Mode&0o111 != 0; is != isProgram {
		n.knows(program, is)
		if want == accessRead {
			f.Release(false) // opened in the wrong way
			return nil
		}
	}
	*looked = st
	return f
}

// openAt opens n at p and gives it to the engine. st gets what fstat(2) says. If it is
// another file by now the answer is ESTALE.
func (s *Session) openAt(n *Node, p place, want accessMode, isProgram bool, st *unix.Stat_t) (*mapping.File, error) {
	const follow = false
	fd, readable, writable, err := s.openBacking(p.dir.fd, p.name, follow, want, isProgram)
	if err != nil {
		return nil, err
	}
	f, err := s.adopt(n, fd, readable, writable, st)
	if err == nil && want == accessWrite && st.Dev != s.devices.root {
		s.devices.written(st.Dev, p.dir.fd)
	}
	if err == nil && want == accessWrite && !f.Writable() {
		defer f.Release(true)
		return s.upgrade(n, f) // or why not
	}
	return f, err
}

// acquireLast is acquire for an inode that has lost its last name through the
// mount since the kernel looked it up.
func (s *Session) acquireLast(n *Node, want accessMode) (f *mapping.File, err error) {
	err = n.withLast(func(last int) error {
		var st unix.Stat_t
		if err := unix.Fstat(last, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		if f = s.files.Get(&st, want == accessWrite); f != nil {
			return nil
		}
		const follow = true
		fd, readable, writable, err := s.openBacking(unix.AT_FDCWD, procPath(last), follow, want, st.Mode&0o111 != 0)
		if err != nil {
			return err
		}
		f, err = s.adopt(n, fd, readable, writable, &st)
		if err == nil && want == accessWrite && !f.Writable() {
			defer f.Release(true)
			f, err = s.upgrade(n, f)
		}
		return err
	})
	return f, err
}

// upgrade opens the inode of f once more, for writing, by its descriptor: it may
// have no name left.
func (s *Session) upgrade(n *Node, f *mapping.File) (*mapping.File, error) {
	again := -1
	err := f.WithDescriptor(func(fd int) (err error) {
		again, err = unix.Open(procPath(fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
		return os.NewSyscallError("open", err)
	})
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	return s.adopt(n, again, true, true, &st)
}

// adopt gives fd, which was opened as n, to the engine. st gets what fstat(2) says. If
// it is another file by now, nothing of it is touched and the answer is ESTALE: the
// kernel then looks the name up again.
func (s *Session) adopt(n *Node, fd int, readable, writable bool, st *unix.Stat_t) (*mapping.File, error) {
	if err := unix.Fstat(fd, st); err != nil || !n.is(st) {
		unix.Close(fd)
		return nil, syscall.ESTALE
	}
	f, err := s.files.Open(fd, st, readable, writable)
	if err == nil && f.Name() == "" {
		f.SetName(s.Path(n))
	}
	return f, err
}

// openBacking opens a regular file of the backing directory. A file is opened
// for writing even if it is only to be read, where that is allowed: overlayfs
// would otherwise map a copy that later writes do not reach. Programs are the
// exception, because nobody can run a file that somebody holds open for writing.
// follow is for the name of a descriptor under /proc, which is a link.
//
// A file that cannot be opened for writing, because its filesystem is mounted read-only,
// it is immutable, or it is a program that runs, is opened for reading: in the mode
// private that suffices.
func (s *Session) openBacking(dirfd int, name string, follow bool, want accessMode, isProgram bool) (fd int, readable, writable bool, err error) {
	flags := unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	open := func(access int) error {
		fd, err = unix.Openat(dirfd, name, access|flags, 0)
		return err
	}
	if want == accessRead && (s.opts.ReadOnly || isProgram) {
		return fd, true, false, os.NewSyscallError("openat", open(unix.O_RDONLY))
	}
	if open(unix.O_RDWR) == nil {
		return fd, true, true, nil
	}
	switch {
	case want == accessRead && open(unix.O_RDONLY) == nil:
		return fd, true, false, nil
	case want == accessWrite && err == syscall.EACCES && open(unix.O_WRONLY) == nil:
		return fd, false, true, nil
	case want == accessWrite && (err == syscall.EROFS || err == syscall.EPERM || err == syscall.ETXTBSY):
		refused := err
		if open(unix.O_RDONLY) == nil {
			return fd, true, false, nil
		}
		err = refused
	}
	if err == syscall.ELOOP || err == syscall.ENXIO || err == syscall.EISDIR {
		err = syscall.ESTALE // no regular file any more
	}
	return -1, false, false, os.NewSyscallError("openat", err)
}

// wantOf returns what a client's open flags ask for.
func wantOf(flags fuse.OpenFlags) accessMode {
	if flags.IsReadOnly() && flags&fuse.OpenTruncate == 0 {
		return accessRead
	}
	return accessWrite
}

func (s *Session) open(w *wire.Worker, r *fuse.OpenRequest) error {
	n := s.nodes.get(r.Node)
	if n == nil {
		return syscall.ESTALE
	}
	if n.kind != modeRegular {
		return syscall.ENXIO // the kernel opens everything else itself
	}
	if err := s.admit(r.Uid); err != nil {
		return err
	}
	out, err := s.openFile(n, r)
	if err != nil {
		s.dismiss(r.Uid)
		return err
	}
	return w.Send(wire.BytesOf(&out))
}

// openFile makes the handle that an open asks for, which is charged for already.
func (s *Session) openFile(n *Node, r *fuse.OpenRequest) (wire.OpenOut, error) {
	if wantOf(r.Flags) == accessWrite {
		if err := s.mayWrite(n, r.Flags); err != nil {
			return wire.OpenOut{}, err
		}
	}
	var st unix.Stat_t
	f, err := s.acquireLooked(n, wantOf(r.Flags), &st)
	if err != nil {
		return wire.OpenOut{}, err
	}
	if r.Flags&fuse.OpenTruncate != 0 {
		if err := s.resize(n, f, 0, r.Pid); err != nil {
			f.Release(true)
			return wire.OpenOut{}, err
		}
		n.changed()
		st.Nlink = 0 // says nothing any more
	}
	out, err := s.newHandle(n, f, r.Flags, &r.Header, &st)
	if err != nil {
		f.Release(true)
	}
	return out, err
}

// newHandle makes a handle of an open file, which takes over the reference and the
// charge, for the client that sent the request. st is what stat(2) said of a file that
// nobody else has open, or its link count is 0.
func (s *Session) newHandle(n *Node, f *mapping.File, flags fuse.OpenFlags, client *fuse.Header, st *unix.Stat_t) (wire.OpenOut, error) {
	if st.Nlink == 0 || f.Mode() != mapping.Shared {
		if err := f.Stat(st); err != nil {
			return wire.OpenOut{}, err
		}
	}
	if wantOf(flags) == accessWrite {
		n.knows(noCapabilities|noSetID, false)
	}
	var out wire.OpenOut
	by := s.openingOf(client.Uid, int(flags))
	if s.opts.Passthrough && s.conn.Protocol.Passes() {
		if err := s.newPassedHandle(&out, n, f, by, st); err != nil {
			return wire.OpenOut{}, err
		}
	} else if n.opened(f, by, st) || s.opts.Exclusive {
		out.OpenFlags |= uint32(fuse.OpenKeepCache)
	}
	if int(flags)&unix.O_DIRECT != 0 && s.history == nil && out.BackingID == 0 {
		// Such writes may run side by side, and so they do, unless they make the file
		// longer. A history would have them wait for each other all the same.
		out.OpenFlags |= uint32(fuse.OpenDirectIO) | openParallelWrites
	}
	if f.Name() == "" {
		f.SetName(s.Path(n))
	}
	f.Observe(mapping.Event{Kind: mapping.EventOpen, Flags: int(flags), PID: client.Pid})
	if s.history != nil {
		s.history.opened(n, int(flags))
	}
	out.Fh = uint64(s.handles.add(&handle{node: n, file: f, flags: int(flags), user: client.Uid, failures: f.Failures()}))
	return out, nil
}

// openParallelWrites is FOPEN_PARALLEL_DIRECT_WRITES.
const openParallelWrites = 1 << 6

// read answers straight from the mapping.
func (s *Session) read(w *wire.Worker, r *fuse.ReadRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.file == nil {
		return syscall.EBADF
	}
	sent, err := h.file.ReadTo(w, r.Offset, r.Size, r.FileFlags&unix.O_NOATIME != 0)
	if sent {
		// The kernel has its answer. An error is one the client was told of
		// (a page that vanished just now is EIO) or does not wait for any more.
		return wire.ErrAnswered
	}
	return err
}

func (s *Session) write(w *wire.Worker, r *fuse.WriteRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.file == nil {
		return syscall.EBADF
	}
	if err := s.dropPrivileges(h, r.Flags&fuse.WriteKillSUIDGID != 0); err != nil {
		return err
	}
	var n int
	var err error
	if s.history != nil {
		n, err = s.history.write(h, r)
	} else {
		_, n, err = s.store(h, r)
	}
	if err != nil {
		return err
	}
	h.node.changed()
	out := wire.WriteOut{Size: uint32(n)}
	return w.Send(wire.BytesOf(&out))
}

// store gives the bytes of a write to the engine and returns where they went, and how many.
func (s *Session) store(h *handle, r *fuse.WriteRequest) (at int64, n int, err error) {
	if r.Flags&fuse.WriteCache != 0 {
		// The kernel's cache writes back a client's store, or with -o
		// writeback any write. Its offset is right even for O_APPEND.
		n, err = h.file.WriteAt(r.Data, r.Offset, mapping.Origin{Store: true})
		return r.Offset, n, err
	}
	if r.FileFlags&fuse.OpenAppend == 0 {
		n, err = h.file.WriteAt(r.Data, r.Offset, mapping.Origin{PID: r.Pid})
		return r.Offset, n, err
	}
	at, n, err = h.file.Append(r.Data, mapping.Origin{PID: r.Pid})
	if err == nil && at != r.Offset {
		// Somebody appended past the mount. The kernel believes the bytes are
		// where it thought the end was.
		s.conn.Invalidate(h.node.id)
	}
	return at, n, err
}

// dropPrivileges makes sure that a written file is no privileged program any
// more. It costs system calls only once between changes of mode.
func (s *Session) dropPrivileges(h *handle, kill bool) error {
	need := noCapabilities
	if kill {
		need |= noSetID
	}
	if h.node.known.Load()&need == need {
		return nil
	}
	changed := false
	err := s.history.changeMode(h.node, func() (err error) {
		changed, err = dropSetID(h.file, kill)
		return err
	})
	if err != nil {
		return err
	}
	if changed {
		s.conn.InvalidateAttributes(h.node.id)
	}
	h.node.knows(need, true)
	return nil
}

func (s *Session) release(w *wire.Worker, r *fuse.ReleaseRequest) error {
	h := s.closeHandle(r.Handle)
	switch {
	case h == nil:
		return syscall.EBADF
	case h.dir != nil:
		h.dir.close()
	default:
		s.closeFile(h.node, h.file, s.openingOf(h.user, h.flags))
		if s.history != nil && !h.lost {
			s.history.closed(h.node, h.flags)
		}
		h.file.Observe(mapping.Event{Kind: mapping.EventClose, Flags: h.flags})
		h.file.Release(true)
	}
	return w.OK()
}

// fsyncDataOnly is FUSE_FSYNC_FDATASYNC.
const fsyncDataOnly = 1

func (s *Session) fsync(w *wire.Worker, r *fuse.FsyncRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || r.Dir != (h.dir != nil) {
		return syscall.EBADF
	}
	if s.slowSync.Load() {
		w.WillWait()
	}
	start := time.Now()
	err := s.history.sync(h, r.Flags&fsyncDataOnly != 0)
	s.slowSync.Store(time.Since(start) > slowSync)
	if err != nil {
		return err
	}
	return w.OK()
}

// slowSync is how long a write-back takes that others should not wait for: some
// times what it costs to start another worker.
const slowSync = 100 * time.Microsecond

// fsync writes back what h has open.
func (h *handle) fsync(dataOnly bool) error {
	if h.dir != nil {
		return os.NewSyscallError("fsync", unix.Fsync(h.dir.fd))
	}
	return h.file.Sync(&h.failures, dataOnly)
}

func (s *Session) fallocate(w *wire.Worker, r *fuse.FAllocateRequest) error {
	h := s.handles.get(r.Handle)
	if h == nil || h.file == nil {
		return syscall.EBADF
	}
	if r.Offset > 1<<63-1 || r.Length > 1<<63-1 {
		return syscall.EFBIG
	}
	// The request does not say whether the client may keep set-id bits
	// (CAP_FSETID), so only user 0 may.
	if err := s.dropPrivileges(h, r.Uid != 0); err != nil {
		return err
	}
	err := s.history.allocate(h, r, func() error {
		return h.file.Allocate(uint32(r.Mode), int64(r.Offset), int64(r.Length))
	})
	if err != nil {
		return err
	}
	h.node.changed()
	return w.OK()
}
