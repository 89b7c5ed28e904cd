// Package filetest has what tests of files share.
package filetest

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/need"
)

// OnEachFS runs test on a disk filesystem and on tmpfs, which keep bytes past
// the end of a file differently.
func OnEachFS(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	for _, fs := range []struct{ name, parent string }{{"disk", os.TempDir()}, {"tmpfs", "/dev/shm"}} {
		t.Run(fs.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(fs.parent, "mapfs-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			if isTmpfs := st.Type == unix.TMPFS_MAGIC; isTmpfs != (fs.name == "tmpfs") {
				need.Missing(t, fs.name, "%s is on another filesystem", fs.parent)
			}
			test(t, dir)
		})
	}
}

// Pattern returns n bytes that differ from their neighbours at every period
// that could hide a misplaced copy. None of them is zero.
func Pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16) ^ seed | 1
	}
	return p
}

// SameBytes returns nil if the two are equal, and else where they differ first.
func SameBytes(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("lengths %d and %d, byte %d is %#x, want %#x", len(got), len(want), i, got[i], want[i])
		}
	}
	return fmt.Errorf("%d bytes, want %d", len(got), len(want))
}

// Boundaries are offsets and lengths around the page size, where mistakes live.
func Boundaries() []int64 {
	p := int64(os.Getpagesize())
	return []int64{0, 1, p - 1, p, p + 1, 2*p - 1, 2 * p, 2*p + 1, 5*p + 7}
}
