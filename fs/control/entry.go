package control

import (
	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// entry is a row of the table of what the control tree has: a file or a directory.
type entry struct {
	// dir is the directory it is in, name what it is called there.
	dir  dir
	name string
	// mode is its type and its permissions (inode(7)). Directories below files have
	// those of what they mirror.
	mode uint32
	// may reports whether a client may open it, beside what the mode says and that the
	// file it is about is readable for the client; nil asks no more.
	may func(t *Tree, n *node, client *fuse.Header) bool
	// open makes an open file or directory.
	open func(t *Tree, n *node, client *fuse.Header) handle
	// size is what stat(2) says of a file whose size is known without opening it.
	// fileSize is the size of the file in the mount that it is about.
	size func(t *Tree, n *node, fileSize int64) int64

	// history says that it is there only if the mount has a history. handOver has the
	// kernel hand over clients' stores before it is opened. cached lets the kernel keep
	// what is read, and so lets clients map it.
	history, handOver, cached bool

	// number is the place in the table. Inode numbers are made of it.
	number uint64
}

// dir is a kind of directory, called as the man page does.
type dir string

const (
	nowhere     dir = ""
	rootDir     dir = "/"
	mirrorDir   dir = "/files"
	fileDir     dir = "/files/PATH"
	durableDir  dir = "/durable"
	durableFile dir = "/durable/PATH"
	mappingsDir dir = "/mappings"
	mappingDir  dir = "/mappings/NAME"
)

// The types and permissions in the table.
const (
	readable    = unix.S_IFREG | 0o444
	ownersRW    = unix.S_IFREG | 0o600
	everybodyRW = unix.S_IFREG | 0o666
	directory   = unix.S_IFDIR | 0o555
	removable   = unix.S_IFDIR | 0o755 // its owner may remove entries
)

// isDir reports whether e is a directory.
func (e *entry) isDir() bool { return e.mode&unix.S_IFMT == unix.S_IFDIR }

// holds returns what kind of directory e is.
func (e *entry) holds() dir {
	switch {
	case !e.isDir():
		return nowhere
	case e.dir == rootDir:
		return rootDir + dir(e.name)
	}
	return dir(e.name)
}
