package fs

import (
	"errors"
	"runtime/debug"
	"syscall"

	"bazil.org/fuse"
)

// Serve answers requests until the mount is unmounted, then writes everything
// back. It returns the error of that, or what ended the session early.
func (s *Session) Serve() error {
	err := s.workers.serve(s)
	err = errors.Join(err, s.Sync())
	s.close()
	return err
}

// answer handles one request and answers it. A bug in a handler costs the
// client an EIO and not everybody the mount.
func (w *worker) answer(request fuse.Request) {
	w.start(request.Hdr())
	w.user.Store(int64(request.Hdr().Uid))
	defer w.user.Store(nobody)
	defer func() {
		if e := recover(); e != nil {
			w.s.log.Error("a request failed", "request", request.String(), "panic", e, "stack", string(debug.Stack()))
			if w.request != nil {
				w.fail(syscall.EIO)
				w.finish()
			}
		}
	}()
	if err := w.handle(request); err != nil && err != errAnswered {
		if err := w.fail(errnoOf(err)); err != nil && err != syscall.ENOENT {
			w.s.log.Error("a reply was refused", "error", err)
		}
	}
	w.finish()
}

// errAnswered says that a handler has answered already, well or not.
var errAnswered = errors.New("answered")

// handle does what a request asks for and answers it. An error is still to be
// answered by the caller.
func (w *worker) handle(request fuse.Request) error {
	if request.Hdr().Node&controlBit != 0 {
		if r, ok := request.(*fuse.ForgetRequest); ok {
			w.s.forget(r.Node, r.N)
			return errAnswered
		}
		return w.control(request)
	}
	switch r := request.(type) {
	case *fuse.ReadRequest:
		if r.Dir {
			return w.readdir(r)
		}
		return w.read(r)
	case *fuse.WriteRequest:
		return w.write(r)
	case *fuse.LookupRequest:
		return w.lookup(r)
	case *fuse.GetattrRequest:
		return w.getattr(r)
	case *fuse.SetattrRequest:
		return w.setattr(r)
	case *fuse.OpenRequest:
		if r.Dir {
			return w.opendir(r)
		}
		return w.open(r)
	case *fuse.CreateRequest:
		return w.create(r)
	case *fuse.FlushRequest:
		// Nothing is kept back until close(2), and the time of the last store waits
		// for the release. The kernel asks only once.
		return syscall.ENOSYS
	case *fuse.ReleaseRequest:
		return w.release(r)
	case *fuse.FsyncRequest:
		return w.fsync(r)
	case *fuse.FAllocateRequest:
		return w.fallocate(r)
	case *fuse.ForgetRequest:
		w.s.forget(r.Node, r.N)
		return errAnswered
	case *fuse.BatchForgetRequest:
		for _, f := range r.Forget {
			w.s.forget(f.NodeID, f.N)
		}
		return errAnswered
	case *fuse.MkdirRequest:
		return w.mkdir(r)
	case *fuse.MknodRequest:
		return w.mknod(r)
	case *fuse.SymlinkRequest:
		return w.symlink(r)
	case *fuse.LinkRequest:
		return w.link(r)
	case *fuse.RemoveRequest:
		return w.remove(r)
	case *fuse.RenameRequest:
		return w.rename(r)
	case *fuse.PollRequest:
		return w.poll(r)
	case *fuse.ReadlinkRequest:
		return w.readlink(r)
	case *fuse.StatfsRequest:
		return w.statfs(r)
	case *fuse.AccessRequest:
		return w.access(r)
	case *fuse.GetxattrRequest:
		return w.getxattr(r)
	case *fuse.ListxattrRequest:
		return w.listxattr(r)
	case *fuse.SetxattrRequest:
		return w.setxattr(r)
	case *fuse.RemovexattrRequest:
		return w.removexattr(r)
	case *fuse.InterruptRequest:
		// Readers of events wait for something, and requests for a worker. Any
		// other that is to be interrupted is about to be answered anyway.
		if !w.s.workers.interrupt(w, r.IntrID) {
			w.s.control.waiters.interrupt(r.IntrID)
		}
		return errAnswered
	case *fuse.DestroyRequest:
		return w.ok()
	default:
		// What the library cannot decode (rename2, lseek, copy_file_range,
		// tmpfile, ioctl ...), and locks, which the kernel then keeps itself.
		return syscall.ENOSYS
	}
}

// forget drops lookups of a node, and what was kept for it if it is not known
// any more.
func (s *Session) forget(id fuse.NodeID, count uint64) {
	if id&controlBit != 0 {
		s.forgetControl(id, count)
		return
	}
	n := s.nodes.forget(id, count)
	if n == nil {
		return
	}
	n.forgotten()
	s.dirs.forget(id)
	if n.kind == modeRegular {
		s.files.Forget(n.key, false)
	}
}
