package mapping

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/internal/need"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// probeTest returns the kernel's sources for a directory.
func probeTest(t *testing.T, dir string) *pagestate.Sources {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	k := pagestate.Probe(fd)
	t.Cleanup(k.Close)
	return k
}

// inspectTest returns the flags of every page of a file.
func inspectTest(t *testing.T, f *File, k *pagestate.Sources) []pagestate.Flags {
	t.Helper()
	var flags []pagestate.Flags
	err := f.Inspect(k, 0, 1<<40, func(run pagestate.Run) bool {
		if run.First != int64(len(flags)) || run.End <= run.First {
			t.Fatalf("run %+v after %d pages", run, len(flags))
		}
		for range run.End - run.First {
			flags = append(flags, run.Flags)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// TestInspectFollowsTheFile: what is written is unsynced and, where the kernel
// says so, dirty; after Sync it is neither; a hole is nothing at all.
func TestInspectFollowsTheFile(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		for _, source := range []string{"cachestat", "mincore"} {
			k := probeTest(t, dir)
			tellsDirty := k.Cachestat == ""
			if source == "mincore" {
				k.UseMincore()
				tellsDirty = false // of pages in the page table only
			}
			path := filepath.Join(dir, source)
			f := openTest(t, newTestTable(t, Config{}, nil), path)
			mustWrite(t, f, filetest.Pattern(int(2*paging.PageSize), 1), 3*paging.PageSize)
			mustWrite(t, f, filetest.Pattern(5, 1), 100*paging.PageSize)
			flags := inspectTest(t, f, k)
			if len(flags) != 101 {
				t.Fatalf("%s: %d pages, want 101", source, len(flags))
			}
			written := map[int]bool{3: true, 4: true, 100: true}
			for page, got := range flags {
				if got&pagestate.Unsynced != 0 != written[page] {
					t.Errorf("%s: page %d is %v", source, page, got)
				}
				if written[page] && (got&pagestate.Resident == 0 || tellsDirty && got&(pagestate.Dirty|pagestate.Writeback) == 0) {
					t.Errorf("%s: page %d was written and is %v", source, page, got)
				}
				if got&pagestate.Tail != 0 != (page == 100) {
					t.Errorf("%s: page %d is %v, the end of the file is on 100", source, page, got)
				}
			}
			if got := f.UnsyncedBytes(); got != 2*paging.PageSize+5 {
				t.Errorf("%d bytes unsynced, want %d", got, 2*paging.PageSize+5)
			}
			seen := f.Failures()
			if err := f.Sync(&seen, false); err != nil {
				t.Fatal(err)
			}
			for page, got := range inspectTest(t, f, k) {
				if got&(pagestate.Unsynced|pagestate.Dirty) != 0 {
					t.Errorf("%s: after Sync page %d is %v", source, page, got)
				}
			}
		}
	})
}

// TestKernelDoesNotContradict: on a filesystem that counts dirty pages, a page
// that the kernel calls dirty after writes of ours is one the record calls
// unsynced.
func TestKernelDoesNotContradict(t *testing.T) {
	dir := t.TempDir()
	k := probeTest(t, dir)
	if k.Cachestat != "" {
		need.Missing(t, "cachestat", "%s", k.Cachestat)
	}
	f := openTest(t, newTestTable(t, Config{}, nil), filepath.Join(dir, "f"))
	mustWrite(t, f, filetest.Pattern(int(64*paging.PageSize), 1), 0)
	seen := f.Failures()
	for round := range int64(20) {
		if err := f.Sync(&seen, true); err != nil {
			t.Fatal(err)
		}
		off := round * 3 * paging.PageSize
		for range 3 { // by pwrite, by the kernel's hand, by ours
			mustWrite(t, f, []byte("x"), off)
		}
		for page, got := range inspectTest(t, f, k) {
			if unsynced := int64(page) == off/paging.PageSize; got&pagestate.Unsynced != 0 != unsynced {
				t.Errorf("round %d: page %d is %v", round, page, got)
			}
		}
	}
}

// TestInspectHugeSparse: the time follows the runs and not the pages.
func TestInspectHugeSparse(t *testing.T) {
	dir := t.TempDir()
	k := probeTest(t, dir)
	if !k.UsesCachestat() {
		need.Missing(t, "cachestat", "%s", k.Cachestat)
	}
	f := openTest(t, newTestTable(t, Config{}, nil), filepath.Join(dir, "f"))
	const size = 1 << 40
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, []byte("x"), size/2)
	runs := 0
	err := f.Inspect(k, 0, size/paging.PageSize, func(pagestate.Run) bool { runs++; return true })
	if err != nil || runs < 3 || runs > 10 {
		t.Errorf("%d runs, %v", runs, err)
	}
	// The record has a chunk for what was written, and no more.
	if n := f.record.Chunks(); n > 2 {
		t.Errorf("the record of three pages has %d chunks", n)
	}
}

// TestReadMemory shows whole pages: the bytes after the end of the file are
// there, and zero.
func TestReadMemory(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, _ := testFile(t, dir)
		mustWrite(t, f, []byte("hello"), paging.PageSize)
		got := make([]byte, 3*paging.PageSize)
		n, err := f.ReadMemory(got, 0)
		want := make([]byte, 2*paging.PageSize)
		copy(want[paging.PageSize:], "hello")
		if err != nil || filetest.SameBytes(got[:n], want) != nil {
			t.Errorf("%d bytes, %v, %v", n, err, filetest.SameBytes(got[:n], want))
		}
		if n, err := f.ReadMemory(got, 2*paging.PageSize); n != 0 || err != nil {
			t.Errorf("past the last page: %d, %v", n, err)
		}
		if n, err := f.ReadMemory(got[:3], 2*paging.PageSize-2); n != 2 || err != nil {
			t.Errorf("across the end of the last page: %d, %v", n, err)
		}
	})
}

