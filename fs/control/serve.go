package control

import (
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/mapping/paging"
	"mapfs/mapping/share"
)

// Lookup is [fs.Subtree]'s.
func (t *Tree) Lookup(w *wire.Worker) error {
	t.s.Files().MapNow() // what is read has a mapping to look at
	return t.sendNode(w, t.nodes.look(t, key{entry: t.nodes.root}, false))
}

// Forget is [fs.Subtree]'s.
func (t *Tree) Forget(id fuse.NodeID, count uint64) { t.nodes.forget(t, id, count) }

// Handle is [fs.Subtree]'s.
func (t *Tree) Handle(w *wire.Worker, request fuse.Request) error {
	n := t.nodes.get(request.Hdr().Node)
	if n == nil {
		return syscall.ESTALE
	}
	switch r := request.(type) {
	case *fuse.LookupRequest:
		return t.lookup(w, n, r)
	case *fuse.GetattrRequest:
		return t.getattr(w, n)
	case *fuse.SetattrRequest:
		// The shell's > truncates what it opens. There is nothing to cut.
		if r.Valid&^(fuse.SetattrSize|fuse.SetattrHandle|fuse.SetattrLockOwner|fuse.SetattrMtime|fuse.SetattrMtimeNow|fuse.SetattrCTime|fuse.SetattrKillSUIDGID) != 0 {
			return syscall.EPERM
		}
		return t.getattr(w, n)
	case *fuse.OpenRequest:
		return t.open(w, n, r)
	case *fuse.ReadRequest:
		return t.read(w, r)
	case *wire.ReaddirplusRequest:
		return t.readPlus(w, r)
	case *fuse.WriteRequest:
		return t.write(w, r)
	case *wire.PollRequest:
		return t.poll(w, r)
	case *fuse.ReleaseRequest:
		t.s.ReleaseHandle(r.Handle)
		return w.OK()
	case *fuse.FlushRequest, *fuse.FsyncRequest, *fuse.AccessRequest:
		return w.OK()
	case *fuse.ReadlinkRequest:
		return t.readlink(w, n)
	case *fuse.StatfsRequest:
		return t.s.Handle(w, &fuse.StatfsRequest{Header: fuse.Header{Node: fuse.RootID}})
	case *fuse.GetxattrRequest:
		return t.getxattr(w, r)
	case *fuse.ListxattrRequest:
		if r.Size == 0 {
			out := wire.XattrOut{}
			return w.Send(wire.BytesOf(&out))
		}
		return w.OK()
	case *fuse.RemoveRequest:
		return t.removeMapping(w, n, r)
	case *fuse.CreateRequest, *fuse.MkdirRequest, *fuse.MknodRequest, *fuse.SymlinkRequest, *fuse.LinkRequest,
		*fuse.RenameRequest, *wire.Rename2Request, *wire.TmpfileRequest, *fuse.SetxattrRequest, *fuse.RemovexattrRequest, *fuse.FAllocateRequest:
		return syscall.EPERM
	}
	return syscall.ENOSYS
}

// sendNode answers a lookup with a node of the control tree. Nothing of it is kept by
// the kernel: what it tells changes at any time.
func (t *Tree) sendNode(w *wire.Worker, n *node) error {
	out := wire.EntryOut{Nodeid: uint64(n.id)}
	if err := t.attr(n, &out.Attr); err != nil {
		t.Forget(n.id, 1)
		return err
	}
	return w.Send(wire.BytesOf(&out))
}

func (t *Tree) getattr(w *wire.Worker, n *node) error {
	var out wire.AttrOut
	if err := t.attr(n, &out.Attr); err != nil {
		return err
	}
	return w.Send(wire.BytesOf(&out))
}

// attr fills a with the attributes of a node. Directories below files have
// the permissions of what they mirror, so the kernel lets nobody in who may not
// go there in the mount itself.
func (t *Tree) attr(n *node, a *wire.Attr) error {
	if n.entry == t.nodes.durableFile || n.entry.holds() == durableDir {
		return t.durableAttr(n, a)
	}
	now := unix.NsecToTimespec(t.since.UnixNano())
	st := unix.Stat_t{Mode: n.entry.mode, Nlink: 1, Uid: t.uid, Gid: t.gid, Atim: now, Mtim: now, Ctim: now}
	var target unix.Stat_t
	if n.target != nil {
		if err := t.s.Stat(n.target, &target); err != nil {
			return err
		}
		st.Atim, st.Mtim, st.Ctim = target.Atim, target.Mtim, target.Ctim
		if n.entry.holds() == mirrorDir {
			st.Mode = target.Mode &^ 0o222
			st.Uid, st.Gid = target.Uid, target.Gid
		}
	}
	if n.entry.isDir() {
		st.Nlink = 2
	}
	if n.entry.size != nil {
		st.Size = n.entry.size(t, n, target.Size)
	}
	a.Set(&st, t.inode(n.key))
	a.Blksize = uint32(paging.PageSize)
	return nil
}

