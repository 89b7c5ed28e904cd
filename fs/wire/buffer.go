package wire

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// headRoom is what a message can have beside the bytes of a write: the headers are less
// than a page, and the kernel asks for room to spare.
const headRoom = 4096

// buffers lends memory to read messages into. It is mapped, because most messages touch
// the first page of it only.
type buffers struct {
	size int
	mu   sync.Mutex
	free [][]byte
}

// keptBuffers is how many buffers stay though nobody uses them.
const keptBuffers = 4

// get returns a buffer, page-aligned.
func (b *buffers) get() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := len(b.free); k > 0 {
		buffer := b.free[k-1]
		b.free = b.free[:k-1]
		return buffer, nil
	}
	buffer, err := unix.Mmap(-1, 0, b.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	return buffer, os.NewSyscallError("mmap", err)
}

// put gives a buffer back.
func (b *buffers) put(buffer []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) < keptBuffers {
		b.free = append(b.free, buffer)
		return
	}
	_ = unix.Munmap(buffer)
}

// close ends the buffers that nobody uses.
func (b *buffers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, buffer := range b.free {
		_ = unix.Munmap(buffer)
	}
	b.free = nil
}

// maxPagesLimit is the system's limit of pages in one request, 256 where it has no such
// limit.
func maxPagesLimit() int {
	if text, err := os.ReadFile("/proc/sys/fs/fuse/max_pages_limit"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > 0 {
			return n
		}
	}
	return 256
}
