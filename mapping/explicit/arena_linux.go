package explicit

import (
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
)

// arenaCalls are the system calls on memory of an arena, as values, so that a
// test can make one fail. mem always lies in the arena: what is outside is not
// ours to map over.
type arenaCalls struct {
	mmap     func(mem []byte, fd int, off int64, prot, flags int) error
	mprotect func(mem []byte, prot int) error
	madvise  func(mem []byte, advice int) error
	mlock    func(mem []byte) error
	// mlockOnFault locks what is in memory, and the rest when it comes (mlock2(2):
	// MLOCK_ONFAULT).
	mlockOnFault func(mem []byte) error
	munlock      func(mem []byte) error
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
		mlockOnFault: func(mem []byte) error {
			_, _, errno := unix.Syscall(unix.SYS_MLOCK2, guard.AddressOf(mem), uintptr(len(mem)), unix.MLOCK_ONFAULT)
			if errno != 0 {
				return os.NewSyscallError("mlock2", errno)
			}
			return nil
		},
		munlock: func(mem []byte) error { return os.NewSyscallError("munlock", unix.Munlock(mem)) },
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

// reserveArena reserves address space: arenaSize, or most if that is less, or as much
// as can be had.
func reserveArena(most int64) ([]byte, error) {
	size := min(uint64(arenaSize), math.MaxInt/4, uint64(most))
	for {
		size &^= uint64(paging.PageSize - 1)
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(size), reservationProt, reservationFlags)
		if err == nil {
			return guard.Slice(p, int64(size)), nil
		}
		if size /= 2; size < minArenaSize {
			return nil, os.NewSyscallError("mmap", err)
		}
	}
}

// probeMmap asks the kernel whether it would map one page of the file so, without
// leaving anything behind.
func probeMmap(fd int, off int64, prot, flags int) error {
	p, err := unix.MmapPtr(fd, off, nil, uintptr(paging.PageSize), prot, flags&(unix.MAP_SHARED|unix.MAP_PRIVATE))
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return os.NewSyscallError("munmap", unix.MunmapPtr(p, uintptr(paging.PageSize)))
}
