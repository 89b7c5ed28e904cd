// Package crash knows which directory trees a power cut may leave.
//
// A [Log] is told of every operation on a tree, in order, and of every sync. From that it
// knows which operations are durable: they would be there after a power cut now. The
// others are pending: a power cut may take them, or not. A [Model] says which of the
// pending ones can survive without which others, and [Log.Cut] makes one of the legal
// outcomes, a [State].
//
// The package knows nothing of how the tree is stored or served. Files and directories
// are numbers; the bytes that were written are kept here until they are durable.
package crash

import (
	"fmt"
	"strings"

	"mapfs/internal/quote"
)

// Inode is the number of a file or directory, of the caller's choosing. 0 is none.
type Inode uint64

// Entry is a name in a directory.
type Entry struct {
	Dir  Inode
	Name string
}

// Kind is what an operation is.
type Kind uint8

// The kinds of operations.
const (
	Create Kind = iota
	Mkdir
	Mknod
	Symlink
	Link
	Unlink
	Rmdir
	Rename
	Write
	Store // bytes that were stored into memory that shows the file: mmap(2)
	Truncate
	Fallocate
	Setxattr
	Removexattr
	Chmod
	Chown
)

// String returns the kind's name: that of the system call.
func (k Kind) String() string {
	return [...]string{
		"create", "mkdir", "mknod", "symlink", "link", "unlink", "rmdir", "rename", "write", "store", "truncate", "fallocate",
		"setxattr", "removexattr", "chmod", "chown",
	}[k]
}

// isName reports whether operations of the kind change names, isData whether they change
// a file's bytes or size. The others change attributes.
func (k Kind) isName() bool { return k <= Rename }
func (k Kind) isData() bool { return k >= Write && k <= Fallocate }

// Op is one operation. Which fields mean something is up to the kind.
type Op struct {
	Kind Kind `json:"kind"`
	// Inode is what was made, named, removed, moved or changed. IsDir says that it is a
	// directory.
	Inode Inode `json:"inode"`
	IsDir bool  `json:"isDir,omitzero"`
	// Made is what a new inode is, and nil of one that was there. Only recordings need it.
	Made *Made `json:"made,omitzero"`

	// Entry is the name that was made or removed; of a rename the old one, and To the new
	// one, which replaced another inode unless Replaced is 0.
	Entry       Entry `json:"entry,omitzero"`
	To          Entry `json:"to,omitzero"`
	Replaced    Inode `json:"replaced,omitzero"`
	ReplacedDir bool  `json:"replacedDir,omitzero"`
	// Above are the directories from that of To up to the root, of a rename of a
	// directory into another one.
	Above []Inode `json:"above,omitzero"`

	// Off and Length are the bytes that were written or made zero; Length is 0 for none.
	// OldSize and Size are the file's size before and after.
	Off     int64 `json:"off,omitzero"`
	Length  int64 `json:"length,omitzero"`
	OldSize int64 `json:"oldSize,omitzero"`
	Size    int64 `json:"size,omitzero"`
	// Bytes are those of a Write or Store, from [Log.Keep].
	Bytes Bytes `json:"-"`

	// Attr names the attribute that was changed, from Old to New; nil is none.
	Attr string `json:"attr,omitzero"`
	Old  []byte `json:"old,omitzero"`
	New  []byte `json:"new,omitzero"`

	// Path is what was changed, ToPath the new name of a rename, DirPath and ToDirPath
	// the directories that hold the names, all as they were called at the time.
	Path      string `json:"path,omitzero"`
	ToPath    string `json:"toPath,omitzero"`
	DirPath   string `json:"dirPath,omitzero"`
	ToDirPath string `json:"toDirPath,omitzero"`
	// PID is the process that did it; 0 if that is not known.
	PID uint32 `json:"pid,omitzero"`

	// Number counts the operations of a log, from 1. The log sets it, and the rest.
	Number uint64 `json:"number"`

	// durable: a sync has promised it. It is then in the log only if it changes bytes
	// that no sync of the file itself has taken over yet.
	durable bool
	// waits and waitsTo say that a sync of the directory of Entry, or of To, is missing.
	waits, waitsTo bool
	// flushes are the changes of bytes that the operation sends on their way, and without
	// which it does not survive. placed: the blocks that the file gets longer by have their
	// place. See the ext4 model, too.
	flushes []*Op
	placed  bool
	// closed: somebody has closed the file since.
	closed bool
	// flushed is the place in the order of names at which the bytes were sent on their
	// way, 0 if they were not; see the ext4 model.
	flushed uint64
	// early is the size, over OldSize, that survives in the order of names and without the
	// bytes; 0 if there is none. sized: it is durable. See the ext4 model.
	early int64
	sized bool
	// abandoned: no sync will write the bytes. settled are those that are out of the log's
	// hands; see settled.go.
	abandoned bool
	settled   []span

	before, after *Op  // in the log
	gone          bool // from it
}

