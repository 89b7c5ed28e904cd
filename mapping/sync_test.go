package mapping

import (
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/internal/need"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// failing returns system calls of which write-back fails while *fail is set, and
// counts the write-backs.
func failing(fail *bool, calls *int) *sys.System {
	sys := sys.New()
	real := *sys
	sys.Msync = func(mem []byte, flags int) error {
		*calls++
		if *fail {
			return os.NewSyscallError("msync", syscall.EIO)
		}
		return real.Msync(mem, flags)
	}
	return sys
}

// TestFailedWriteBackIsSticky: the kernel would report the failure once and then
// say that all is well, though the bytes are lost.
func TestFailedWriteBackIsSticky(t *testing.T) {
	var fail bool
	var calls int
	path := filepath.Join(t.TempDir(), "f")
	f := openTest(t, newTestTable(t, Config{}, failing(&fail, &calls)), path)
	mustWrite(t, f, filetest.Pattern(int(3*paging.PageSize), 1), 0)
	a, b, c := f.Failures(), f.Failures(), f.Failures()

	fail = true
	errnoIs(t, f.Sync(&a, true), syscall.EIO)
	if n := f.UnsyncedPages(); n != 3 {
		t.Errorf("after the failure %d pages are unsynced, want 3", n)
	}
	errnoIs(t, f.Sync(&a, true), syscall.EIO) // still failing

	fail = false
	if err := f.Sync(&a, true); err != nil {
		t.Errorf("a handle that knows of the failure, after it is over: %v", err)
	}
	if n := f.UnsyncedPages(); n != 0 {
		t.Errorf("%d pages are unsynced after a success", n)
	}
	errnoIs(t, f.Sync(&b, true), syscall.EIO) // another handle learns of it, once
	if err := f.Sync(&b, false); err != nil {
		t.Errorf("told twice: %v", err)
	}
	errnoIs(t, f.Sync(&c, false), syscall.EIO)
	late := f.Failures() // opened after it was over
	if err := f.Sync(&late, false); err != nil {
		t.Errorf("a handle opened later was told: %v", err)
	}
}

// TestRedirtyAfterFailure: success may only be reported after the pages were
// written again, so they must be dirty for the kernel when msync is called.
func TestRedirtyAfterFailure(t *testing.T) {
	dir, err := os.MkdirTemp(os.TempDir(), "mapping-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		need.Missing(t, "disk", "%s is on a filesystem that does not count dirty pages", dir)
	}
	sys := sys.New()
	real := *sys
	var f *File
	failures := 0
	sys.Msync = func(mem []byte, flags int) error {
		// The real call cleans the pages; then it is declared a failure, as
		// the kernel does with a device that lost them.
		if err := real.Msync(mem, flags); err != nil {
			return err
		}
		if failures < 2 {
			failures++
			return os.NewSyscallError("msync", syscall.EIO)
		}
		return nil
	}
	f = openTest(t, newTestTable(t, Config{}, sys), filepath.Join(dir, "f"))
	mustWrite(t, f, filetest.Pattern(int(8*paging.PageSize), 1), 0)
	seen := f.Failures()
	errnoIs(t, f.Sync(&seen, true), syscall.EIO)
	for name, unmap := range map[string]bool{"mapped": false, "unmapped": true} {
		if unmap && !f.Evict() {
			t.Fatal("the mapping could not be dropped")
		}
		f.syncMu.Lock()
		f.record.BeginSync(paging.Range{Off: 0, End: math.MaxInt64})
		err := f.redirty()
		f.record.EndSync(true)
		f.syncMu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		dirty, err := dirtyPages(f.fd, 8*paging.PageSize)
		if err != nil {
			need.Missing(t, "cachestat", "%v", err)
		}
		if dirty < 8 {
			t.Errorf("%s: the kernel counts %d dirty pages before the second write-back, want 8", name, dirty)
		}
		if err := unix.Fsync(f.fd); err != nil {
			t.Fatal(err)
		}
	}
}

// dirtyPages asks cachestat(2) for the dirty pages and those under write-back.
func dirtyPages(fd int, length int64) (uint64, error) {
	var cs unix.Cachestat_t
	err := unix.Cachestat(uint(fd), &unix.CachestatRange{Off: 0, Len: uint64(length)}, &cs, 0)
	return cs.Dirty + cs.Writeback, err
}

// TestWritesDuringSync: what is written while a write-back waits for the device
// does not wait for it, and stays unsynced.
func TestWritesDuringSync(t *testing.T) {
	sys := sys.New()
	real := *sys
	started, finish := make(chan struct{}), make(chan struct{})
	sys.Msync = func(mem []byte, flags int) error {
		close(started)
		<-finish
		return real.Msync(mem, flags)
	}
	f := openTest(t, newTestTable(t, Config{}, sys), filepath.Join(t.TempDir(), "f"))
	mustWrite(t, f, filetest.Pattern(int(4*paging.PageSize), 1), 0)
	done := make(chan error)
	go func() {
		seen := f.Failures()
		done <- f.Sync(&seen, true)
	}()
	<-started
	wrote := make(chan struct{})
	go func() {
		mustWrite(t, f, []byte("now"), paging.PageSize)     // overwrite
		mustWrite(t, f, []byte("now"), 4*paging.PageSize-1) // extend
		if n, err := f.ReadAt(make([]byte, 3), paging.PageSize); n != 3 || err != nil {
			t.Error(n, err)
		}
		if err := f.Truncate(2 * paging.PageSize); err != nil {
			t.Error(err)
		}
		close(wrote)
	}()
	select {
	case <-wrote:
	case <-time.After(10 * time.Second):
		t.Error("writes wait for the write-back")
	}
	close(finish)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-wrote
	if n := f.UnsyncedPages(); n != 1 {
		t.Errorf("%d pages are unsynced, want the one written meanwhile", n)
	}
}

// TestTimes: the time of modification is that of the last write, also when the
// write was a store into a page that was dirty already, and is never set back.
func TestTimes(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		p := filetest.Pattern(100, 1)
		var last, now unix.Stat_t
		mustWrite(t, f, p, 0)
		if err := f.Stat(&last); err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			time.Sleep(15 * time.Millisecond)
			mustWrite(t, f, p, 0)
			if err := f.Stat(&now); err != nil {
				t.Fatal(err)
			}
			if unix.TimespecToNsec(now.Mtim) <= unix.TimespecToNsec(last.Mtim) || unix.TimespecToNsec(now.Ctim) <= unix.TimespecToNsec(last.Ctim) {
				t.Errorf("write %d: mtime %v to %v, ctime %v to %v; want both later", i, last.Mtim, now.Mtim, last.Ctim, now.Ctim)
			}
			last = now
		}
		mustWrite(t, f, p, 0)
		time.Sleep(15 * time.Millisecond)
		if err := appendByOther(path, "later than our store"); err != nil {
			t.Fatal(err)
		}
		if err := unix.Stat(path, &last); err != nil {
			t.Fatal(err)
		}
		if err := f.Stat(&now); err != nil || now.Mtim != last.Mtim {
			t.Errorf("mtime was %v by another writer and became %v (%v)", last.Mtim, now.Mtim, err)
		}
	})
}
