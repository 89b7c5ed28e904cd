package fs

import (
	"container/list"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// Node is one inode of the backing directory that the kernel knows by a number.
// Hard links share it, and a rename keeps it.
type Node struct {
	id  fuse.NodeID
	key mapping.ID

	// lookups counts the replies that named the node, less what was forgotten.
	// It is guarded by the table.
	lookups uint64

	kind uint32 // S_IFMT of the mode
	// known holds what is known of the inode and need not be asked again.
	known atomic.Uint32

	mu sync.Mutex
	// newest is the name the node was seen under last. It may be wrong by now:
	// what is found under it has to be checked.
	newest link
	// rare is what most nodes never need: a walk over a million files leaves a
	// million nodes behind.
	rare *rareState
}

// rareState is what a node has beside the rest when it was opened, or has several
// names, or none. The node's mu guards it.
type rareState struct {
	// older are the other names, the newest last.
	older []link
	// file is the open file while handles of it exist.
	file    *mapping.File
	handles int
	// writers is how many of the handles clients can have stored through to pages that
	// the kernel keeps.
	writers int
	// as is how they are open, with the option passthrough, and userWriters how many of
	// them users other than the daemon's can write through.
	as          int32
	userWriters int
	// removed says that the last name was removed through the mount. last is then an
	// O_PATH descriptor of the inode while nobody has it open, or -1. The kernel may
	// be on its way to open it, and a file that was there when it was looked up can be
	// opened (rename(2)). The table bounds how many there are.
	removed bool
	last    int
	// cached is how the inode looked when the kernel's cache of its bytes was
	// last known to be right.
	cached cacheStamp
}

// rareLocked returns n's rareState, made if need be. n.mu must be held.
func (n *Node) rareLocked() *rareState {
	if n.rare == nil {
		n.rare = &rareState{last: -1}
	}
	return n.rare
}

// What node.known can hold.
const (
	// noCapabilities and noSetID: the inode has none of what makes a program
	// privileged. They are looked for again after whatever could bring them back.
	noCapabilities uint32 = 1 << iota
	noSetID
	// program: somebody could run the file when its name was looked up last.
	program
	// guarded: the inode was made immutable, or to be appended to alone, through the
	// mount.
	guarded
)

// knows notes whether the given facts are so.
func (n *Node) knows(facts uint32, so bool) {
	switch {
	case !so:
		if n.known.Load()&facts != 0 {
			n.known.And(^facts)
		}
	case n.known.Load()&facts != facts:
		n.known.Or(facts)
	}
}

// link is a name in a directory. The directory is named by number: a number is
// never used again, so a link into a forgotten directory leads nowhere.
type link struct {
	dir  fuse.NodeID
	name string
}

// addLink makes l the newest of n's names. n.mu must not be held.
func (n *Node) addLink(l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest == l {
		return
	}
	if n.rare != nil {
		n.rare.drop(l)
	}
	if n.newest != (link{}) {
		rare := n.rareLocked()
		rare.older = append(rare.older, n.newest)
	}
	l.name = strings.Clone(l.name) // a request's name is lent
	if n.rare != nil {
		n.rare.removed = false // a file that was made without a name has got one
	}
	n.newest = l
}

// dropLink forgets one of n's names.
func (n *Node) dropLink(l link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.newest != l {
		if n.rare != nil {
			n.rare.drop(l)
		}
		return
	}
	n.newest = link{}
	if n.rare != nil && len(n.rare.older) > 0 {
		k := len(n.rare.older) - 1
		n.newest = n.rare.older[k]
		n.rare.older = n.rare.older[:k]
	}
}

// drop forgets one of the older names.
func (r *rareState) drop(l link) {
	r.older = slices.DeleteFunc(r.older, func(have link) bool { return have == l })
}

// linkAt returns the i-th newest name of n.
func (n *Node) linkAt(i int) (link, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i == 0 {
		return n.newest, n.newest != link{}
	}
	if n.rare == nil || i > len(n.rare.older) {
		return link{}, false
	}
	return n.rare.older[len(n.rare.older)-i], true
}

// keep holds on to an inode without a name by its O_PATH descriptor, which n takes
// over, and reports whether it is needed: not while the file is open.
func (n *Node) keep(fd int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rareLocked()
	rare.removed = true
	if rare.last >= 0 || rare.handles > 0 {
		unix.Close(fd)
		return false
	}
	rare.last = fd
	return true
}

// withLast calls fn with a copy of the descriptor that keep was given, or returns
// ESTALE. A copy, because fn may wait and may ask for n's names, and so must not
// hold n.mu.
func (n *Node) withLast(fn func(fd int) error) error {
	fd, err := n.copyLast()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fn(fd)
}

func (n *Node) copyLast() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare == nil || n.rare.last < 0 {
		return -1, syscall.ESTALE
	}
	fd, err := unix.FcntlInt(uintptr(n.rare.last), unix.F_DUPFD_CLOEXEC, 0)
	return fd, os.NewSyscallError("fcntl", err)
}

// forgotten closes what n holds after the kernel has forgotten it, and reports whether
// that was an inode without a name.
func (n *Node) forgotten() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare == nil || n.rare.last < 0 {
		return false
	}
	unix.Close(n.rare.last)
	n.rare.last = -1
	return true
}

