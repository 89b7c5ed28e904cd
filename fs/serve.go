package fs

import (
	"errors"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
)

// Serve answers requests until the mount is unmounted, then writes everything
// back. It returns the error of that, or what ended the session early.
func (s *Session) Serve() error {
	err := s.conn.Serve(s)
	if s.history != nil {
		s.history.ended()
	}
	err = errors.Join(err, s.Sync())
	s.end()
	return err
}

// Handle is [wire.Handler]'s.
func (s *Session) Handle(w *wire.Worker, request fuse.Request) error {
	if s.faults.Active() && request.Hdr().Node&SubtreeNode == 0 {
		cut, err := s.inject(w, request)
		if cut {
			defer s.failPower(request)
		}
		if err != nil {
			return err
		}
	}
	err := s.serve(w, request)
	if errors.Is(err, syscall.ENOSPC) && takesSpace(request) {
		w.WillWait()
		s.awaitForgets()
		err = s.serve(w, request) // nothing was done yet
	}
	return err
}

// serve is handle, by way of the history if there is one.
func (s *Session) serve(w *wire.Worker, request fuse.Request) error {
	if s.history != nil && request.Hdr().Node&SubtreeNode == 0 {
		return s.history.handle(w, request)
	}
	return s.handle(w, request)
}

// takesSpace reports whether a request that fails for want of space has done nothing, and
// can be tried again. That is not so of fsync(2), which tells of an error once.
func takesSpace(request fuse.Request) bool {
	switch request.(type) {
	case *fuse.WriteRequest, *fuse.CreateRequest, *fuse.MkdirRequest, *fuse.MknodRequest, *fuse.SymlinkRequest,
		*fuse.LinkRequest, *fuse.FAllocateRequest, *fuse.SetxattrRequest, *wire.CopyFileRangeRequest, *wire.TmpfileRequest:
		return request.Hdr().Node&SubtreeNode == 0
	}
	return false
}

// A removed file's space is free when the kernel has forgotten the file. It says so just
// after the removal, and perhaps to another worker than the one that gets the next
// request. forgetWait is how long a request that finds no space waits for that, and
// forgetTick how often it looks.
const (
	forgetWait = 50 * time.Millisecond
	forgetTick = time.Millisecond
)

// awaitForgets waits a moment, and longer while the kernel knows removed files, until it
// has forgotten one.
func (s *Session) awaitForgets() {
	before := s.forgotten.Load()
	for end := time.Now().Add(forgetWait); ; {
		time.Sleep(forgetTick)
		if s.nodes.holding() == 0 || s.forgotten.Load() != before || time.Now().After(end) {
			return
		}
	}
}

// handle does what one request asks for.
func (s *Session) handle(w *wire.Worker, request fuse.Request) error {
	if request.Hdr().Node&SubtreeNode != 0 {
		if r, ok := request.(*fuse.ForgetRequest); ok {
			s.forget(r.Node, r.N)
			return wire.ErrAnswered
		}
		return s.subtree.Handle(w, request)
	}
	switch r := request.(type) {
	case *fuse.ReadRequest:
		if r.Dir {
			return s.ReadDir(w, r)
		}
		return s.read(w, r)
	case *fuse.WriteRequest:
		return s.write(w, r)
	case *fuse.LookupRequest:
		return s.lookup(w, r)
	case *fuse.GetattrRequest:
		return s.getattr(w, r)
	case *fuse.SetattrRequest:
		return s.setattr(w, r)
	case *fuse.OpenRequest:
		if r.Dir {
			return s.opendir(w, r)
		}
		return s.open(w, r)
	case *fuse.CreateRequest:
		return s.create(w, r)
	case *fuse.FlushRequest:
		// Nothing is kept back until close(2), and the time of the last store waits
		// for the release. The kernel asks only once.
		return syscall.ENOSYS
	case *fuse.ReleaseRequest:
		return s.release(w, r)
	case *fuse.FsyncRequest:
		return s.fsync(w, r)
	case *fuse.FAllocateRequest:
		return s.fallocate(w, r)
	case *fuse.ForgetRequest:
		s.forget(r.Node, r.N)
		return wire.ErrAnswered
	case *fuse.BatchForgetRequest:
		for _, f := range r.Forget {
			s.forget(f.NodeID, f.N)
		}
		return wire.ErrAnswered
	case *fuse.MkdirRequest:
		return s.mkdir(w, r)
	case *fuse.MknodRequest:
		return s.mknod(w, r)
	case *fuse.SymlinkRequest:
		return s.symlink(w, r)
	case *fuse.LinkRequest:
		return s.link(w, r)
	case *fuse.RemoveRequest:
		return s.remove(w, r)
	case *fuse.RenameRequest:
		return s.rename(w, r, 0)
	case *wire.Rename2Request:
		return s.rename(w, &r.RenameRequest, r.Flags)
	case *wire.TmpfileRequest:
		return s.tmpfile(w, r)
	case *wire.ReaddirplusRequest:
		return s.ReadDirPlus(w, r)
	case *wire.LseekRequest:
		return s.lseek(w, r)
	case *wire.CopyFileRangeRequest:
		return s.copyFileRange(w, r)
	case *wire.StatxRequest:
		return s.statx(w, r)
	case *wire.IoctlRequest:
		return s.ioctl(w, r)
	case *wire.PollRequest:
		return Poll(w, r)
	case *fuse.ReadlinkRequest:
		return s.readlink(w, r)
	case *fuse.StatfsRequest:
		return s.statfs(w, r)
	case *fuse.AccessRequest:
		return s.access(w, r)
	case *fuse.GetxattrRequest:
		return s.getxattr(w, r)
	case *fuse.ListxattrRequest:
		return s.listxattr(w, r)
	case *fuse.SetxattrRequest:
		return s.setxattr(w, r)
	case *fuse.RemovexattrRequest:
		return s.removexattr(w, r)
	case *fuse.DestroyRequest:
		return w.OK()
	default:
		// Locks, for example, which the kernel then keeps itself.
		return syscall.ENOSYS
	}
}

// forget drops lookups of a node, and what was kept for it if it is not known
// any more.
func (s *Session) forget(id fuse.NodeID, count uint64) {
	if id&SubtreeNode != 0 {
		s.subtree.Forget(id, count)
		return
	}
	n := s.nodes.forget(id, count)
	if n == nil {
		return
	}
	if n.forgotten() {
		s.forgotten.Add(1)
	}
	s.dirs.forget(id)
	if n.kind == modeRegular {
		s.files.Forget(n.key, false)
	}
}

// The events of poll(2) for a file that can be read or written. POLLRDNORM and
// POLLWRNORM mean what POLLIN and POLLOUT do.
const (
	PollRead  = unix.POLLIN | 0x040
	PollWrite = unix.POLLOUT | 0x100
)

// Poll answers poll(2) of a file that is always ready. ENOSYS would make the kernel
// believe that of every file, a subtree's included.
func Poll(w *wire.Worker, r *wire.PollRequest) error {
	out := wire.PollOut{Revents: uint32(r.Events) & (PollRead | PollWrite)}
	return w.Send(wire.BytesOf(&out))
}
