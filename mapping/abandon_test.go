package mapping

import (
	"bytes"
	"os"
	"testing"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
)

// TestAbandonUnsynced: what is abandoned is not unsynced, stays to be seen, and is not
// written until its page changes again, whether it lies in the file or past its end.
func TestAbandonUnsynced(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		page := int(paging.PageSize)
		old := filetest.Pattern(2*page, 1)
		f, path := modeFile(t, dir, Staged, old)
		engine := append(bytes.Clone(old), make([]byte, 2*page)...)
		write := func(text string, at int) {
			t.Helper()
			mustWrite(t, f, []byte(text), int64(at))
			copy(engine[at:], text)
		}
		sync := func() {
			t.Helper()
			seen := f.Failures()
			if err := f.Sync(&seen, false); err != nil {
				t.Fatal(err)
			}
		}
		write("first", 10)
		write("last", 4*page-4)
		if err := f.AbandonUnsynced(); err != nil {
			t.Fatal(err)
		}
		if n := f.UnsyncedPages(); n != 0 {
			t.Fatalf("%d pages are unsynced", n)
		}
		wantBoth(t, f, path, engine, old)

		sync() // brings the size, as a filesystem's journal does
		backing := append(bytes.Clone(old), make([]byte, 2*page)...)
		wantBoth(t, f, path, engine, backing)

		write("again", 20) // a page is written whole
		sync()
		copy(backing, engine[:page])
		wantBoth(t, f, path, engine, backing)

		if err := f.evictAbandoned(); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, backing, backing)
	})
}

// TestAbandonedMakesRoom: pages that no write-back writes do not hold up writers.
func TestAbandonedMakesRoom(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table := newTestTable(t, Config{Mode: Staged, DirtyLimit: 4 * paging.PageSize}, nil)
		path := dir + "/f"
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, table, path)
		full := filetest.Pattern(4*int(paging.PageSize), 3)
		mustWrite(t, f, full, 0)
		if err := f.AbandonUnsynced(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, full, 4*paging.PageSize)
		seen := f.Failures()
		if err := f.Sync(&seen, false); err != nil {
			t.Fatal(err)
		}
		want := append(make([]byte, len(full)), full...)
		wantBoth(t, f, path, want, want)
	})
}

// TestAbandonIsForStaged: elsewhere the kernel has the pages, or they go nowhere.
func TestAbandonIsForStaged(t *testing.T) {
	for _, mode := range []Mode{Shared, Private} {
		f, _ := modeFile(t, t.TempDir(), mode, []byte("old"))
		mustWrite(t, f, []byte("new"), 0)
		if err := f.AbandonUnsynced(); err == nil || f.UnsyncedPages() != 1 {
			t.Errorf("%v: %v, and %d pages are unsynced", mode, err, f.UnsyncedPages())
		}
	}
}
