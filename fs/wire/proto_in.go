package wire

// The structures of linux/fuse.h, protocol 7.45, that requests are made of.

// inHeader is struct fuse_in_header. Extlen counts units of 8 bytes at the end of the
// message.
type inHeader struct {
	Len, Opcode    uint32
	Unique, Nodeid uint64
	UID, GID, PID  uint32
	Extlen         uint16
	_              uint16
}

type initIn struct {
	Major, Minor, MaxReadahead, Flags uint32
	// What follows came with protocol 7.36.
	Flags2 uint32
	_      [11]uint32
}

type forgetIn struct{ Nlookup uint64 }

type batchForgetIn struct{ Count, _ uint32 }

type forgetOne struct{ Nodeid, Nlookup uint64 }

type getattrIn struct {
	Flags, _ uint32
	Fh       uint64
}

type statxIn struct {
	Flags, _ uint32
	Fh       uint64
	// SxFlags and SxMask are statx(2)'s.
	SxFlags, SxMask uint32
}

type setattrIn struct {
	Valid, _                        uint32
	Fh, Size, LockOwner             uint64
	Atime, Mtime, Ctime             uint64
	AtimeNsec, MtimeNsec, CtimeNsec uint32
	Mode, _                         uint32
	UID, GID, _                     uint32
}

type mknodIn struct{ Mode, Rdev, Umask, _ uint32 }

type mkdirIn struct{ Mode, Umask uint32 }

type renameIn struct{ Newdir uint64 }

type rename2In struct {
	Newdir   uint64
	Flags, _ uint32
}

type linkIn struct{ Oldnodeid uint64 }

type openIn struct{ Flags, OpenFlags uint32 }

type createIn struct{ Flags, Mode, Umask, OpenFlags uint32 }

type releaseIn struct {
	Fh                  uint64
	Flags, ReleaseFlags uint32
	LockOwner           uint64
}

type flushIn struct {
	Fh        uint64
	_, _      uint32
	LockOwner uint64
}

type readIn struct {
	Fh, Offset      uint64
	Size, ReadFlags uint32
	LockOwner       uint64
	Flags, _        uint32
}

type writeIn struct {
	Fh, Offset       uint64
	Size, WriteFlags uint32
	LockOwner        uint64
	Flags, _         uint32
}

type fsyncIn struct {
	Fh            uint64
	FsyncFlags, _ uint32
}

type setxattrIn struct{ Size, Flags uint32 }

// setxattrExtIn stands for setxattrIn where FUSE_SETXATTR_EXT was granted.
type setxattrExtIn struct{ Size, Flags, SetxattrFlags, _ uint32 }

type getxattrIn struct{ Size, _ uint32 }

type accessIn struct{ Mask, _ uint32 }

type interruptIn struct{ Unique uint64 }

type pollIn struct {
	Fh, Kh        uint64
	Flags, Events uint32
}

type fallocateIn struct {
	Fh, Offset, Length uint64
	Mode, _            uint32
}

type lseekIn struct {
	Fh, Offset uint64
	Whence, _  uint32
}

type copyFileRangeIn struct{ FhIn, OffIn, NodeidOut, FhOut, OffOut, Len, Flags uint64 }

type ioctlIn struct {
	Fh              uint64
	Flags, Cmd      uint32
	Arg             uint64
	InSize, OutSize uint32
}

// extHeader is struct fuse_ext_header: Size is that of the whole extension.
type extHeader struct{ Size, Type uint32 }

// extGroups is FUSE_EXT_GROUPS: struct fuse_supp_groups follows.
const extGroups = 32