// openFile returns the file if n is open.
func (n *Node) openFile() *mapping.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare == nil {
		return nil
	}
	return n.rare.file
}

// is reports whether stat(2) spoke of the inode that n stands for.
func (n *Node) is(st *unix.Stat_t) bool {
	return mapping.IDOf(st) == n.key && st.Mode&unix.S_IFMT == n.kind
}

// nodeTable holds the nodes the kernel knows.
type nodeTable struct {
	mu    sync.Mutex
	byID  map[fuse.NodeID]*Node
	byKey map[mapping.ID]*Node
	next  fuse.NodeID

	// removed are the nodes that hold on to an inode without a name, the longest
	// first. More than maxRemoved are not held: who has kept an inode without opening
	// it (open(2): O_PATH), or is in a directory, that long after its removal finds it
	// stale.
	removed    list.List
	removedAt  map[fuse.NodeID]*list.Element
	maxRemoved int
}

// init makes the table with the root in it.
func (t *nodeTable) init(root *unix.Stat_t) *Node {
	n := &Node{id: fuse.RootID, key: mapping.IDOf(root), kind: unix.S_IFDIR, lookups: 1}
	t.byID = map[fuse.NodeID]*Node{n.id: n}
	t.byKey = map[mapping.ID]*Node{n.key: n}
	t.removedAt = make(map[fuse.NodeID]*list.Element)
	t.next = n.id + 1
	return n
}

// get returns the node with the given number, or nil.
func (t *nodeTable) get(id fuse.NodeID) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// find returns the node of the given inode, or nil.
func (t *nodeTable) find(key mapping.ID) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[key]
}

// look returns the node of the inode that stat(2) spoke of, found under l, and
// counts a lookup: before the reply is sent, because the kernel can forget the
// node before a count after it.
func (t *nodeTable) look(st *unix.Stat_t, l link) *Node {
	key := mapping.IDOf(st)
	t.mu.Lock()
	n := t.byKey[key]
	if n == nil || n.kind != st.Mode&unix.S_IFMT {
		// An inode that changed its kind is another file with a number that
		// was free again. The node of the old one is found by its number only.
		n = &Node{id: t.next, key: key, kind: st.Mode & unix.S_IFMT}
		t.next++
		t.byID[n.id] = n
		t.byKey[key] = n
	}
	n.lookups++
	t.mu.Unlock()
	n.knows(program, st.Mode&0o111 != 0)
	if n.id != fuse.RootID {
		n.addLink(l)
	}
	return n
}

// lookNameless returns a new node for a file that was just made without a name, and
// counts a lookup.
func (t *nodeTable) lookNameless(st *unix.Stat_t) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &Node{id: t.next, key: mapping.IDOf(st), kind: modeRegular, lookups: 1, rare: &rareState{last: -1, removed: true}}
	t.next++
	t.byID[n.id] = n
	t.byKey[n.key] = n
	return n
}

// hold counts a lookup of a node that is known.
func (t *nodeTable) hold(n *Node) {
	t.mu.Lock()
	n.lookups++
	t.mu.Unlock()
}

// len returns the number of nodes.
func (t *nodeTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.byID)
}

// forget takes count lookups of a node back and returns the node if the kernel
// knows it no longer.
func (t *nodeTable) forget(id fuse.NodeID, count uint64) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n.id == fuse.RootID {
		return nil
	}
	n.lookups -= min(count, n.lookups)
	if n.lookups > 0 {
		return nil
	}
	delete(t.byID, n.id)
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	if at := t.removedAt[n.id]; at != nil {
		t.removed.Remove(at)
		delete(t.removedAt, n.id)
	}
	return n
}

// holding returns how many nodes hold on to an inode without a name.
func (t *nodeTable) holding() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.removed.Len()
}

// close closes what the nodes hold that the kernel did not forget one by one: an
// unmount forgets all at once.
func (t *nodeTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		n.forgotten()
	}
}

// detach ends the inode's claim to its node and keeps fd, an O_PATH descriptor of
// it, in the node: the inode's last name is gone, so its number may soon belong
// to another file.
func (t *nodeTable) detach(key mapping.ID, fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[key]
	if n == nil {
		unix.Close(fd)
		return
	}
	delete(t.byKey, key)
	if n.keep(fd) { // under the table's lock: a forget comes after this
		t.keptLocked(n)
	}
}

// kept notes that n, which has just lost its last handle, holds on to its inode.
func (t *nodeTable) kept(n *Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[n.id] != n {
		n.forgotten() // meanwhile
		return
	}
	t.keptLocked(n)
}

// keptLocked notes that n holds on to an inode without a name. t.mu must be held.
func (t *nodeTable) keptLocked(n *Node) {
	t.removedAt[n.id] = t.removed.PushBack(n)
	if t.removed.Len() > t.maxRemoved {
		oldest := t.removed.Remove(t.removed.Front()).(*Node)
		delete(t.removedAt, oldest.id)
		oldest.forgotten()
		if t.byKey[oldest.key] == oldest {
			delete(t.byKey, oldest.key) // its number may soon be another file's
		}
	}
}
