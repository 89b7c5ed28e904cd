package control

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mapfs/fs"
	"mapfs/fs/wire"
	"mapfs/mapping/explicit"
	"mapfs/mapping/pagestate"
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
	metrics  *prometheus.Registry

	// changed has the kernel drop what it has cached of a file: the session's Changed.
	changed func(*fs.Node)

	events *eventLog
	verbs  []verb
	texts  *share.Pool // bytes of texts that are open
	nodes  nodes
}

// Name is [fs.Subtree]'s.
func (t *Tree) Name() string { return t.name }

// call is a request that reads or writes an open file of the tree.
type call struct {
	t *Tree
	w *wire.Worker
	// nonblock says that a read must not wait.
	nonblock bool
}