// TestUnsyncedOutlivesTheFile: a closed file's bytes are no safer than before.
func TestUnsyncedOutlivesTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	table := newTestTable(t, Config{}, nil)
	f := use(t, table, path, false) // writes, and is given up
	id := f.ID()
	unsynced := func() (text string) {
		table.Unsynced(id, 1, func(g paging.Range, cause dirty.Cause) bool {
			text += g.String() + string(cause)
			return true
		})
		return text
	}
	if got := unsynced(); got != "[0x0, 0x1)write" || table.UnsyncedBytes() != 1 {
		t.Errorf("after the close: %q, %d bytes", got, table.UnsyncedBytes())
	}
	g := openTest(t, table, path)
	if got := unsynced(); got != "[0x0, 0x1)write" || g == f {
		t.Errorf("open again: %q", got)
	}
	seen := g.Failures()
	if err := g.Sync(&seen, false); err != nil {
		t.Fatal(err)
	}
	if got := unsynced(); got != "" {
		t.Errorf("after Sync: %q", got)
	}

	// Written back as a whole: only a success counts.
	other := use(t, table, filepath.Join(dir, "g"), false)
	fails := os.NewSyscallError("syncfs", syscall.EIO)
	if err := table.SyncClosed(func() error { return fails }); err == nil {
		t.Error("the failure was swallowed")
	}
	if table.UnsyncedBytes() != 1 {
		t.Error("a failure made the bytes safe")
	}
	if err := table.SyncClosed(func() error { return nil }); err != nil || table.UnsyncedBytes() != 0 {
		t.Errorf("%v, %d bytes unsynced", err, table.UnsyncedBytes())
	}
	_ = other

	// Gone for good.
	gone := use(t, table, filepath.Join(dir, "h"), false)
	table.Forget(gone.ID(), true)
	if n := table.UnsyncedBytes(); n != 0 {
		t.Errorf("%d bytes of a removed file are unsynced", n)
	}
}

// TestLockedFilesStay: mlock promises that the pages stay in memory, so the file
// stays mapped when nobody uses it.
func TestLockedFilesStay(t *testing.T) {
	dir := t.TempDir()
	table := newTestTable(t, Config{MaxIdle: 1}, nil)
	path := filepath.Join(dir, "locked")
	f := use(t, table, path, true)
	if !f.Ref() {
		f = table.Find(f.ID())
	}
	if err := f.Mlock(0, 0); err != nil {
		need.Missing(t, "mlock", "%v", err)
	}
	f.Release(false)
	for _, name := range []string{"a", "b", "c"} {
		use(t, table, filepath.Join(dir, name), true)
	}
	table.Forget(f.ID(), false)
	g := table.Find(f.ID())
	if g != f {
		t.Fatal("a file with locked pages was given up")
	}
	if addr, _, _ := g.Mapped(); addr == 0 {
		t.Error("a file with locked pages was unmapped")
	}
	if err := g.Munlock(0, 0); err != nil {
		t.Fatal(err)
	}
	g.Release(false)
	if g := table.Find(f.ID()); g != nil {
		g.Unref()
		t.Error("the file is kept after munlock")
	}
}

func TestCommands(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		want := filetest.Pattern(int(4*paging.PageSize)-7, 3)
		mustWrite(t, f, want, 0)
		if err := f.Msync(paging.PageSize, paging.PageSize, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		var left []string
		f.Unsynced(func(g paging.Range, _ dirty.Cause) bool { left = append(left, g.String()); return true })
		if got := strings.Join(left, " "); got != "[0x0, 0x1000) [0x2000, 0x3ff9)" && paging.PageSize == 4096 {
			t.Errorf("after msync of the second page %s is unsynced", got)
		}
		if err := f.Msync(0, 0, unix.MS_ASYNC); err != nil {
			t.Fatal(err)
		}
		if f.UnsyncedPages() != 3 {
			t.Error("MS_ASYNC made pages safe")
		}
		for _, c := range []struct {
			off, length int64
			flags       int
			want        syscall.Errno
		}{
			{1, 0, unix.MS_SYNC, syscall.EINVAL},
			{0, 0, unix.MS_SYNC | unix.MS_ASYNC, syscall.EINVAL},
			{0, 0, 64, syscall.EINVAL},
			{-paging.PageSize, 0, unix.MS_SYNC, syscall.EINVAL},
			{0, 5 * paging.PageSize, unix.MS_SYNC, syscall.ENOMEM},
			{4 * paging.PageSize, paging.PageSize, unix.MS_SYNC, syscall.ENOMEM},
			{0, 1<<63 - 1, unix.MS_SYNC, syscall.ENOMEM},
			{4 * paging.PageSize, 0, unix.MS_SYNC, syscall.ENOMEM},
		} {
			errnoIs(t, f.Msync(c.off, c.length, c.flags), c.want)
		}
		if err := f.Mlock(0, paging.PageSize); err != nil {
			need.Missing(t, "mlock", "%v", err)
		}
		errnoIs(t, f.Msync(0, 0, unix.MS_INVALIDATE), syscall.EBUSY)
		if f.Evict() {
			t.Error("a mapping with locked pages was dropped")
		}
		if err := f.Munlock(0, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Msync(0, 0, unix.MS_INVALIDATE); err != nil {
			t.Error(err)
		}
		for _, advice := range []int{unix.MADV_DONTNEED, unix.MADV_WILLNEED, unix.MADV_COLD, unix.MADV_PAGEOUT} {
			if err := f.Madvise(0, 0, advice); err != nil {
				t.Errorf("madvise %d: %v", advice, err)
			}
			wantContent(t, f, path, want)
		}
	})
}
