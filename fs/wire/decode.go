package wire

import (
	"bytes"
	"errors"
	"math"
	"os"
	"time"
	"unsafe"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"
)

// errMalformed is what a request comes to that is shorter than its structure, or whose
// names or lengths lie outside it.
var errMalformed = errors.New("malformed request")

// requests is memory for one request of each kind that comes often, so that none costs
// an allocation.
type requests struct {
	lookup   fuse.LookupRequest
	forget   fuse.ForgetRequest
	getattr  fuse.GetattrRequest
	open     fuse.OpenRequest
	read     fuse.ReadRequest
	plus     ReaddirplusRequest
	write    fuse.WriteRequest
	release  fuse.ReleaseRequest
	flush    fuse.FlushRequest
	fsync    fuse.FsyncRequest
	getxattr fuse.GetxattrRequest
	access   fuse.AccessRequest
	statx    StatxRequest
	lseek    LseekRequest
}

// decoder turns messages of the kernel into requests. What it returns, bytes of a write
// and the names of a lookup and of an attribute that is read included, is the decoder's
// and the message's memory: it is right until the next message. All other names are the
// receiver's to keep.
type decoder struct {
	requests
	// setxattrExt says that FUSE_SETXATTR_EXT was granted.
	setxattrExt bool
	// group is the one supplementary group of the client that counts for what it
	// creates: that of the directory.
	group    uint32
	hasGroup bool
}

// take returns the structure that body begins with and cuts it off, or nil.
func take[T any](body *[]byte) *T {
	size := unsafe.Sizeof(*new(T))
	if uintptr(len(*body)) < size {
		return nil
	}
	in := (*T)(unsafe.Pointer(unsafe.SliceData(*body)))
	*body = (*body)[size:]
	return in
}

// takeName returns the name that body begins with, lent, and cuts it and its NUL off.
func takeName(body *[]byte) (string, bool) {
	at := bytes.IndexByte(*body, 0)
	if at < 0 {
		return "", false
	}
	name := unsafe.String(unsafe.SliceData(*body), at)
	*body = (*body)[at+1:]
	return name, true
}

// takeOwnName is takeName of a name that may be kept.
func takeOwnName(body *[]byte) (string, bool) {
	name, ok := takeName(body)
	return string([]byte(name)), ok
}

// decode returns the request that a message holds. The header is set whenever it could be
// read, so that an error can be answered: its ID is then not 0.
func (d *decoder) decode(message []byte) (request fuse.Request, header fuse.Header, err error) {
	body := message
	in := take[inHeader](&body)
	if in == nil || int(in.Len) != len(message) {
		return nil, header, errMalformed
	}
	header = fuse.Header{
		ID: fuse.RequestID(in.Unique), Node: fuse.NodeID(in.Nodeid), Uid: in.UID, Gid: in.GID, Pid: in.PID,
	}
	if extended := int(in.Extlen) * 8; extended > len(body) {
		return nil, header, errMalformed
	} else if d.hasGroup = false; extended > 0 {
		d.takeGroup(body[len(body)-extended:])
		body = body[:len(body)-extended]
	}
	if request = d.body(in.Opcode, header, body); request == nil {
		return nil, header, errMalformed
	}
	return request, header, nil
}

// takeGroup reads the extensions of a request.
func (d *decoder) takeGroup(ext []byte) {
	for {
		rest := ext
		h := take[extHeader](&rest)
		if h == nil || uint64(h.Size) < uint64(unsafe.Sizeof(*h)) || uint64(h.Size) > uint64(len(ext)) {
			return
		}
		if h.Type == extGroups {
			list := ext[unsafe.Sizeof(*h):h.Size]
			count := take[uint32](&list)
			if count == nil || *count == 0 {
				return
			}
			if group := take[uint32](&list); group != nil {
				d.group, d.hasGroup = *group, true
			}
			return
		}
		ext = ext[h.Size:]
	}
}

