package mapping

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// newTestTable returns a table that is closed, and found without leaks, at the
// end of the test.
func newTestTable(t testing.TB, cfg Config, sys *sys.System) *Table {
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
	if err := sys.Fstat(fd, &st); err != nil {
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
	got := make([]byte, len(want)+int(2*paging.PageSize))
	n, err := f.ReadAt(got, 0)
	if err != nil {
		t.Fatalf("ReadAt: %v", err)
	}
	if err := filetest.SameBytes(got[:n], want); err != nil {
		t.Fatalf("through the engine: %v", err)
	}
	direct, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := filetest.SameBytes(direct, want); err != nil {
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
