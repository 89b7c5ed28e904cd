package fs

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures of linux/fuse.h, protocol 7.33, that replies are made of. They
// are written here rather than by the library because its encoder leaves out the
// sticky bit, and because a reply then costs no allocation.

// outHeader is struct fuse_out_header.
type outHeader struct {
	Len    uint32 // of the whole message
	Error  int32  // a negated errno, or 0
	Unique uint64 // the request this answers
}

// attr is struct fuse_attr.
type attr struct {
	Ino, Size, Blocks               uint64
	Atime, Mtime, Ctime             uint64
	AtimeNsec, MtimeNsec, CtimeNsec uint32
	Mode, Nlink, UID, GID, Rdev     uint32
	Blksize, Flags                  uint32
}

// attrOut is struct fuse_attr_out.
type attrOut struct {
	AttrValid     uint64
	AttrValidNsec uint32
	_             uint32
	Attr          attr
}

// entryOut is struct fuse_entry_out.
type entryOut struct {
	Nodeid, Generation            uint64
	EntryValid, AttrValid         uint64
	EntryValidNsec, AttrValidNsec uint32
	Attr                          attr
}

// openOut is struct fuse_open_out.
type openOut struct {
	Fh        uint64
	OpenFlags uint32
	_         uint32
}

// createOut is what answers FUSE_CREATE: an entry and an open file.
type createOut struct {
	Entry entryOut
	Open  openOut
}

// writeOut is struct fuse_write_out.
type writeOut struct {
	Size uint32
	_    uint32
}

// xattrOut is struct fuse_getxattr_out: the size a value or a list would take.
type xattrOut struct {
	Size uint32
	_    uint32
}

// statfsOut is struct fuse_statfs_out.
type statfsOut struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, Namelen, Frsize              uint32
	_                                   uint32
	_                                   [6]uint32
}

// direntHeader is struct fuse_dirent without the name, which follows and is
// padded to a multiple of 8 bytes.
type direntHeader struct {
	Ino     uint64
	Off     uint64 // the cookie of the entry after this one
	Namelen uint32
	Type    uint32
}

// bytesOf returns the memory of a reply structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// setTimeout splits d into the seconds and nanoseconds of a reply.
func setTimeout(sec *uint64, nsec *uint32, d time.Duration) {
	*sec, *nsec = uint64(d/time.Second), uint32(d%time.Second)
}

// set fills a from what stat(2) said. ino is the number to show.
func (a *attr) set(st *unix.Stat_t, ino uint64) {
	*a = attr{
		Ino: ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: uint64(st.Atim.Sec), AtimeNsec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), MtimeNsec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), CtimeNsec: uint32(st.Ctim.Nsec),
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
	}
}
