package main

import (
	"strings"
	"sync"

	"bazil.org/fuse/fs"
)

// A tree holds the nodes that the kernel knows, by path, so that a rename can tell
// them where they are now.
type tree struct {
	backing string

	mu    sync.Mutex
	nodes map[string]*node
}

var _ fs.FS = (*tree)(nil)

func newTree(backing string) *tree {
	return &tree{backing: backing, nodes: make(map[string]*node)}
}

func (t *tree) Root() (fs.Node, error) { return t.node(t.backing), nil }

// node returns the node at path.
func (t *tree) node(path string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[path]
	if n == nil {
		n = &node{tree: t, path: path}
		t.nodes[path] = n
	}
	return n
}

func (t *tree) forget(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes[n.path] == n {
		delete(t.nodes, n.path)
	}
}

// rename moves the node at from, and those below it, to to.
func (t *tree) rename(from, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.nodes[from]; n != nil {
		t.moveLocked(n, to)
	}
	// A walk over every node: renames are rare in what is measured.
	for path, n := range t.nodes {
		if rest, below := strings.CutPrefix(path, from+"/"); below {
			t.moveLocked(n, to+"/"+rest)
		}
	}
}

func (t *tree) moveLocked(n *node, to string) {
	delete(t.nodes, n.path)
	n.path = to
	t.nodes[to] = n
}