// body returns the request with the given number, or nil if its body is malformed.
func (d *decoder) body(opcode uint32, h fuse.Header, body []byte) fuse.Request {
	switch opcode {
	case opLookup:
		if name, ok := takeName(&body); ok {
			d.lookup = fuse.LookupRequest{Header: h, Name: name}
			return &d.lookup
		}
	case opForget:
		if in := take[forgetIn](&body); in != nil {
			d.forget = fuse.ForgetRequest{Header: h, N: in.Nlookup}
			return &d.forget
		}
	case opBatchForget:
		return batchForget(h, body)
	case opGetattr:
		if in := take[getattrIn](&body); in != nil {
			d.getattr = fuse.GetattrRequest{Header: h, Flags: fuse.GetattrFlags(in.Flags), Handle: fuse.HandleID(in.Fh)}
			return &d.getattr
		}
	case opStatx:
		if in := take[statxIn](&body); in != nil {
			d.statx = StatxRequest{Header: h, Flags: in.SxFlags, Mask: in.SxMask}
			return &d.statx
		}
	case opRead, opReaddir, opReaddirplus:
		if in := take[readIn](&body); in != nil && in.Offset <= math.MaxInt64 {
			return d.readRequest(opcode, h, in)
		}
	case opWrite:
		if in := take[writeIn](&body); in != nil && uint64(in.Size) <= uint64(len(body)) && in.Offset <= math.MaxInt64 {
			d.write = fuse.WriteRequest{
				Header: h, Handle: fuse.HandleID(in.Fh), Offset: int64(in.Offset), Data: body[:in.Size],
				Flags: fuse.WriteFlags(in.WriteFlags), LockOwner: fuse.LockOwner(in.LockOwner), FileFlags: openFlags(in.Flags),
			}
			return &d.write
		}
	case opOpen, opOpendir:
		if in := take[openIn](&body); in != nil {
			d.open = fuse.OpenRequest{Header: h, Dir: opcode == opOpendir, Flags: openFlags(in.Flags), OpenFlags: fuse.OpenRequestFlags(in.OpenFlags)}
			return &d.open
		}
	case opRelease, opReleasedir:
		if in := take[releaseIn](&body); in != nil {
			d.release = fuse.ReleaseRequest{
				Header: h, Dir: opcode == opReleasedir, Handle: fuse.HandleID(in.Fh), Flags: openFlags(in.Flags),
				ReleaseFlags: fuse.ReleaseFlags(in.ReleaseFlags), LockOwner: fuse.LockOwner(in.LockOwner),
			}
			return &d.release
		}
	case opFlush:
		if in := take[flushIn](&body); in != nil {
			d.flush = fuse.FlushRequest{Header: h, Handle: fuse.HandleID(in.Fh), LockOwner: fuse.LockOwner(in.LockOwner)}
			return &d.flush
		}
	case opFsync, opFsyncdir:
		if in := take[fsyncIn](&body); in != nil {
			d.fsync = fuse.FsyncRequest{Header: h, Dir: opcode == opFsyncdir, Handle: fuse.HandleID(in.Fh), Flags: in.FsyncFlags}
			return &d.fsync
		}
	case opGetxattr:
		if in := take[getxattrIn](&body); in != nil {
			if name, ok := takeName(&body); ok {
				d.getxattr = fuse.GetxattrRequest{Header: h, Size: in.Size, Name: name}
				return &d.getxattr
			}
		}
	case opAccess:
		if in := take[accessIn](&body); in != nil {
			d.access = fuse.AccessRequest{Header: h, Mask: in.Mask}
			return &d.access
		}
	case opLseek:
		if in := take[lseekIn](&body); in != nil {
			d.lseek = LseekRequest{Header: h, Handle: fuse.HandleID(in.Fh), Offset: in.Offset, Whence: in.Whence}
			return &d.lseek
		}
	case opStatfs:
		return &fuse.StatfsRequest{Header: h}
	case opReadlink:
		return &fuse.ReadlinkRequest{Header: h}
	case opDestroy:
		return &fuse.DestroyRequest{Header: h}
	default:
		return d.rareBody(opcode, h, body)
	}
	return nil
}

func (d *decoder) readRequest(opcode uint32, h fuse.Header, in *readIn) fuse.Request {
	r := &d.read
	if opcode == opReaddirplus {
		r = &d.plus.ReadRequest
	}
	*r = fuse.ReadRequest{
		Header: h, Dir: opcode != opRead, Handle: fuse.HandleID(in.Fh), Offset: int64(in.Offset), Size: int(in.Size),
		Flags: fuse.ReadFlags(in.ReadFlags), LockOwner: fuse.LockOwner(in.LockOwner), FileFlags: openFlags(in.Flags),
	}
	if opcode == opReaddirplus {
		return &d.plus
	}
	return r
}

