package mapping

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resident reports whether every page of mapped memory is in the page cache. mem
// must begin at a page boundary and have no more than maxResident pages.
func resident(mem []byte) bool {
	var vec [maxResident]byte
	pages := (len(mem) + int(PageSize) - 1) / int(PageSize)
	if pages == 0 || pages > len(vec) || mincore(mem, vec[:pages]) != nil {
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

// mincore asks which pages of mem, which begins at a page boundary, are in the
// page cache: the lowest bit of a byte of vec for each.
func mincore(mem, vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, addressOf(mem), uintptr(len(mem)), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return os.NewSyscallError("mincore", errno)
	}
	return nil
}

// sliceOf returns memory outside the Go heap as a slice.
func sliceOf(p unsafe.Pointer, length int64) []byte { return unsafe.Slice((*byte)(p), length) }

// pointerTo returns where memory outside the Go heap begins.
func pointerTo(mem []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(mem)) }