// Made is what a new inode is: its type and permissions, owner and group (inode(7)), the
// number of a device, the target of a symbolic link.
type Made struct {
	Mode   uint32 `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Device uint64 `json:"device,omitzero"`
	Target []byte `json:"target,omitzero"`
}

// EachName calls set for the entries that an operation on names changes, in order, with what
// is there after it, 0 for nothing.
func (op *Op) EachName(set func(e Entry, to Inode)) {
	switch {
	case !op.Kind.isName():
	case op.Kind == Unlink || op.Kind == Rmdir:
		set(op.Entry, 0)
	case op.Kind == Rename:
		set(op.Entry, 0)
		set(op.To, op.Inode)
	default:
		set(op.Entry, op.Inode)
	}
}

// extends reports whether a data operation makes its file longer, and extendsWithBytes
// whether by more than a size that survives without them.
func (op *Op) extends() bool          { return op.Size > op.OldSize }
func (op *Op) extendsWithBytes() bool { return op.Size > max(op.OldSize, op.early) }

// allocates reports whether a change of bytes makes its file longer by blocks that get
// their place later.
func (op *Op) allocates() bool {
	return op.Kind != Truncate && op.extendsWithBytes() && !op.onlyGrows()
}

// onlyGrows reports whether a fallocate(2) does nothing but make the file longer.
func (op *Op) onlyGrows() bool { return op.Kind == Fallocate && op.Length == 0 }

// replaces reports whether a rename took the place of another file.
func (op *Op) replaces() bool { return op.Kind == Rename && op.Replaced != 0 }

// end returns how long a change of bytes leaves its file at least.
func (op *Op) end() int64 {
	switch {
	case op.Kind != Fallocate:
		return op.Off + op.Length
	case op.extends():
		return op.Size
	}
	return 0 // zeros are only where the file has something
}

// String says what an operation is: its kind, path, and what it did.
func (op *Op) String() string {
	b := op.Kind.String() + " " + quote.Path(op.Path)
	switch op.Kind {
	case Rename:
		b += " " + quote.Path(op.ToPath)
	case Write, Store, Fallocate:
		off, length := op.Left()
		if op.Kind == Fallocate && length == 0 {
			off, length = op.OldSize, op.Size-op.OldSize
		}
		b += fmt.Sprintf(" %d %d", off, length)
	case Truncate:
		b += fmt.Sprintf(" from=%d to=%d", op.OldSize, op.Size)
	case Setxattr, Removexattr:
		b += " " + quote.Path(strings.TrimPrefix(op.Attr, AttrXattr))
	case Chmod:
		mode, _, _ := ParseMode(op.New)
		b += fmt.Sprintf(" %04o", mode&0o7777)
	case Chown:
		_, uid, gid := ParseMode(op.New)
		b += fmt.Sprintf(" %d %d", uid, gid)
	}
	return b
}
