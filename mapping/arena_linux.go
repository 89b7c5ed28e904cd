package mapping

import (
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arenaCalls are the system calls on memory of an arena, as values, so that a
// test can make one fail. mem always lies in the arena: what is outside is not
// ours to map over.
type arenaCalls struct {
	mmap     func(mem []byte, fd int, off int64, prot, flags int) error
	mprotect func(mem []byte, prot int) error
	madvise  func(mem []byte, advice int) error
	mlock    func(mem []byte) error
	munlock  func(mem []byte) error
}

func newArenaCalls() *arenaCalls {
	return &arenaCalls{
		mmap: func(mem []byte, fd int, off int64, prot, flags int) error {
			_, err := unix.MmapPtr(fd, off, unsafe.Pointer(unsafe.SliceData(mem)), uintptr(len(mem)), prot, flags|unix.MAP_FIXED)
			return os.NewSyscallError("mmap", err)
		},
		mprotect: func(mem []byte, prot int) error { return os.NewSyscallError("mprotect", unix.Mprotect(mem, prot)) },
		madvise:  func(mem []byte, advice int) error { return os.NewSyscallError("madvise", unix.Madvise(mem, advice)) },
		mlock:    func(mem []byte) error { return os.NewSyscallError("mlock", unix.Mlock(mem)) },
		munlock:  func(mem []byte) error { return os.NewSyscallError("munlock", unix.Munlock(mem)) },
	}
}

// reservation are the protection and the flags of address space that is kept for
// mappings to come: no access, and no memory.
const (
	reservationProt  = unix.PROT_NONE
	reservationFlags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
)

// Sizes of an arena, in bytes. Nothing but address space is spent on it.
const (
	arenaSize    = 256 << 30
	minArenaSize = 1 << 20
)

// reserveArena reserves address space: arenaSize, or what the process may have of
// it without being short of it elsewhere.
func reserveArena() ([]byte, error) {
	size := min(uint64(arenaSize), math.MaxInt/4)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err == nil {
		size = min(size, limit.Cur/4)
	}
	for {
		size &^= uint64(PageSize - 1)
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), reservationProt, reservationFlags)
		if err == nil {
			return sliceOf(p, int64(size)), nil
		}
		if size /= 2; size < minArenaSize {
			return nil, os.NewSyscallError("mmap", err)
		}
	}
}

// probeMmap asks the kernel whether it would map one page of the file so, without
// leaving anything behind.
func probeMmap(fd int, off int64, prot, flags int) error {
	p, err := unix.MmapPtr(fd, off, nil, uintptr(PageSize), prot, flags&(unix.MAP_SHARED|unix.MAP_PRIVATE))
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return os.NewSyscallError("munmap", unix.MunmapPtr(p, uintptr(PageSize)))
}