// rareBody is body of the requests that come less often: each is its own memory.
func (d *decoder) rareBody(opcode uint32, h fuse.Header, body []byte) fuse.Request {
	switch opcode {
	case opSetattr:
		if in := take[setattrIn](&body); in != nil {
			return &fuse.SetattrRequest{
				Header: h, Valid: fuse.SetattrValid(in.Valid), Handle: fuse.HandleID(in.Fh), Size: in.Size,
				Atime: time.Unix(int64(in.Atime), int64(in.AtimeNsec)),
				Mtime: time.Unix(int64(in.Mtime), int64(in.MtimeNsec)),
				Ctime: time.Unix(int64(in.Ctime), int64(in.CtimeNsec)),
				Mode:  fileMode(in.Mode), Uid: in.UID, Gid: in.GID,
			}
		}
	case opCreate, opTmpfile:
		if in := take[createIn](&body); in != nil {
			if name, ok := takeOwnName(&body); ok {
				r := fuse.CreateRequest{Header: h, Name: name, Flags: openFlags(in.Flags), Mode: fileMode(in.Mode), Umask: fileMode(in.Umask) & os.ModePerm}
				if opcode == opTmpfile {
					return &TmpfileRequest{r}
				}
				return &r
			}
		}
	case opMkdir:
		if in := take[mkdirIn](&body); in != nil {
			if name, ok := takeOwnName(&body); ok {
				return &fuse.MkdirRequest{Header: h, Name: name, Mode: fileMode(in.Mode&^unix.S_IFMT | unix.S_IFDIR), Umask: fileMode(in.Umask) & os.ModePerm}
			}
		}
	case opMknod:
		if in := take[mknodIn](&body); in != nil {
			if name, ok := takeOwnName(&body); ok {
				return &fuse.MknodRequest{Header: h, Name: name, Mode: fileMode(in.Mode), Rdev: in.Rdev, Umask: fileMode(in.Umask) & os.ModePerm}
			}
		}
	case opSymlink:
		if name, ok := takeOwnName(&body); ok {
			if target, ok := takeOwnName(&body); ok {
				return &fuse.SymlinkRequest{Header: h, NewName: name, Target: target}
			}
		}
	case opLink:
		if in := take[linkIn](&body); in != nil {
			if name, ok := takeOwnName(&body); ok {
				return &fuse.LinkRequest{Header: h, OldNode: fuse.NodeID(in.Oldnodeid), NewName: name}
			}
		}
	case opUnlink, opRmdir:
		if name, ok := takeOwnName(&body); ok {
			return &fuse.RemoveRequest{Header: h, Name: name, Dir: opcode == opRmdir}
		}
	case opRename, opRename2:
		return rename(opcode, h, body)
	case opSetxattr:
		return d.setxattr(h, body)
	case opListxattr:
		if in := take[getxattrIn](&body); in != nil {
			return &fuse.ListxattrRequest{Header: h, Size: in.Size}
		}
	case opRemovexattr:
		if name, ok := takeOwnName(&body); ok {
			return &fuse.RemovexattrRequest{Header: h, Name: name}
		}
	case opInterrupt:
		if in := take[interruptIn](&body); in != nil {
			return &fuse.InterruptRequest{Header: h, IntrID: fuse.RequestID(in.Unique)}
		}
	case opPoll:
		if in := take[pollIn](&body); in != nil {
			return &PollRequest{Header: h, Handle: fuse.HandleID(in.Fh), kh: in.Kh, Flags: fuse.PollFlags(in.Flags), Events: fuse.PollEvents(in.Events)}
		}
	case opFallocate:
		if in := take[fallocateIn](&body); in != nil {
			return &fuse.FAllocateRequest{Header: h, Handle: fuse.HandleID(in.Fh), Offset: in.Offset, Length: in.Length, Mode: fuse.FAllocateFlags(in.Mode)}
		}
	case opCopyFileRange:
		if in := take[copyFileRangeIn](&body); in != nil {
			return &CopyFileRangeRequest{
				Header: h, Handle: fuse.HandleID(in.FhIn), Offset: in.OffIn, NodeOut: fuse.NodeID(in.NodeidOut),
				HandleOut: fuse.HandleID(in.FhOut), OffsetOut: in.OffOut, Length: in.Len, Flags: in.Flags,
			}
		}
	case opIoctl:
		if in := take[ioctlIn](&body); in != nil && uint64(in.InSize) <= uint64(len(body)) {
			return &IoctlRequest{
				Header: h, Handle: fuse.HandleID(in.Fh), Dir: in.Flags&ioctlDir != 0, Cmd: in.Cmd, Data: body[:in.InSize], OutSize: in.OutSize,
			}
		}
	default:
		return &fuse.UnrecognizedRequest{Header: h, Opcode: opcode}
	}
	return nil
}

