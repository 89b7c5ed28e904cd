package fs

import (
	"bazil.org/fuse"

	"mapfs/fs/wire"
)

// SubtreeNode marks the numbers of a subtree's nodes, so that a request is known to be
// for the subtree before any table is asked.
const SubtreeNode fuse.NodeID = 1 << 62

// Subtree answers for an entry of the mount's root that mirrors nothing, and for all
// that is below it. The numbers of its nodes have the bit [SubtreeNode]. All its methods
// may be called from many goroutines at a time.
type Subtree interface {
	// Name is what the entry is called; "" if it is not to be seen.
	Name() string
	// Attach is called once, before the mount is made, with a descriptor of the backing
	// directory. An error prevents the mount. Close is called when the mount has ended,
	// or was never made.
	Attach(s *Session, backing int) error
	Close()

	// Lookup answers what Name is.
	Lookup(w *wire.Worker) error
	// Handle answers a request for one of the subtree's nodes, as [wire.Handler] says.
	Handle(w *wire.Worker, request fuse.Request) error
	// Forget takes count lookups of one of its nodes back.
	Forget(id fuse.NodeID, count uint64)

	// DurableChanged is told that more of a file's bytes are durable now, and PowerFailed
	// that the power has failed: no node that it knows, but the root, is of any use.
	DurableChanged(n *Node)
	PowerFailed()

	// XattrPrefix begins the names of the extended attributes that the subtree has for
	// nodes of the mirror. Xattr returns the value of one, or ENODATA, and XattrNames
	// those that a list of n's attributes shows, each with a NUL at its end.
	XattrPrefix() string
	Xattr(n *Node, name string) (string, error)
	XattrNames(n *Node) string

	// Descriptors returns how many descriptors of files the subtree holds beside those
	// of its handles. It asks [Session.AdmitDescriptor] before it takes one.
	Descriptors() int64
}

// SubtreeHandle is an open file or directory of the subtree.
type SubtreeHandle interface{ Close() }
