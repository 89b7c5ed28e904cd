package fs

import (
	"strings"
	"sync"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// defaultControl is the name of the control tree unless Options say otherwise;
// noControl is the name that means none.
const (
	defaultControl = ".mapfs"
	noControl      = "none"
)

// controlBit marks the numbers of the control tree's nodes, so that a request is
// known to be for the tree before any table is asked.
const controlBit fuse.NodeID = 1 << 62

// controlKind says what a node of the control tree is.
type controlKind uint8

const (
	controlRoot     controlKind = iota // the tree itself
	controlMirror                      // files, and each directory below it
	controlFile                        // the directory of one regular file
	controlMappings                    // mappings
	controlMapping                     // the directory of one explicit mapping
	firstLeaf                          // what follows are files
	rootStatus      = firstLeaf + iota - 6
	rootMaps
	rootEvents
	rootMetrics
	rootCtl
	fileStatus
	filePages
	fileMap
	fileMemory
	fileBacking
	fileUnsynced
	fileCtl
	mappingStatus
	mappingPages
	mappingMap
	mappingMemory
	mappingCtl
)

// controlNames are the entries of each kind of directory but the mirror.
var controlNames = map[controlKind][]struct {
	name string
	kind controlKind
}{
	controlRoot: {
		{"status", rootStatus}, {"maps", rootMaps}, {"events", rootEvents}, {"metrics", rootMetrics},
		{"ctl", rootCtl}, {"files", controlMirror}, {"mappings", controlMappings},
	},
	controlMapping: {
		{"status", mappingStatus}, {"pages", mappingPages}, {"map", mappingMap}, {"memory", mappingMemory},
		{"ctl", mappingCtl},
	},
	controlFile: {
		{"status", fileStatus}, {"pages", filePages}, {"map", fileMap}, {"memory", fileMemory},
		{"backing", fileBacking}, {"unsynced", fileUnsynced}, {"ctl", fileCtl},
	},
}

// isDir reports whether nodes of the kind are directories.
func (k controlKind) isDir() bool { return k < rootStatus }

// mode returns the permissions of nodes of the kind.
func (k controlKind) mode() uint32 {
	switch {
	case k == controlMappings:
		return unix.S_IFDIR | 0o755 // its owner may remove entries
	case k.isDir():
		return unix.S_IFDIR | 0o555
	case k == rootCtl || k == fileCtl || k == fileMemory || k == mappingCtl || k == mappingMemory:
		return unix.S_IFREG | 0o600
	}
	return unix.S_IFREG | 0o444
}

// controlKey is what a node of the control tree is about: its kind, the directory
// or file of the mount for those below files, and the explicit mapping for those
// below mappings.
type controlKey struct {
	kind     controlKind
	target   *node
	explicit *mapping.Mapping
}

// controlNode is a node of the control tree. While it lives it keeps its target
// known, as a lookup by the kernel would.
type controlNode struct {
	controlKey
	id      fuse.NodeID
	lookups uint64 // guarded by the table
}

// controlTree holds the nodes of the control tree.
type controlTree struct {
	name    string // of the tree in the mount's root; "" if there is none
	since   time.Time
	kernel  *mapping.KernelSources
	events  *eventLog
	metrics *metrics
	waiters waiters

	mu    sync.Mutex
	byID  map[fuse.NodeID]*controlNode
	byKey map[controlKey]*controlNode
	next  fuse.NodeID
}

// init makes an empty tree with the name that Options give.
func (t *controlTree) init(name string) {
	switch name {
	case "":
		t.name = defaultControl
	case noControl:
	default:
		t.name = name
	}
	t.since = time.Now()
	t.byID = make(map[fuse.NodeID]*controlNode)
	t.byKey = make(map[controlKey]*controlNode)
	t.next = controlBit
	t.events = newEventLog()
}

// get returns the node with the given number, or nil.
func (t *controlTree) get(id fuse.NodeID) *controlNode {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// lookControl returns the node for key and counts a lookup. Of a target the tree keeps
// one lookup for each node; held says that the caller has counted one, which
// this takes over or gives back.
func (s *Session) lookControl(key controlKey, held bool) *controlNode {
	t := &s.control
	t.mu.Lock()
	n := t.byKey[key]
	fresh := n == nil
	if fresh {
		n = &controlNode{controlKey: key, id: t.next}
		t.next++
		t.byKey[key] = n
		t.byID[n.id] = n
	}
	n.lookups++
	t.mu.Unlock()
	switch {
	case fresh && !held && key.target != nil:
		s.nodes.hold(key.target)
	case !fresh && held:
		s.forget(key.target.id, 1)
	}
	return n
}

// forgetControl takes count lookups of a node back.
func (s *Session) forgetControl(id fuse.NodeID, count uint64) {
	t := &s.control
	t.mu.Lock()
	n := t.byID[id]
	if n == nil {
		t.mu.Unlock()
		return
	}
	n.lookups -= min(count, n.lookups)
	gone := n.lookups == 0
	if gone {
		delete(t.byID, n.id)
		delete(t.byKey, n.controlKey)
	}
	t.mu.Unlock()
	if gone && n.target != nil {
		s.forget(n.target.id, 1)
	}
}

// inode returns the number to show for a node: that of its target, moved to
// where no filesystem's own numbers are.
func (n *controlNode) inode(s *Session) uint64 {
	ino := uint64(1)<<63 | uint64(n.kind)<<56
	if n.target != nil {
		ino |= s.devices.inode(n.target.key) & (1<<56 - 1)
	}
	if n.explicit != nil {
		ino |= n.explicit.Serial() & (1<<56 - 1)
	}
	return ino
}

// controlAttr fills a with the attributes of a node. Directories below files have
// the permissions of what they mirror, so the kernel lets nobody in who may not
// go there in the mount itself.
func (s *Session) controlAttr(n *controlNode, a *attr) error {
	now := unix.NsecToTimespec(s.control.since.UnixNano())
	st := unix.Stat_t{Mode: n.kind.mode(), Nlink: 1, Uid: s.uid, Gid: s.gid, Atim: now, Mtim: now, Ctim: now}
	if n.target != nil {
		var target unix.Stat_t
		if err := s.stat(n.target, &target); err != nil {
			return err
		}
		st.Atim, st.Mtim, st.Ctim = target.Atim, target.Mtim, target.Ctim
		switch n.kind {
		case controlMirror:
			st.Mode = target.Mode &^ 0o222
			st.Uid, st.Gid = target.Uid, target.Gid
		case fileMemory:
			st.Size, _ = mapping.PageUp(target.Size)
		case fileBacking:
			st.Size = s.backingSize(n.target, target.Size)
		}
	}
	if n.kind == mappingMemory {
		st.Size = n.explicit.Length()
	}
	if n.kind.isDir() {
		st.Nlink = 2
	}
	if n.kind == rootEvents {
		st.Size = s.control.events.size()
	}
	a.set(&st, n.inode(s))
	a.Blksize = uint32(mapping.PageSize)
	return nil
}

// control handles a request for a node of the control tree.
func (w *worker) control(request fuse.Request) error {
	n := w.s.control.get(request.Hdr().Node)
	if n == nil {
		return syscall.ESTALE
	}
	switch r := request.(type) {
	case *fuse.LookupRequest:
		if n.kind == controlMappings {
			return w.lookMapping(r)
		}
		return w.controlLookup(n, r.Name)
	case *fuse.GetattrRequest:
		return w.controlGetattr(n)
	case *fuse.SetattrRequest:
		// The shell's > truncates what it opens. There is nothing to cut.
		if r.Valid&^(fuse.SetattrSize|fuse.SetattrHandle|fuse.SetattrLockOwner|fuse.SetattrMtime|fuse.SetattrMtimeNow|fuse.SetattrCTime|fuse.SetattrKillSUIDGID) != 0 {
			return syscall.EPERM
		}
		return w.controlGetattr(n)
	case *fuse.OpenRequest:
		return w.controlOpen(n, r)
	case *fuse.ReadRequest:
		return w.controlRead(r)
	case *fuse.WriteRequest:
		return w.controlWrite(r)
	case *fuse.PollRequest:
		return w.controlPoll(r)
	case *fuse.ReleaseRequest:
		w.s.closeHandle(r.Handle).close()
		return w.ok()
	case *fuse.FlushRequest, *fuse.FsyncRequest, *fuse.AccessRequest:
		return w.ok()
	case *fuse.StatfsRequest:
		return w.statfs(&fuse.StatfsRequest{Header: fuse.Header{Node: fuse.RootID}})
	case *fuse.GetxattrRequest:
		return w.ownXattr(r.Name, r.Size, nil)
	case *fuse.ListxattrRequest:
		if r.Size == 0 {
			out := xattrOut{}
			return w.send(bytesOf(&out))
		}
		return w.ok()
	case *fuse.RemoveRequest:
		return w.controlRemove(n, r)
	case *fuse.CreateRequest, *fuse.MkdirRequest, *fuse.MknodRequest, *fuse.SymlinkRequest, *fuse.LinkRequest,
		*fuse.RenameRequest, *fuse.SetxattrRequest, *fuse.RemovexattrRequest, *fuse.FAllocateRequest:
		return syscall.EPERM
	}
	return syscall.ENOSYS
}

// controlLookup answers what a name in a directory of the control tree is.
func (w *worker) controlLookup(n *controlNode, name string) error {
	s := w.s
	if n.kind == controlMirror {
		target, err := s.lookTarget(n.target, name)
		if err != nil {
			return err
		}
		kind := controlFile
		if target.kind == unix.S_IFDIR {
			kind = controlMirror
		}
		return w.sendControl(s.lookControl(controlKey{kind: kind, target: target}, true))
	}
	for _, e := range controlNames[n.kind] {
		if e.name == name {
			key := controlKey{e.kind, n.target, n.explicit}
			if e.kind == controlMirror {
				key.target = s.nodes.get(fuse.RootID)
			}
			return w.sendControl(s.lookControl(key, false))
		}
	}
	return syscall.ENOENT
}

// lookTarget finds what a name in a directory of the mount is, for its mirror,
// and counts a lookup. Only directories and regular files are mirrored.
func (s *Session) lookTarget(dir *node, name string) (*node, error) {
	p, err := s.entry(dir.id, name)
	if err != nil {
		return nil, err
	}
	defer s.leave(p)
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFDIR && kind != modeRegular {
		return nil, syscall.ENOENT
	}
	return s.nodes.look(&st, link{dir.id, name}), nil
}

// sendControl answers with a node of the control tree. Nothing of it is kept by
// the kernel: what it tells changes at any time.
func (w *worker) sendControl(n *controlNode) error {
	out := entryOut{Nodeid: uint64(n.id)}
	if err := w.s.controlAttr(n, &out.Attr); err != nil {
		w.s.forgetControl(n.id, 1)
		return err
	}
	return w.send(bytesOf(&out))
}

func (w *worker) controlGetattr(n *controlNode) error {
	var out attrOut
	if err := w.s.controlAttr(n, &out.Attr); err != nil {
		return err
	}
	return w.send(bytesOf(&out))
}

// controlOpen opens a file or a directory of the control tree.
func (w *worker) controlOpen(n *controlNode, r *fuse.OpenRequest) error {
	if n.kind == controlMirror {
		// The directory of the mount, of which readdir then shows directories only.
		out, err := w.s.openDir(n.target, &r.Header, true, true)
		if err != nil {
			return err
		}
		return w.send(bytesOf(&out))
	}
	// Events name every file, so they are for who may see every file.
	if !w.s.mayRead(&r.Header, n.target) || n.kind == rootEvents && r.Uid != 0 && r.Uid != w.s.uid {
		return syscall.EACCES
	}
	if n.explicit != nil && !w.s.mayOpen(&r.Header, n) {
		return syscall.EACCES
	}
	if err := w.s.admit(r.Uid); err != nil {
		return err
	}
	h := &handle{control: w.s.openControl(n, r), user: r.Uid}
	if err := w.s.admitText(h); err != nil {
		w.s.dismiss(r.Uid)
		return err
	}
	out := openOut{Fh: uint64(w.s.handles.add(h)), OpenFlags: uint32(fuse.OpenDirectIO)}
	return w.send(bytesOf(&out))
}

// openControl makes the handle of a node.
func (s *Session) openControl(n *controlNode, r *fuse.OpenRequest) controlHandle {
	switch n.kind {
	case rootStatus:
		return s.snapshot(s.writeStatus)
	case rootMaps:
		return s.snapshot(func(b *strings.Builder) error { return s.writeMaps(b, &r.Header) })
	case rootEvents:
		return s.control.events.open()
	case rootMetrics:
		return s.snapshot(s.control.metrics.write)
	case rootCtl, fileCtl, mappingCtl:
		return &ctlHandle{target: n.target, explicit: n.explicit}
	case fileStatus:
		return s.snapshot(func(b *strings.Builder) error { return s.writeFileStatus(b, n.target) })
	case filePages:
		return newPagesHandle(s.pagesOf(n.target), new(pagesText))
	case fileMap:
		return newPagesHandle(s.pagesOf(n.target), new(mapText))
	case fileUnsynced:
		return s.snapshot(func(b *strings.Builder) error { return s.writeUnsynced(b, n.target) })
	case fileMemory:
		return &memoryHandle{target: n.target}
	case fileBacking:
		return &backingHandle{target: n.target}
	case controlRoot, controlFile, controlMapping:
		return &controlDir{entries: controlNames[n.kind], node: n}
	case controlMappings:
		return &mappingsDir{s: s, node: n, header: r.Header}
	case mappingStatus:
		return s.snapshot(func(b *strings.Builder) error { return s.writeMappingStatus(b, n.explicit) })
	case mappingPages:
		return newPagesHandle(s.pagesOfMapping(n.explicit), new(pagesText))
	case mappingMap:
		return newPagesHandle(s.pagesOfMapping(n.explicit), new(mapText))
	case mappingMemory:
		return &mappingMemoryHandle{explicit: n.explicit}
	}
	return nil
}

func (w *worker) controlRead(r *fuse.ReadRequest) error {
	h := w.s.handles.get(r.Handle)
	switch {
	case h == nil:
		return syscall.EBADF
	case h.dir != nil:
		return w.readdir(r)
	}
	w.nonblock = r.FileFlags&fuse.OpenNonblock != 0 // fcntl(2) can have set it since the open
	out, err := h.control.read(w, r.Offset, r.Size)
	if err != nil {
		return err
	}
	return w.sendBytes(out)
}

func (w *worker) controlWrite(r *fuse.WriteRequest) error {
	h := w.s.handles.get(r.Handle)
	if h == nil || h.control == nil {
		return syscall.EBADF
	}
	w.s.workers.willWait() // a command can take long
	n := len(r.Data)
	var err error
	if at, ok := h.control.(writerAt); ok {
		n, err = at.writeAt(w, r.Data, r.Offset)
	} else {
		err = h.control.write(w, r.Data)
	}
	if err != nil {
		return err
	}
	out := writeOut{Size: uint32(n)}
	return w.send(bytesOf(&out))
}
