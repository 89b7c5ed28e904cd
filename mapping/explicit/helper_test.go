package explicit

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// newTestTable returns a table that is closed, and found without leaks, at the
// end of the test.
func newTestTable(t testing.TB, cfg mapping.Config) *mapping.Table {
	t.Helper()
	table := mapping.NewTable(cfg)
	t.Cleanup(func() {
		table.Close()
		if n, length := table.Mappings(); n != 0 || length != 0 {
			t.Errorf("after Close: %d mappings of %d bytes, want none", n, length)
		}
	})
	return table
}

// openTest opens path read-write, creating it, in the table.
func openTest(t testing.TB, table *mapping.Table, path string) *mapping.File {
	t.Helper()
	f, err := table.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Release(false) })
	return f
}

// reopen opens path, which the caller releases.
func reopen(t testing.TB, table *mapping.Table, path string) *mapping.File {
	t.Helper()
	f, err := table.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// openFD gives a descriptor to the table.
func openFD(table *mapping.Table, fd int) (*mapping.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	return table.Open(fd, &st, true, true)
}

// mustWrite writes all of p at off.
func mustWrite(t testing.TB, f *mapping.File, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(p, off, mapping.Origin{}); n != len(p) || err != nil {
		t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p), off, n, err)
	}
}

// wantContent checks the file through the engine, by read(2) and by its size.
func wantContent(t testing.TB, f *mapping.File, path string, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+int(2*paging.PageSize))
	n, err := f.ReadAt(got, 0)
	if err == nil {
		err = filetest.SameBytes(got[:n], want)
	}
	if err != nil {
		t.Fatalf("through the engine: %v", err)
	}
	direct, err := os.ReadFile(path)
	if err == nil {
		err = filetest.SameBytes(direct, want)
	}
	if err != nil {
		t.Fatalf("by read(2): %v", err)
	}
	if f.Size() != int64(len(want)) {
		t.Fatalf("Size %d, want %d", f.Size(), len(want))
	}
}

// errnoOf returns the errno at the bottom of an error, or 0.
func errnoOf(err error) (errno syscall.Errno) {
	errors.As(err, &errno)
	return errno
}
