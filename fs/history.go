package fs

import (
	"errors"
	"math"
	"os"
	"sync"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
	"mapfs/fs/wire"
	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// history knows what a power cut would take from the mount: every operation since the
// last sync that made it durable. The backing directory has the durable bytes of every
// file, and the names of the moment; what was removed is kept in the stash until that is
// durable.
//
// An inode is called by its node's number in the log, and the log's inodes stay known as
// if the kernel had looked them up.
type history struct {
	s   *Session
	log *crash.Log

	// gate is held shared by each request and exclusively by a power cut. No request may
	// wait for another one while it holds it.
	gate sync.RWMutex
	// names is held by each change of names, from the system call to the note in the log:
	// the log has them in their order. files does the same for the bytes of the files
	// whose number falls on it. It is taken before names.
	names sync.Mutex
	files [256]sync.Mutex

	stash stash

	mu      sync.Mutex
	tracked map[crash.Inode]*Node
	// writers counts the handles through which clients can have mapped a file for
	// stores (mmap(2): MAP_SHARED and PROT_WRITE need O_RDWR).
	writers map[fuse.NodeID]int
	// lostOpen are nodes that were open when the power failed, until the kernel forgets
	// them.
	lostOpen map[fuse.NodeID]bool
	// introduced are the nodes that a recording knows; nil if there is none.
	introduced map[fuse.NodeID]bool
}

func newHistory(s *Session) (*history, error) {
	h := &history{s: s, tracked: make(map[crash.Inode]*Node), writers: make(map[fuse.NodeID]int), lostOpen: make(map[fuse.NodeID]bool)}
	memory, dir := s.opts.HistoryMemory, s.opts.HistoryDir
	if memory == 0 {
		memory = DefaultHistoryMemory
	}
	if dir == "" {
		dir = os.TempDir()
	}
	var err error
	if h.log, err = crash.New(crash.Options{Model: s.opts.History, PageSize: int(paging.PageSize), MaxMemory: memory, Dir: dir}); err != nil {
		return nil, err
	}
	if s.opts.Record != "" {
		if err := h.log.Record(s.opts.Record); err != nil {
			h.log.Close()
			return nil, err
		}
		h.introduced = map[fuse.NodeID]bool{fuse.RootID: true}
	}
	h.stash.init(s)
	return h, nil
}

// inodeOf is what the log calls a node.
func inodeOf(n *Node) crash.Inode { return crash.Inode(n.id) }

// lock locks the changes of a file's bytes.
func (h *history) lock(n *Node) *sync.Mutex {
	mu := &h.files[uint64(n.id)%uint64(len(h.files))]
	mu.Lock()
	return mu
}

// handle is [Session.handle] for a mount with a history.
func (h *history) handle(w *wire.Worker, request fuse.Request) error {
	if r, ok := request.(*fuse.FsyncRequest); ok {
		// A real kernel could have written the stores by now.
		h.handOver(w, r.Node)
	}
	h.gate.RLock()
	defer h.gate.RUnlock()
	if h.lost(request) {
		return syscall.EIO
	}
	if changes(request) {
		// Of another filesystem, mounted in the backing directory, nothing could be put aside.
		if n := h.s.nodes.get(request.Hdr().Node); n != nil && n.key.Dev != h.s.devices.root {
			return syscall.EROFS
		}
	}
	return h.s.handle(w, request)
}

// changes reports whether a request changes a name or an attribute, or opens a file for
// changes of its bytes.
func changes(request fuse.Request) bool {
	switch r := request.(type) {
	case *fuse.OpenRequest:
		return !r.Dir && wantOf(r.Flags) == accessWrite
	case *fuse.CreateRequest, *fuse.MkdirRequest, *fuse.MknodRequest, *fuse.SymlinkRequest, *fuse.LinkRequest,
		*fuse.RemoveRequest, *fuse.RenameRequest, *wire.Rename2Request, *fuse.SetattrRequest, *fuse.SetxattrRequest, *fuse.RemovexattrRequest:
		return true
	}
	return false
}

// lost reports whether a request is about something that was opened before the power
// failed.
func (h *history) lost(request fuse.Request) bool {
	var id fuse.HandleID
	switch r := request.(type) {
	case *fuse.ReadRequest:
		id = r.Handle
	case *fuse.WriteRequest:
		id = r.Handle
	case *fuse.FsyncRequest:
		id = r.Handle
	case *fuse.FAllocateRequest:
		id = r.Handle
	case *wire.ReaddirplusRequest:
		id = r.Handle
	case *wire.LseekRequest:
		id = r.Handle
	case *wire.IoctlRequest:
		id = r.Handle
	case *fuse.GetattrRequest, *fuse.SetattrRequest:
		// fstat(2) and fchmod(2) do not always send the handle.
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.lostOpen[r.Hdr().Node]
	case *fuse.ForgetRequest:
		h.forgetLost(r.Node)
		return false
	case *fuse.BatchForgetRequest:
		for _, f := range r.Forget {
			h.forgetLost(f.NodeID)
		}
		return false
	default:
		return false
	}
	open := h.s.handles.get(id)
	return open != nil && open.lost
}

// forgetLost is told that the kernel forgets a node, perhaps not for the last time: one
// that was lost is not looked up again.
func (h *history) forgetLost(id fuse.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lostOpen, id)
}