// lookup answers what a name in a directory of the control tree is.
func (t *Tree) lookup(w *wire.Worker, n *node, r *fuse.LookupRequest) error {
	switch n.entry.holds() {
	case mirrorDir:
		return t.lookupMirror(w, n, r.Name)
	case durableDir:
		return t.lookupDurable(w, n, r.Name)
	case mappingsDir:
		return t.lookupMapping(w, r)
	}
	e := t.nodes.find(n.entry.holds(), r.Name)
	if e == nil {
		return syscall.ENOENT
	}
	key := key{e, n.target, n.explicit}
	if e.holds() == mirrorDir || e.holds() == durableDir {
		key.target = t.s.Root()
	}
	return t.sendNode(w, t.nodes.look(t, key, false))
}

// lookupMirror answers what a name in files, or in a directory below it, is. Only
// directories and regular files are mirrored.
func (t *Tree) lookupMirror(w *wire.Worker, n *node, name string) error {
	var st unix.Stat_t
	target, err := t.s.Lookup(n.target, name, &st)
	if err != nil {
		return err
	}
	e := t.nodes.file
	switch {
	case target.IsDir():
		e = t.nodes.mirror
	case !target.IsRegular():
		t.s.Forget(target)
		return syscall.ENOENT
	}
	return t.sendNode(w, t.nodes.look(t, key{entry: e, target: target}, true))
}

// open opens a file or a directory of the control tree.
func (t *Tree) open(w *wire.Worker, n *node, r *fuse.OpenRequest) error {
	if n.entry.holds() == mirrorDir {
		out, err := t.s.OpenAsDirs(n.target, &r.Header)
		if err != nil {
			return err
		}
		return w.Send(wire.BytesOf(&out))
	}
	if n.entry.cached && r.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return syscall.EROFS
	}
	if !t.mayRead(&r.Header, n.target) || n.entry.may != nil && !n.entry.may(t, n, &r.Header) {
		return syscall.EACCES
	}
	if n.entry.handOver {
		t.s.HandOver(w)
	}
	h := n.entry.open(t, n, &r.Header)
	id, err := t.addHandle(h, r.Uid)
	if err != nil {
		h.Close()
		return err
	}
	out := wire.OpenOut{Fh: uint64(id), OpenFlags: uint32(fuse.OpenDirectIO)}
	if n.entry.cached {
		out.OpenFlags = 0
	}
	return w.Send(wire.BytesOf(&out))
}

// addHandle stores the handle of a user, who is charged for it and for its text.
func (t *Tree) addHandle(h handle, user uint32) (fuse.HandleID, error) {
	if err := t.charge(h, user); err != nil {
		return 0, err
	}
	return t.s.AddHandle(user, h)
}

// charged is a handle with a text that counts; see [snapshot.charge].
type charged interface {
	charge(pool *share.Pool, user uint32) error
}

// charge charges a user with the text of a handle, if it has one.
func (t *Tree) charge(h handle, user uint32) error {
	if c, ok := h.(charged); ok {
		return c.charge(t.texts, user)
	}
	return nil
}

func (t *Tree) read(w *wire.Worker, r *fuse.ReadRequest) error {
	h, ok := t.s.GetHandle(r.Handle).(handle)
	if !ok {
		return t.s.ReadDir(w, r) // of OpenAsDirs
	}
	// fcntl(2) can have set O_NONBLOCK since the open.
	c := call{t: t, w: w, nonblock: r.FileFlags&fuse.OpenNonblock != 0}
	out, err := h.read(&c, r.Offset, r.Size)
	if err != nil {
		return err
	}
	return w.SendBytes(out)
}

// readPlus answers a read of a directory whose entries could be looked up. They are not:
// the kernel must ask for each of what it is to know.
func (t *Tree) readPlus(w *wire.Worker, r *wire.ReaddirplusRequest) error {
	h, ok := t.s.GetHandle(r.Handle).(handle)
	if !ok {
		return t.s.ReadDirPlus(w, r) // of OpenAsDirs
	}
	entries, err := h.read(&call{t: t, w: w}, r.Offset, r.Size)
	if err != nil {
		return err
	}
	return w.SendBytes(wire.WithoutLookups(entries, r.Size))
}

func (t *Tree) write(w *wire.Worker, r *fuse.WriteRequest) error {
	h, ok := t.s.GetHandle(r.Handle).(handle)
	if !ok {
		return syscall.EBADF
	}
	w.WillWait() // a command can take long
	n, err := h.write(&call{t: t, w: w}, r.Data, r.Offset)
	if err != nil {
		return err
	}
	out := wire.WriteOut{Size: uint32(n)}
	return w.Send(wire.BytesOf(&out))
}