// ioctlDir is FUSE_IOCTL_DIR.
const ioctlDir = 1 << 4

func batchForget(h fuse.Header, body []byte) fuse.Request {
	in := take[batchForgetIn](&body)
	if in == nil || uint64(in.Count) > uint64(len(body))/uint64(unsafe.Sizeof(forgetOne{})) {
		return nil
	}
	r := &fuse.BatchForgetRequest{Header: h, Forget: make([]fuse.BatchForgetItem, in.Count)}
	for i := range r.Forget {
		one := take[forgetOne](&body)
		r.Forget[i] = fuse.BatchForgetItem{NodeID: fuse.NodeID(one.Nodeid), N: one.Nlookup}
	}
	return r
}

func rename(opcode uint32, h fuse.Header, body []byte) fuse.Request {
	r := Rename2Request{RenameRequest: fuse.RenameRequest{Header: h}}
	if opcode == opRename {
		in := take[renameIn](&body)
		if in == nil {
			return nil
		}
		r.NewDir = fuse.NodeID(in.Newdir)
	} else {
		in := take[rename2In](&body)
		if in == nil {
			return nil
		}
		r.NewDir, r.Flags = fuse.NodeID(in.Newdir), in.Flags
	}
	var ok bool
	if r.OldName, ok = takeOwnName(&body); !ok {
		return nil
	}
	if r.NewName, ok = takeOwnName(&body); !ok {
		return nil
	}
	if r.Flags == 0 {
		return &r.RenameRequest
	}
	return &r
}

func (d *decoder) setxattr(h fuse.Header, body []byte) fuse.Request {
	r := &fuse.SetxattrRequest{Header: h}
	var size uint32
	if d.setxattrExt {
		in := take[setxattrExtIn](&body)
		if in == nil {
			return nil
		}
		size, r.Flags, r.SetxattrFlags = in.Size, in.Flags, fuse.SetxattrFlags(in.SetxattrFlags)
	} else {
		in := take[setxattrIn](&body)
		if in == nil {
			return nil
		}
		size, r.Flags = in.Size, in.Flags
	}
	var ok bool
	if r.Name, ok = takeOwnName(&body); !ok || uint64(size) > uint64(len(body)) {
		return nil
	}
	r.Xattr = body[:size]
	return r
}

// openFlags returns the flags of open(2) without O_LARGEFILE, which says nothing here.
func openFlags(flags uint32) fuse.OpenFlags { return fuse.OpenFlags(flags &^ 0x8000) }

// fileMode returns mode(7)'s bits in the library's form.
func fileMode(mode uint32) os.FileMode {
	bits := os.FileMode(mode & 0o777)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
	case unix.S_IFDIR:
		bits |= os.ModeDir
	case unix.S_IFCHR:
		bits |= os.ModeCharDevice | os.ModeDevice
	case unix.S_IFBLK:
		bits |= os.ModeDevice
	case unix.S_IFIFO:
		bits |= os.ModeNamedPipe
	case unix.S_IFLNK:
		bits |= os.ModeSymlink
	case unix.S_IFSOCK:
		bits |= os.ModeSocket
	default:
		bits |= os.ModeIrregular // some requests have no kind
	}
	if mode&unix.S_ISUID != 0 {
		bits |= os.ModeSetuid
	}
	if mode&unix.S_ISGID != 0 {
		bits |= os.ModeSetgid
	}
	if mode&unix.S_ISVTX != 0 {
		bits |= os.ModeSticky
	}
	return bits
}
