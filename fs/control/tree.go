package control

import (
	"fmt"
	"net/http"
	"syscall"
	"time"

	"bazil.org/fuse"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/explicit"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/share"
)

// Options say what is mounted, and what the tree is like.
type Options struct {
	// Options are the mirror's. Subtree and Observer are set by [Mount].
	fs.Options

	// Control is what the tree is called in the mount's root: ".mapfs" if empty, and
	// "none" for no tree at all. The name is reserved: a backing directory that has an
	// entry of that name is refused.
	Control string
	// XattrStats lists the extended attributes that tell of a file's mapping.
	// They can be read without being listed.
	XattrStats bool
	// Version is what the status says of the program.
	Version string
}

// DefaultName is the name of the tree unless Options say otherwise; NoTree is the name
// that means none.
const (
	DefaultName = ".mapfs"
	NoTree      = "none"
)

// Tree is the control tree of one mount. It answers for a [fs.Session] as its
// [fs.Subtree].
type Tree struct {
	opts  Options
	name  string // in the mount's root; "" if it is not to be seen
	since time.Time

	// The session, and what the tree knows it by, from Attach on.
	s        *fs.Session
	uid, gid uint32
	arena    *explicit.Arena
	kernel   *pagestate.Sources
	metrics  *metrics

	// changed has the kernel drop what it has cached of a file: the session's Changed.
	changed func(*fs.Node)

	events *eventLog
	verbs  []verb
	texts  *share.Pool // bytes of texts that are open
	nodes  nodes
}

// Session is a mount with a control tree.
type Session struct {
	*fs.Session
	tree *Tree
}

// Mount mounts opts.Backing on opts.Mountpoint with a control tree; see [fs.Mount].
func Mount(opts Options) (*Session, error) {
	t := newTree(opts)
	opts.Subtree, opts.Observer = t, t.events
	s, err := fs.Mount(opts.Options)
	if err != nil {
		return nil, err
	}
	return &Session{s, t}, nil
}

// MetricsHandler serves the session's metrics over HTTP.
func (s *Session) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(s.tree.metrics.registry, promhttp.HandlerOpts{})
}

func newTree(opts Options) *Tree {
	t := &Tree{opts: opts, name: opts.Control, since: time.Now(), events: newEventLog(), verbs: verbs()}
	switch t.name {
	case "":
		t.name = DefaultName
	case NoTree:
		t.name = ""
	}
	t.nodes.init()
	return t
}

// Name is [fs.Subtree]'s.
func (t *Tree) Name() string { return t.name }

// texts that are open can take so many bytes, and fewer where memory is scarce.
const (
	maxTexts      = 64 << 20
	maxTightTexts = 4 << 20
)

// Attach is [fs.Subtree]'s. It refuses a backing directory that has an entry of the
// tree's name: the entry could not be reached.
func (t *Tree) Attach(s *fs.Session, backing int) error {
	if err := t.reserve(s.Options().Backing, backing); err != nil {
		return err
	}
	t.s, t.changed = s, s.Changed
	t.uid, t.gid = s.Owner()
	space := mapping.FreeAddressSpace()
	most := int64(maxTexts)
	if space < fs.TightSpace {
		most = maxTightTexts
	}
	t.texts = share.NewPool(most, s.Options().AllowOther)
	t.kernel = pagestate.Probe(backing)
	t.metrics = newMetrics(t)
	t.arena = explicit.NewArena(s.Log(), space/4)
	return nil
}

func (t *Tree) reserve(path string, fd int) error {
	if t.name == "" {
		return nil
	}
	if err := fs.CheckName(t.name); err != nil {
		return fmt.Errorf("%q cannot be the control tree's name: %w", t.name, err)
	}
	var st unix.Stat_t
	if unix.Fstatat(fd, t.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return fmt.Errorf("%s has an entry %q, which is the control tree's name; rename it, or mount with -o control=NAME or -o control=none", path, t.name)
	}
	return nil
}

// Close is [fs.Subtree]'s.
func (t *Tree) Close() {
	if t.s == nil {
		return // Attach refused
	}
	t.kernel.Close()
	t.arena.Close()
}

// Descriptors is [fs.Subtree]'s: each explicit mapping keeps its file open.
func (t *Tree) Descriptors() int64 { return int64(t.arena.Count()) }

// Lookup is [fs.Subtree]'s.
func (t *Tree) Lookup(w *wire.Worker) error {
	t.s.Files().MapNow() // what is read has a mapping to look at
	return t.sendNode(w, t.nodes.look(t, key{entry: t.nodes.root}, false))
}

// Forget is [fs.Subtree]'s.
func (t *Tree) Forget(id fuse.NodeID, count uint64) { t.nodes.forget(t, id, count) }

// call is a request that reads or writes an open file of the tree.
type call struct {
	t *Tree
	w *wire.Worker
	// nonblock says that a read must not wait.
	nonblock bool
}

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
	case *fuse.WriteRequest:
		return t.write(w, r)
	case *fuse.PollRequest:
		return t.poll(w, r)
	case *fuse.ReleaseRequest:
		t.s.ReleaseHandle(r.Handle)
		return w.OK()
	case *fuse.FlushRequest, *fuse.FsyncRequest, *fuse.AccessRequest:
		return w.OK()
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
		*fuse.RenameRequest, *fuse.SetxattrRequest, *fuse.RemovexattrRequest, *fuse.FAllocateRequest:
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
	case mappingsDir:
		return t.lookupMapping(w, r)
	}
	e := t.nodes.find(n.entry.holds(), r.Name)
	if e == nil {
		return syscall.ENOENT
	}
	key := key{e, n.target, n.explicit}
	if e.holds() == mirrorDir {
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
	if !t.mayRead(&r.Header, n.target) || n.entry.may != nil && !n.entry.may(t, n, &r.Header) {
		return syscall.EACCES
	}
	h := n.entry.open(t, n, &r.Header)
	id, err := t.addHandle(h, r.Uid)
	if err != nil {
		h.Close()
		return err
	}
	out := wire.OpenOut{Fh: uint64(id), OpenFlags: uint32(fuse.OpenDirectIO)}
	return w.Send(wire.BytesOf(&out))
}

// addHandle stores the handle of a user, who is charged for it and for its text.
func (t *Tree) addHandle(h handle, user uint32) (fuse.HandleID, error) {
	if s, ok := h.(*snapshot); ok {
		if err := s.charge(t.texts, user); err != nil {
			return 0, err
		}
	}
	return t.s.AddHandle(user, h)
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
