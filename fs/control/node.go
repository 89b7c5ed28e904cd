package control

import (
	"slices"
	"sync"

	"bazil.org/fuse"

	"mapfs/fs"
	"mapfs/mapping/explicit"
)

// key is what a node of the control tree is about: its row in the table, the directory
// or file of the mount for those below files, and the explicit mapping for those
// below mappings.
type key struct {
	entry    *entry
	target   *fs.Node
	explicit *explicit.Mapping
}

// node is a node of the control tree. While it lives it keeps its target
// known, as a lookup by the kernel would.
type node struct {
	key
	id      fuse.NodeID
	lookups uint64 // guarded by nodes
}

// nodes are the nodes of the control tree that the kernel knows.
type nodes struct {
	// table is the table of entries, root, mirror, file and mapping its rows for
	// directories whose names are up to others. None of them changes.
	table                                             []*entry
	root, mirror, file, mapping, durable, durableFile *entry

	mu    sync.Mutex
	byID  map[fuse.NodeID]*node
	byKey map[key]*node
	next  fuse.NodeID
}

// init makes the table, and a tree that nobody has looked at.
func (t *nodes) init(table []*entry) {
	t.table = table
	t.root, t.file = t.find(nowhere, string(rootDir)), t.find(mirrorDir, string(fileDir))
	t.durable, t.durableFile = t.find(durableDir, string(durableDir)), t.find(durableDir, string(durableFile))
	t.mirror, t.mapping = t.find(mirrorDir, string(mirrorDir)), t.find(mappingsDir, string(mappingDir))
	t.byID = make(map[fuse.NodeID]*node)
	t.byKey = make(map[key]*node)
	t.next = fs.SubtreeNode
}

// find returns the row of a name in a directory, or nil.
func (t *nodes) find(in dir, name string) *entry {
	at := slices.IndexFunc(t.table, func(e *entry) bool { return e.dir == in && e.name == name })
	if at < 0 {
		return nil
	}
	return t.table[at]
}

// list returns the rows of a directory.
func (t *nodes) list(in dir) (rows []*entry) {
	for _, e := range t.table {
		if e.dir == in {
			rows = append(rows, e)
		}
	}
	return rows
}

// get returns the node with the given number, or nil.
func (t *nodes) get(id fuse.NodeID) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// look returns the node for key and counts a lookup. Of a target the tree keeps
// one lookup for each node; held says that the caller has counted one, which
// this takes over or gives back.
func (t *nodes) look(tree *Tree, key key, held bool) *node {
	t.mu.Lock()
	n := t.byKey[key]
	fresh := n == nil
	if fresh {
		n = &node{key: key, id: t.next}
		t.next++
		t.byKey[key] = n
		t.byID[n.id] = n
	}
	n.lookups++
	t.mu.Unlock()
	switch {
	case fresh && !held && key.target != nil:
		tree.s.Hold(key.target)
	case !fresh && held:
		tree.s.Forget(key.target)
	}
	return n
}

// known returns the node for key, or nil.
func (t *nodes) known(key key) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[key]
}

// forget takes count lookups of a node back.
func (t *nodes) forget(tree *Tree, id fuse.NodeID, count uint64) {
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
		delete(t.byKey, n.key)
	}
	t.mu.Unlock()
	if gone && n.target != nil {
		tree.s.Forget(n.target)
	}
}

// inode returns the number to show for a node: that of its target, moved to
// where no filesystem's own numbers are.
func (t *Tree) inode(k key) uint64 {
	ino := uint64(1)<<63 | k.entry.number<<56
	if k.target != nil {
		ino |= t.s.Inode(k.target.ID()) & (1<<56 - 1)
	}
	if k.explicit != nil {
		ino |= k.explicit.Serial() & (1<<56 - 1)
	}
	return ino
}
