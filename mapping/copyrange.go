package mapping

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// maxCopy is how many bytes one call of CopyRange copies at the most: the length is
// answered in 32 bits.
const maxCopy = 1 << 30

// CopyRange copies up to length bytes of another file, or of this one, from srcOff to off
// (copy_file_range(2)): the filesystem below shares blocks where it can. It returns how
// many were copied, less at the end of src. EOPNOTSUPP says that they have to be read and
// written instead: one of the files is in a mode that copies, or they are on filesystems
// that do not do it.
func (f *File) CopyRange(off int64, src *File, srcOff, length int64, by Origin) (int, error) {
	unsupported := os.NewSyscallError("copy_file_range", syscall.EOPNOTSUPP)
	f.changes()
	f.growMu.Lock()
	defer f.growMu.Unlock()
	if f.copies != nil || src.copying() {
		return 0, unsupported
	}
	var st unix.Stat_t
	if err := src.Stat(&st); err != nil { // others can have changed the size
		return 0, err
	}
	length = min(length, maxCopy, st.Size-srcOff)
	if length <= 0 {
		return 0, nil
	}
	if err := f.clearTail(off); err != nil { // which learns the size, too
		return 0, err
	}
	// A copy of the descriptor: two files' locks at a time would need an order.
	from := -1
	err := src.WithDescriptor(func(fd int) (err error) {
		from, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return 0, os.NewSyscallError("fcntl", err)
	}
	defer unix.Close(from)
	f.mu.RLock()
	defer f.mu.RUnlock()
	at, to := srcOff, off
	n, err := unix.CopyFileRange(from, &at, f.fd, &to, int(length), 0)
	switch err {
	case nil:
		if g := (paging.Range{Off: off, End: off + int64(n)}); !g.Empty() {
			f.record.Clear(g, dirty.Loaded|dirty.Stored) // the pages there are other ones now
			f.grownLocked(g, by)
		}
		return n, nil
	case syscall.EBADF, syscall.EXDEV, syscall.EINVAL, syscall.ENOSYS, syscall.EOPNOTSUPP:
		return 0, unsupported
	}
	return 0, os.NewSyscallError("copy_file_range", err)
}