// handOver has the kernel send the stores that clients made through mappings of other
// files than the given node. The gate must not be held. A signal to the client ends the
// wait, and is no reason to fail: a program does not expect that of fsync(2).
func (h *history) handOver(w *wire.Worker, but fuse.NodeID) {
	h.mu.Lock()
	var nodes []fuse.NodeID
	for id := range h.writers {
		if id != but {
			nodes = append(nodes, id)
		}
	}
	h.mu.Unlock()
	if len(nodes) > 0 {
		_ = w.Wait(h.s.conn.HandOver(nodes, nil))
	}
}

// opened and closed count the handles of a file through which it can be mapped for stores.
func (h *history) opened(n *Node, flags int) {
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writers[n.id]++
}

func (h *history) closed(n *Node, flags int) {
	h.log.Closed(inodeOf(n))
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.writers[n.id]--; h.writers[n.id] == 0 {
		delete(h.writers, n.id)
	}
}

// track keeps nodes known as long as the log needs their inodes.
func (h *history) track(nodes ...*Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nodes {
		if n != nil && n.id != fuse.RootID && h.tracked[inodeOf(n)] == nil {
			h.s.nodes.hold(n)
			h.tracked[inodeOf(n)] = n
		}
	}
}

// node returns the node of an inode that the log needs.
func (h *history) node(i crash.Inode) *Node {
	if i == crash.Inode(fuse.RootID) {
		return h.s.Root()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tracked[i]
}

// settle gives up what is kept for inodes that the log may need no more. names must be
// held.
func (h *history) settle(inodes []crash.Inode) {
	for _, i := range inodes {
		n := h.node(i)
		if n == nil || n.id == fuse.RootID {
			continue
		}
		if h.log.References(i).Names == 0 && h.stash.has(n) && h.stash.release(n) {
			h.log.Forget(i) // it is in no crash state any more
		}
		if h.untrack(i) {
			h.s.forget(n.id, 1)
		}
	}
}

// untrack ends what track began, unless the log needs the inode, and reports whether it
// did. An operation is in the log before its inodes are tracked, and this looks and acts
// under the lock of that: so none is in the log whose inode is not tracked in the end.
func (h *history) untrack(i crash.Inode) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tracked[i] == nil || h.log.References(i).All > 0 {
		return false
	}
	delete(h.tracked, i)
	return true
}

// add notes an operation that was just done.
func (h *history) add(op *crash.Op, nodes ...*Node) {
	h.introduce(op, nodes)
	h.log.Add(op)
	h.track(nodes...)
}

// addBytes is add of a change of a file's bytes, which holds no lock that keeps the file
// from being removed for good meanwhile.
func (h *history) addBytes(op *crash.Op, n *Node) {
	op.Inode = inodeOf(n)
	h.add(op, n)
	if n.isRemoved() {
		h.log.Forget(op.Inode)
		h.names.Lock()
		defer h.names.Unlock()
		h.settle([]crash.Inode{op.Inode})
	}
}

// sync runs fsync(2) of an open file or directory and notes what it has made durable.
func (h *history) sync(open *handle, dataOnly bool) error {
	if h == nil {
		return open.fsync(dataOnly)
	}
	if open.dir != nil {
		// No name may change between the call and the note.
		h.names.Lock()
		defer h.names.Unlock()
		err := open.fsync(dataOnly)
		if err == nil {
			h.syncedLocked(open.node, dataOnly)
		}
		return err
	}
	defer h.lock(open.node).Unlock()
	err := open.fsync(dataOnly)
	if err == nil {
		h.synced(open.node, dataOnly)
	}
	return err
}

// synced notes that a file's bytes are durable. The file's lock must be held.
func (h *history) synced(n *Node, dataOnly bool) {
	h.names.Lock()
	defer h.names.Unlock()
	h.syncedLocked(n, dataOnly)
	h.s.durableChanged(n)
}

