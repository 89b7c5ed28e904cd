package fs

import (
	"os"
	"strings"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/fault"
	"mapfs/fs/wire"
	"mapfs/mapping"
)

// Faults returns the faults that requests of clients are held to.
func (s *Session) Faults() *fault.Set { return &s.faults }

// inject does to a request what the faults say: it waits, makes a read or write shorter,
// or returns the error that the request fails with. cut says that the power fails
// afterwards.
func (s *Session) inject(w *wire.Worker, request fuse.Request) (cut bool, err error) {
	ops, paths := s.describe(request)
	if len(ops) == 0 {
		return false, nil
	}
	action, hit := s.faults.Match(ops, paths)
	if !hit {
		return false, nil
	}
	cut = action.PowerCut == fault.After
	if action.Delay > 0 {
		done := make(chan struct{})
		defer time.AfterFunc(action.Delay, func() { close(done) }).Stop()
		if err := w.Wait(done); err != nil {
			return false, err
		}
	}
	if action.PowerCut == fault.Before {
		s.failPower(request)
		return false, syscall.EIO
	}
	if action.IsShort {
		switch r := request.(type) {
		case *fuse.ReadRequest:
			r.Size = min(r.Size, action.Short)
		case *fuse.WriteRequest:
			r.Data = r.Data[:min(len(r.Data), action.Short)]
		}
	}
	if action.Errno == 0 {
		return cut, nil
	}
	if r, ok := request.(*fuse.FsyncRequest); ok {
		if h := s.handles.get(r.Handle); h != nil && h.file != nil {
			if err := s.leaves(h.node, h.file, action.Then); err != nil {
				return cut, err
			}
		}
	}
	return cut, action.Errno
}

// failPower cuts the power at a request. The kernel drops what it had in its own time: it
// can hold locks for the request that it then waits for.
func (s *Session) failPower(request fuse.Request) {
	if _, _, err := s.history.cut(crash.Choice{}); err != nil {
		s.log.Error("a power cut that a fault asked for", "request", request, "error", err)
	}
}

// FailMsync returns what the faults let the write-back of a file end with that somebody
// asked for by command; nil if they have nothing against it.
func (s *Session) FailMsync(n *Node, f *mapping.File) error {
	if !s.faults.Active() {
		return nil
	}
	action, hit := s.faults.Match([]fault.Op{fault.Msync}, []string{s.Path(n)})
	if !hit {
		return nil
	}
	time.Sleep(action.Delay)
	if action.Errno == 0 {
		return nil
	}
	if err := s.leaves(n, f, action.Then); err != nil {
		return err
	}
	return os.NewSyscallError("msync", action.Errno)
}

// leaves leaves the pages of a file as a write-back that failed would.
func (s *Session) leaves(n *Node, f *mapping.File, then fault.Then) error {
	switch then {
	case fault.Clean:
		return s.abandon(n, f)
	case fault.Revert:
		if err := s.Msync(n, f, 0, 0, unix.MS_INVALIDATE); err != nil {
			return err
		}
		s.Changed(n)
	}
	return nil
}

// describe returns which kinds of operation a request is, none if no fault speaks of it,
// and the paths it is about, from the root of the mount.
func (s *Session) describe(request fuse.Request) (ops []fault.Op, paths []string) {
	h := request.Hdr()
	node := func(op ...fault.Op) ([]fault.Op, []string) { return op, []string{s.pathNow(h.Node)} }
	entry := func(op fault.Op, name string) ([]fault.Op, []string) {
		return []fault.Op{op}, []string{s.pathIn(h.Node, name)}
	}
	switch r := request.(type) {
	case *fuse.ReadRequest:
		if !r.Dir {
			return node(fault.Read)
		}
	case *fuse.WriteRequest:
		if r.Flags&fuse.WriteCache != 0 {
			return node(fault.Store)
		}
		return node(fault.Write)
	case *fuse.OpenRequest:
		switch {
		case r.Dir:
		case r.Flags&fuse.OpenTruncate != 0:
			return node(fault.Open, fault.Truncate)
		default:
			return node(fault.Open)
		}
	case *fuse.SetattrRequest:
		if r.Valid.Size() {
			return node(fault.Truncate)
		}
	case *fuse.FsyncRequest:
		if r.Flags&fsyncDataOnly != 0 {
			return node(fault.Fdatasync, fault.Msync)
		}
		return node(fault.Fsync)
	case *fuse.FAllocateRequest:
		return node(fault.Fallocate)
	case *fuse.CreateRequest:
		return entry(fault.Create, r.Name)
	case *fuse.MkdirRequest:
		return entry(fault.Mkdir, r.Name)
	case *fuse.RemoveRequest:
		if !r.Dir {
			return entry(fault.Unlink, r.Name)
		}
	case *fuse.LinkRequest:
		return []fault.Op{fault.Link}, []string{s.pathNow(r.OldNode), s.pathIn(r.Node, r.NewName)}
	case *fuse.RenameRequest:
		return s.describeRename(r)
	case *wire.Rename2Request:
		return s.describeRename(&r.RenameRequest)
	case *wire.CopyFileRangeRequest:
		return []fault.Op{fault.Write}, []string{s.pathNow(r.NodeOut)}
	case *wire.TmpfileRequest:
		return node(fault.Create)
	}
	return nil, nil
}

func (s *Session) describeRename(r *fuse.RenameRequest) (ops []fault.Op, paths []string) {
	return []fault.Op{fault.Rename}, []string{s.pathIn(r.Node, r.OldName), s.pathIn(r.NewDir, r.NewName)}
}

// pathNow returns the path of a node, the last it had if it has none any more, and "."
// for the root.
func (s *Session) pathNow(id fuse.NodeID) string {
	n := s.nodes.get(id)
	if n == nil {
		return ""
	}
	if n.id == fuse.RootID {
		return "."
	}
	path := s.Path(n)
	if f := n.openFile(); path == "" && f != nil {
		path = f.Name()
	}
	return path
}

// pathIn returns the path of a name in a directory.
func (s *Session) pathIn(dir fuse.NodeID, name string) string {
	return strings.TrimPrefix(s.pathNow(dir)+"/"+name, "./")
}
