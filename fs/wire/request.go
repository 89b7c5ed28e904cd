package wire

import (
	"fmt"

	"bazil.org/fuse"
)

// What the library has no type for is declared here in its manner. The fields are those
// of linux/fuse.h, sizes and offsets in bytes.

// PollRequest asks which of Events a file is ready for, and perhaps to be told when it
// is (FUSE_POLL).
type PollRequest struct {
	fuse.Header
	Handle fuse.HandleID
	Flags  fuse.PollFlags
	Events fuse.PollEvents
	kh     uint64
}

// PollWakeup names who waits in poll(2), for [Conn.Wakeup].
type PollWakeup struct{ kh uint64 }

// Wakeup returns whom to wake when the file is ready, and whether somebody asks for that.
func (r *PollRequest) Wakeup() (wakeup PollWakeup, wanted bool) {
	return PollWakeup{r.kh}, r.Flags&fuse.PollScheduleNotify != 0
}

func (r *PollRequest) String() string {
	return fmt.Sprintf("Poll [%s] %v events=%v", &r.Header, r.Handle, r.Events)
}

// ReaddirplusRequest is a read of a directory whose entries come with their attributes,
// and each as good as looked up (FUSE_READDIRPLUS).
type ReaddirplusRequest struct{ fuse.ReadRequest }

// Rename2Request is renameat2(2) with its flags (FUSE_RENAME2).
type Rename2Request struct {
	fuse.RenameRequest
	Flags uint32
}

func (r *Rename2Request) String() string {
	return fmt.Sprintf("%s flags=%#x", r.RenameRequest.String(), r.Flags)
}

// LseekRequest is lseek(2) with SEEK_DATA or SEEK_HOLE (FUSE_LSEEK).
type LseekRequest struct {
	fuse.Header
	Handle fuse.HandleID
	Offset uint64
	Whence uint32
}

func (r *LseekRequest) String() string {
	return fmt.Sprintf("Lseek [%s] %v %d whence=%d", &r.Header, r.Handle, r.Offset, r.Whence)
}

// CopyFileRangeRequest is copy_file_range(2) from the file of the header to that of
// NodeOut (FUSE_COPY_FILE_RANGE).
type CopyFileRangeRequest struct {
	fuse.Header
	Handle        fuse.HandleID
	Offset        uint64
	NodeOut       fuse.NodeID
	HandleOut     fuse.HandleID
	OffsetOut     uint64
	Length, Flags uint64
}

func (r *CopyFileRangeRequest) String() string {
	return fmt.Sprintf("CopyFileRange [%s] %v %d@%d to %v %v @%d", &r.Header, r.Handle, r.Length, r.Offset, r.NodeOut, r.HandleOut, r.OffsetOut)
}

// TmpfileRequest is open(2) with O_TMPFILE in the directory of the header
// (FUSE_TMPFILE).
type TmpfileRequest struct{ fuse.CreateRequest }

// StatxRequest is statx(2) of what stat(2) does not tell (FUSE_STATX).
type StatxRequest struct {
	fuse.Header
	// Flags and Mask are statx(2)'s.
	Flags, Mask uint32
}

func (r *StatxRequest) String() string {
	return fmt.Sprintf("Statx [%s] flags=%#x mask=%#x", &r.Header, r.Flags, r.Mask)
}

// IoctlRequest is ioctl(2) (FUSE_IOCTL). Data is what goes in, OutSize what can come out.
// Both are lent, as a write's bytes are.
type IoctlRequest struct {
	fuse.Header
	Handle  fuse.HandleID
	Dir     bool
	Cmd     uint32
	Data    []byte
	OutSize uint32
}

func (r *IoctlRequest) String() string {
	return fmt.Sprintf("Ioctl [%s] %v cmd=%#x in=%d out=%d", &r.Header, r.Handle, r.Cmd, len(r.Data), r.OutSize)
}