// syncedLocked notes a sync. names must be held.
func (h *history) syncedLocked(n *Node, dataOnly bool) {
	h.settle(h.log.Sync(crash.Sync{Inode: inodeOf(n), IsDir: n.kind == unix.S_IFDIR, DataOnly: dataOnly}))
}

// syncAll makes everything durable.
func (h *history) syncAll() error {
	h.gate.Lock()
	defer h.gate.Unlock()
	h.names.Lock()
	defer h.names.Unlock()
	h.mu.Lock()
	nodes := make([]*Node, 0, len(h.tracked))
	for _, n := range h.tracked {
		nodes = append(nodes, n)
	}
	h.mu.Unlock()
	var errs []error
	for _, n := range nodes {
		if n.kind != modeRegular {
			continue
		}
		errs = append(errs, h.syncParked(n))
	}
	errs = append(errs, h.s.syncEverything())
	if err := errors.Join(errs...); err != nil {
		return err // and all of it stays pending, for who knows what is durable
	}
	h.log.Reset()
	var inodes []crash.Inode
	for _, n := range nodes {
		inodes = append(inodes, inodeOf(n))
		h.s.durableChanged(n)
	}
	h.settle(inodes)
	return nil
}

// syncParked writes a file back that may be parked.
func (h *history) syncParked(n *Node) error {
	if h.s.files.Has(n.key) || h.s.files.Parked() == 0 {
		return nil // the table writes back all that it has open
	}
	f, err := h.s.acquire(n, accessWrite)
	if err != nil {
		return err
	}
	defer f.Release(true)
	seen := f.Failures()
	return f.Sync(&seen, false)
}

// ended is told that no client is left: what the end of the mount makes durable is no part
// of the recording.
func (h *history) ended() {
	if err := h.log.EndRecording(); err != nil {
		h.s.log.Error("the recording of the history is not complete", "error", err)
	}
}

// close ends the history: what was removed is removed.
func (h *history) close() {
	h.stash.clear()
	h.ended()
	h.log.Close()
}

// changeBytes runs a change of a file's size, or one that makes length bytes at off zero,
// and notes it in the log if it has any effect.
func (h *history) changeBytes(n *Node, f *mapping.File, kind crash.Kind, off, length int64, pid uint32, change func() error) error {
	if h == nil || n.isRemoved() {
		return change()
	}
	defer h.lock(n).Unlock()
	op := &crash.Op{Kind: kind, Off: off, PID: pid, OldSize: f.Size()}
	op.Length = max(min(length, op.OldSize-off), 0)
	if err := change(); err != nil {
		return err
	}
	op.Size = f.Size()
	if op.Size == op.OldSize && (op.Kind == crash.Truncate || op.Length == 0) {
		return nil
	}
	op.Path = h.called(n, f)
	h.addBytes(op, n)
	return nil
}

// called is what to call a file: its path now, or the last one it had.
func (h *history) called(n *Node, f *mapping.File) string {
	if name := f.Name(); name != "" {
		return name
	}
	return h.s.Path(n)
}

// write stores the bytes of a write and notes them in the log.
func (h *history) write(open *handle, r *fuse.WriteRequest) (int, error) {
	n := open.node
	if n.isRemoved() {
		_, count, err := h.s.store(open, r)
		return count, err
	}
	defer h.lock(n).Unlock()
	kept, err := h.log.Keep(r.Data)
	if err != nil {
		return 0, err
	}
	op := &crash.Op{Kind: crash.Write, PID: r.Pid, OldSize: open.file.Size(), Bytes: kept}
	if r.Flags&fuse.WriteCache != 0 {
		op.Kind, op.PID = crash.Store, 0 // the kernel does not tell whose store it is
	}
	at, count, err := h.s.store(open, r)
	if err != nil || count == 0 {
		h.log.GiveUp(&op.Bytes)
		return count, err
	}
	op.Off, op.Length, op.Size = at, int64(count), open.file.Size()
	op.Path = h.called(n, open.file)
	h.addBytes(op, n)
	return count, nil
}

// allocate runs a fallocate(2) and notes it in the log.
func (h *history) allocate(open *handle, r *fuse.FAllocateRequest, allocate func() error) error {
	off, length := int64(r.Offset), int64(0)
	if r.Mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		length = int64(r.Length)
	}
	return h.changeBytes(open.node, open.file, crash.Fallocate, off, length, r.Pid, allocate)
}

// pagesEnd returns where the pages end that length bytes from off touch; a length of 0
// means to the end of the file.
func pagesEnd(off, length int64) int64 {
	if length == 0 {
		return math.MaxInt64
	}
	end, ok := paging.PageUp(off + length)
	if !ok {
		return math.MaxInt64
	}
	return end
}
