// Package sys has the system calls of the engine as values, so that a test can make one
// fail, and what the engine asks the system about itself and about filesystems.
package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
)

// System holds the system calls the engine makes, as values, so that a test can
// make the n-th one fail. This is the only file that calls them.
type System struct {
	Mmap      func(fd int, length int64, prot, flags int) ([]byte, error)
	MmapAt    func(at []byte, fd int, off int64, prot, flags int) error
	Munmap    func(mem []byte) error
	Mremap    func(from, to []byte) error
	Madvise   func(mem []byte, advice int) error
	Msync     func(mem []byte, flags int) error
	Pread     func(fd int, p []byte, off int64) (int, error)
	Pwrite    func(fd int, p []byte, off int64) (int, error)
	AppendTo  func(fd int, p []byte) (int, error)
	Vmwrite   func(dst, src []byte) error
	Writev    func(fd int, header, body []byte) (int, error)
	Ftruncate func(fd int, size int64) error
	Fallocate func(fd int, mode uint32, off, length int64) error
	Fsync     func(fd int) error
	Fdatasync func(fd int) error
	SetMtime  func(fd int, mtime unix.Timespec) error
	Close     func(fd int) error
}

// New returns the real system calls. Every error is an *os.SyscallError.
func New() *System {
	return &System{
		Mmap:      mmap,
		MmapAt:    mmapAt,
		Munmap:    Munmap,
		Mremap:    mremap,
		Madvise:   func(mem []byte, advice int) error { return os.NewSyscallError("madvise", unix.Madvise(mem, advice)) },
		Msync:     func(mem []byte, flags int) error { return os.NewSyscallError("msync", unix.Msync(mem, flags)) },
		Pread:     pread,
		Pwrite:    pwrite,
		AppendTo:  appendTo,
		Vmwrite:   vmwrite,
		Writev:    writev,
		Ftruncate: ftruncate,
		Fallocate: fallocate,
		Fsync: func(fd int) error {
			return os.NewSyscallError("fsync", ignoringEINTR(func() error { return unix.Fsync(fd) }))
		},
		Fdatasync: func(fd int) error {
			return os.NewSyscallError("fdatasync", ignoringEINTR(func() error { return unix.Fdatasync(fd) }))
		},
		SetMtime: setMtime,
		Close:    func(fd int) error { return os.NewSyscallError("close", unix.Close(fd)) },
	}
}

// Fstat is called directly: through a function value st would have to live on
// the heap, at every read.
func Fstat(fd int, st *unix.Stat_t) error {
	return os.NewSyscallError("fstat", unix.Fstat(fd, st))
}

// ignoringEINTR repeats call while a signal interrupts it: the Go runtime
// preempts goroutines with signals, and filesystems differ in what they let a
// signal interrupt.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func mmap(fd int, length int64, prot, flags int) ([]byte, error) {
	p, err := unix.MmapPtr(fd, 0, nil, uintptr(length), prot, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return guard.Slice(p, length), nil
}

// mmapAt maps in place of what is mapped at at, with MAP_FIXED: at must be ours.
func mmapAt(at []byte, fd int, off int64, prot, flags int) error {
	_, err := unix.MmapPtr(fd, off, guard.Pointer(at), uintptr(len(at)), prot, flags|unix.MAP_FIXED)
	return os.NewSyscallError("mmap", err)
}

// mremap moves the mapping from to the place of another of the same length, which
// ends by that.
func mremap(from, to []byte) error {
	_, err := unix.MremapPtr(guard.Pointer(from), uintptr(len(from)), guard.Pointer(to), uintptr(len(to)),
		unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED)
	return os.NewSyscallError("mremap", err)
}

func Munmap(mem []byte) error {
	return os.NewSyscallError("munmap", unix.MunmapPtr(guard.Pointer(mem), uintptr(len(mem))))
}

func pread(fd int, p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("pread", err)
		}
		return n, nil
	}
}

func pwrite(fd int, p []byte, off int64) (int, error) {
	for {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("pwrite", err)
		}
		return n, nil
	}
}

// appendTo writes p at the end of the file, wherever that is by now, in one
// step: nobody else's append can come between the look and the write.
func appendTo(fd int, p []byte) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	for {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, 0, 0, unix.RWF_APPEND)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, os.NewSyscallError("pwritev2", errno)
		}
		return int(n), nil
	}
}

// vmwrite copies src to the mapped dst by the kernel's hand: a page that has to
// be made first costs no signal and keeps no Go scheduler slot
// (process_vm_writev(2) to oneself).
func vmwrite(dst, src []byte) error {
	local := [1]unix.Iovec{{Base: unsafe.SliceData(src)}}
	local[0].SetLen(len(src))
	remote := [1]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(unsafe.SliceData(dst))), Len: len(src)}}
	n, err := unix.ProcessVMWritev(unix.Getpid(), local[:], remote[:], 0)
	if err == nil && n != len(src) {
		err = unix.EFAULT
	}
	return os.NewSyscallError("process_vm_writev", err)
}

// writev sends header and body in one call. A page of body that cannot be had
// is EFAULT and not a signal, also where what takes the bytes keeps those before it.
func writev(fd int, header, body []byte) (int, error) {
	iov := [2]unix.Iovec{{Base: unsafe.SliceData(header)}, {Base: unsafe.SliceData(body)}}
	iov[0].SetLen(len(header))
	iov[1].SetLen(len(body))
	count := 2
	if len(body) == 0 {
		count = 1
	}
	for {
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(count))
		if errno == unix.EINTR {
			continue
		}
		switch {
		case errno != 0:
			return 0, os.NewSyscallError("writev", errno)
		case int(n) != len(header)+len(body):
			return int(n), os.NewSyscallError("writev", unix.EFAULT)
		}
		return int(n), nil
	}
}

func ftruncate(fd int, size int64) error {
	return os.NewSyscallError("ftruncate", ignoringEINTR(func() error { return unix.Ftruncate(fd, size) }))
}

func fallocate(fd int, mode uint32, off, length int64) error {
	return os.NewSyscallError("fallocate", ignoringEINTR(func() error { return unix.Fallocate(fd, mode, off, length) }))
}

// setMtime sets the time of the last modification and leaves that of the last
// access; the kernel sets the change time.
func setMtime(fd int, mtime unix.Timespec) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("utimensat", errno)
	}
	return nil
}
