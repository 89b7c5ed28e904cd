package fs

import (
	"testing"
	"unsafe"
)

// TestNodeSize: a walk over a million files leaves a million nodes, and the next size
// that the allocator has after 80 bytes is 96.
func TestNodeSize(t *testing.T) {
	if size := unsafe.Sizeof(Node{}); size > 80 {
		t.Errorf("a node takes %d bytes", size)
	}
}
