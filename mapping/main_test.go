package mapping

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/need"
)

// onEachFS runs test on a disk filesystem and on tmpfs, which keep bytes past
// the end of a file differently.
func onEachFS(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	for _, fs := range []struct{ name, parent string }{{"disk", os.TempDir()}, {"tmpfs", "/dev/shm"}} {
		t.Run(fs.name, func(t *testing.T) {
			dir, err := os.MkdirTemp(fs.parent, "mapping-test-")
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

// newTestTable returns a table that is closed, and found without leaks, at the
// end of the test.
func newTestTable(t testing.TB, cfg Config, sys *system) *Table {
	t.Helper()
	cfg.System = sys
	table := NewTable(cfg)
	t.Cleanup(func() {
		table.Close()
		if n, length := table.Mappings(); n != 0 || length != 0 {
			t.Errorf("after Close: %d mappings of %d bytes, want none", n, length)
		}
	})
	return table
}

// openTest opens path read-write, creating it, in the table.
func openTest(t testing.TB, table *Table, path string) *File {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFD(table, fd, true, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Release(false) })
	return f
}

// openFD gives a descriptor to the table.
func openFD(table *Table, fd int, readable, writable bool) (*File, error) {
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return nil, err
	}
	return table.Open(fd, &st, readable, writable)
}

// testFile is openTest in a table of its own.
func testFile(t testing.TB, dir string) (*File, string) {
	t.Helper()
	path := filepath.Join(dir, "f")
	return openTest(t, newTestTable(t, Config{}, nil), path), path
}

// pattern returns n bytes that differ from their neighbours at every period
// that could hide a misplaced copy.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i) ^ byte(i>>8)*31 ^ byte(i>>16) ^ seed | 1
	}
	return p
}

// mustWrite writes all of p at off.
func mustWrite(t testing.TB, f *File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off, Origin{}); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// wantContent checks the file through the engine, by read(2) and by its size.
func wantContent(t testing.TB, f *File, path string, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+int(2*PageSize))
	n, err := f.ReadAt(got, 0)
	if err != nil {
		t.Fatalf("ReadAt: %v", err)
	}
	if err := sameBytes(got[:n], want); err != nil {
		t.Fatalf("through the engine: %v", err)
	}
	direct, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameBytes(direct, want); err != nil {
		t.Fatalf("by read(2): %v", err)
	}
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil {
		t.Fatal(err)
	}
	if st.Size != int64(len(want)) || f.Size() != st.Size {
		t.Fatalf("Stat says %d bytes, Size %d, want %d", st.Size, f.Size(), len(want))
	}
}

// sameBytes says where got first differs from want.
func sameBytes(got, want []byte) error {
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

// errnoIs checks that err ends in the given errno.
func errnoIs(t testing.TB, err error, want syscall.Errno) {
	t.Helper()
	var got syscall.Errno
	if e, ok := err.(*os.SyscallError); ok {
		got, _ = e.Err.(syscall.Errno)
	}
	if got != want {
		t.Fatalf("error %v, want %v in an *os.SyscallError", err, want)
	}
}

// boundaries are offsets and lengths around the page size, where mistakes live.
func boundaries() []int64 {
	p := PageSize
	return []int64{0, 1, p - 1, p, p + 1, 2*p - 1, 2 * p, 2*p + 1, 5*p + 7}
}
