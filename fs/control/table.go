package control

import (
	"strings"

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
	mappingsDir dir = "/mappings"
	mappingDir  dir = "/mappings/NAME"
)

// The types and permissions in the table.
const (
	readable  = unix.S_IFREG | 0o444
	ownersRW  = unix.S_IFREG | 0o600
	directory = unix.S_IFDIR | 0o555
	removable = unix.S_IFDIR | 0o755 // its owner may remove entries
)

// entries returns the table.
func entries() []*entry {
	table := []*entry{
		{dir: rootDir, name: "status", mode: readable, open: text((*Tree).writeStatus)},
		{dir: rootDir, name: "maps", mode: readable, open: text((*Tree).writeMaps)},
		{dir: rootDir, name: "events", mode: readable, open: openEvents, size: eventsSize, may: isOwner},
		{dir: rootDir, name: "metrics", mode: readable, open: text((*Tree).writeMetrics)},
		{dir: rootDir, name: "ctl", mode: ownersRW, open: openCtl},
		{dir: rootDir, name: "files", mode: directory},
		{dir: rootDir, name: "mappings", mode: removable, open: openMappings},

		{dir: fileDir, name: "status", mode: readable, open: text((*Tree).writeFileStatus)},
		{dir: fileDir, name: "pages", mode: readable, open: openPages[pagesText]},
		{dir: fileDir, name: "map", mode: readable, open: openPages[mapText]},
		{dir: fileDir, name: "memory", mode: ownersRW, open: openMemory, size: memorySize},
		{dir: fileDir, name: "backing", mode: readable, open: openBacking, size: (*Tree).backingSize},
		{dir: fileDir, name: "unsynced", mode: readable, open: text((*Tree).writeUnsynced)},
		{dir: fileDir, name: "ctl", mode: ownersRW, open: openCtl},

		{dir: mappingDir, name: "status", mode: readable, open: text((*Tree).writeMappingStatus), may: maySee},
		{dir: mappingDir, name: "pages", mode: readable, open: openPages[pagesText], may: maySee},
		{dir: mappingDir, name: "map", mode: readable, open: openPages[mapText], may: maySee},
		{dir: mappingDir, name: "memory", mode: ownersRW, open: openMappingMemory, size: mappingSize, may: isOwner},
		{dir: mappingDir, name: "ctl", mode: ownersRW, open: openCtl, may: isOwner},

		// The directories whose names are up to others.
		{dir: nowhere, name: string(rootDir), mode: directory, open: openDir},
		{dir: mirrorDir, name: string(mirrorDir), mode: directory},
		{dir: mirrorDir, name: string(fileDir), mode: directory, open: openDir},
		{dir: mappingsDir, name: string(mappingDir), mode: directory, open: openDir, may: maySee},
	}
	for i, e := range table {
		e.number = uint64(i)
	}
	return table
}

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

// File is a file or directory of the control tree that has a fixed name.
type File struct {
	Dir, Name string // as mapfs-control(5) has them: "/files/PATH", "status"
	Mode      uint32 // type and permissions
}

// Files returns the table of the control tree.
func Files() []File {
	var files []File
	for _, e := range entries() {
		if !strings.HasPrefix(e.name, "/") {
			files = append(files, File{string(e.dir), e.name, e.mode})
		}
	}
	return files
}
