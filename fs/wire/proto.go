package wire

import (
	"iter"
	"time"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// The structures of linux/fuse.h, protocol 7.45, that replies are made of. They
// are written here rather than by the library because its encoder leaves out the
// sticky bit, and because a reply then costs no allocation.

// outHeader is struct fuse_out_header.
type outHeader struct {
	Len    uint32 // of the whole message
	Error  int32  // a negated errno, or 0
	Unique uint64 // the request this answers
}

// Attr is struct fuse_attr.
type Attr struct {
	Ino, Size, Blocks               uint64
	Atime, Mtime, Ctime             uint64
	AtimeNsec, MtimeNsec, CtimeNsec uint32
	Mode, Nlink, UID, GID, Rdev     uint32
	Blksize, Flags                  uint32
}

// AttrOut is struct fuse_attr_out.
type AttrOut struct {
	AttrValid     uint64
	AttrValidNsec uint32
	_             uint32
	Attr          Attr
}

// EntryOut is struct fuse_entry_out.
type EntryOut struct {
	Nodeid, Generation            uint64
	EntryValid, AttrValid         uint64
	EntryValidNsec, AttrValidNsec uint32
	Attr                          Attr
}

// OpenOut is struct fuse_open_out.
type OpenOut struct {
	Fh        uint64
	OpenFlags uint32
	BackingID int32 // with OpenPassthrough
}

// CreateOut is what answers FUSE_CREATE: an entry and an open file.
type CreateOut struct {
	Entry EntryOut
	Open  OpenOut
}

// WriteOut is struct fuse_write_out.
type WriteOut struct {
	Size uint32
	_    uint32
}

// XattrOut is struct fuse_getxattr_out: the size a value or a list would take.
type XattrOut struct {
	Size uint32
	_    uint32
}

// StatfsOut is struct fuse_statfs_out.
type StatfsOut struct {
	Blocks, Bfree, Bavail, Files, Ffree uint64
	Bsize, Namelen, Frsize              uint32
	_                                   uint32
	_                                   [6]uint32
}

// Dirent is struct fuse_dirent without the name, which follows and is
// padded to a multiple of 8 bytes.
type Dirent struct {
	Ino     uint64
	Off     uint64 // the cookie of the entry after this one
	Namelen uint32
	Type    uint32
}

// PollOut is struct fuse_poll_out.
type PollOut struct {
	Revents uint32
	_       uint32
}

// BytesOf returns the memory of a reply structure.
func BytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// DirentSize returns how many bytes an entry takes in a reply.
func DirentSize(name []byte) int {
	return int(unsafe.Sizeof(Dirent{})) + (len(name)+7)&^7
}

// AppendDirent appends struct fuse_dirent with a name, padded.
func AppendDirent(out []byte, header *Dirent, name []byte) []byte {
	end := len(out) + DirentSize(name)
	header.Namelen = uint32(len(name))
	out = append(append(out, BytesOf(header)...), name...)
	for len(out) < end {
		out = append(out, 0)
	}
	return out
}

// LseekOut is struct fuse_lseek_out.
type LseekOut struct{ Offset uint64 }

// IoctlOut is struct fuse_ioctl_out; what comes out follows it.
type IoctlOut struct {
	Result                 int32
	Flags, InIovs, OutIovs uint32
}

// SxTime is struct fuse_sx_time.
type SxTime struct {
	Sec  int64
	Nsec uint32
	_    int32
}

// StatxOut is struct fuse_statx_out with the struct fuse_statx in it.
type StatxOut struct {
	AttrValid            uint64
	AttrValidNsec, _     uint32
	_                    [2]uint64
	Mask, Blksize        uint32
	Attributes           uint64
	Nlink, UID, GID      uint32
	Mode, _              uint16
	Ino, Size, Blocks    uint64
	AttributesMask       uint64
	Atime, Btime         SxTime
	Ctime, Mtime         SxTime
	RdevMajor, RdevMinor uint32
	DevMajor, DevMinor   uint32
	_                    [14]uint64
}

// Set fills o from what stat(2) said. ino is the number to show.
func (o *StatxOut) Set(st *unix.Stat_t, ino uint64) {
	o.Mask = unix.STATX_BASIC_STATS
	o.Blksize, o.Nlink, o.UID, o.GID = uint32(st.Blksize), uint32(st.Nlink), st.Uid, st.Gid
	o.Mode, o.Ino, o.Size, o.Blocks = uint16(st.Mode), ino, uint64(st.Size), uint64(st.Blocks)
	o.Atime = SxTime{Sec: st.Atim.Sec, Nsec: uint32(st.Atim.Nsec)}
	o.Ctime = SxTime{Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)}
	o.Mtime = SxTime{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
	o.RdevMajor, o.RdevMinor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
}

// PlusSize returns how many bytes an entry has beside its [Dirent] in the answer to a
// [ReaddirplusRequest]: those of an [EntryOut], which comes first.
func PlusSize(plus bool) int {
	if plus {
		return int(unsafe.Sizeof(EntryOut{}))
	}
	return 0
}

// Looked yields the nodes that the answer to a [ReaddirplusRequest] says were looked up.
func Looked(entries []byte) iter.Seq[fuse.NodeID] {
	return func(yield func(fuse.NodeID) bool) {
		for len(entries) > 0 {
			entry := take[EntryOut](&entries)
			header := (*Dirent)(unsafe.Pointer(unsafe.SliceData(entries)))
			entries = entries[DirentSize(entries[:header.Namelen]):]
			if entry.Nodeid != 0 && !yield(fuse.NodeID(entry.Nodeid)) {
				return
			}
		}
	}
}

// WithoutLookups returns the answer to a [ReaddirplusRequest] with the given entries,
// none of which was looked up: as many as fit into size bytes.
func WithoutLookups(entries []byte, size int) []byte {
	var out []byte
	for len(entries) > 0 {
		header := (*Dirent)(unsafe.Pointer(unsafe.SliceData(entries)))
		length := int(unsafe.Sizeof(*header)) + (int(header.Namelen)+7)&^7
		if len(out)+PlusSize(true)+length > size {
			break
		}
		out = append(append(out, BytesOf(&EntryOut{})...), entries[:length]...)
		entries = entries[length:]
	}
	return out
}

// SetTimeout splits d into the seconds and nanoseconds of a reply.
func SetTimeout(sec *uint64, nsec *uint32, d time.Duration) {
	*sec, *nsec = uint64(d/time.Second), uint32(d%time.Second)
}

// Set fills a from what stat(2) said. ino is the number to show.
func (a *Attr) Set(st *unix.Stat_t, ino uint64) {
	*a = Attr{
		Ino: ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Atime: uint64(st.Atim.Sec), AtimeNsec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), MtimeNsec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), CtimeNsec: uint32(st.Ctim.Nsec),
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
	}
}
