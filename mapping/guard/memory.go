package guard

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// Resident reports whether every page of mapped memory is in the page cache. mem
// must begin at a page boundary and have no more than maxResident pages.
func Resident(mem []byte) bool {
	var vec [maxResident]byte
	pages := (len(mem) + int(paging.PageSize) - 1) / int(paging.PageSize)
	if pages == 0 || pages > len(vec) || Mincore(mem, vec[:pages]) != nil {
		return false
	}
	for _, v := range vec[:pages] {
		if v&1 == 0 {
			return false
		}
	}
	return true
}

// maxResident is the most pages that resident looks at: those of the largest
// request and one more, for a request that is not aligned.
const maxResident = 33

// Mincore asks which pages of mem, which begins at a page boundary, are in the
// page cache: the lowest bit of a byte of vec for each.
func Mincore(mem, vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, AddressOf(mem), uintptr(len(mem)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return os.NewSyscallError("mincore", errno)
	}
	return nil
}

// Slice returns memory outside the Go heap as a slice.
func Slice(p unsafe.Pointer, length int64) []byte { return unsafe.Slice((*byte)(p), length) }

// Pointer returns where memory outside the Go heap begins.
func Pointer(mem []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(mem)) }
