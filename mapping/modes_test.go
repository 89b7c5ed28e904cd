package mapping

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// modeFile is testFile in a mode that copies, of a file with the given bytes.
func modeFile(t testing.TB, dir string, mode Mode, content []byte) (*File, string) {
	t.Helper()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return openTest(t, newTestTable(t, Config{Mode: mode}, nil), path), path
}

// wantBoth checks what the engine shows and what the backing file has.
func wantBoth(t testing.TB, f *File, path string, engine, backing []byte) {
	t.Helper()
	got := make([]byte, len(engine)+int(paging.PageSize))
	n, err := f.ReadAt(got, 0)
	if err != nil || filetest.SameBytes(got[:n], engine) != nil {
		t.Fatalf("through the engine: %v, %v", err, filetest.SameBytes(got[:n], engine))
	}
	direct, err := os.ReadFile(path)
	if err != nil || filetest.SameBytes(direct, backing) != nil {
		t.Fatalf("the backing file: %v, %v", err, filetest.SameBytes(direct, backing))
	}
}

func TestPrivateNeverReachesTheFile(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		old := filetest.Pattern(3*int(paging.PageSize)+10, 1)
		f, path := modeFile(t, dir, Private, old)
		want := append([]byte(nil), old...)
		mustWrite(t, f, []byte("changed"), paging.PageSize-3)
		copy(want[paging.PageSize-3:], "changed")
		mustWrite(t, f, []byte("far"), 10*paging.PageSize)
		want = append(want, make([]byte, 10*int(paging.PageSize)-len(want))...)
		want = append(want, "far"...)
		wantBoth(t, f, path, want, old)
		failures := f.Failures()
		if err := f.Sync(&failures, false); err != nil {
			t.Fatal(err)
		}
		if err := f.Msync(0, 0, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, want, old)
		if f.Evict() {
			t.Fatal("a mapping with copies was given up")
		}
		if err := f.Truncate(100); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(2 * paging.PageSize); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, append(append([]byte(nil), old[:100]...), make([]byte, 2*paging.PageSize-100)...), old)
		if err := f.SetMode(Shared); !errors.Is(err, syscall.EBUSY) {
			t.Fatalf("SetMode with copies: %v, want EBUSY", err)
		}
		if err := f.Msync(0, 0, unix.MS_INVALIDATE); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, old, old)
		if err := f.SetMode(Shared); err != nil {
			t.Fatal(err)
		}
	})
}

func TestStagedReachesTheFileWhenSynced(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		old := filetest.Pattern(2*int(paging.PageSize), 1)
		f, path := modeFile(t, dir, Staged, old)
		want := append([]byte(nil), old...)
		var backing []byte
		for round := range 20 {
			backing = append([]byte(nil), want...)
			at := round * 3000
			data := filetest.Pattern(5000, byte(round))
			mustWrite(t, f, data, int64(at))
			if end := at + len(data); end > len(want) {
				want = append(want, make([]byte, end-len(want))...)
			}
			copy(want[at:], data)
			wantBoth(t, f, path, want, backing)
			failures := f.Failures()
			if err := f.Sync(&failures, false); err != nil {
				t.Fatal(err)
			}
			wantBoth(t, f, path, want, want)
			if n := f.table.copied.Taken(); n != 0 || f.held.Load() {
				t.Fatalf("round %d: %d pages are copied after the write-back, held: %v", round, n, f.held.Load())
			}
		}
	})
}

// TestWriteBackShowsNoChange: for who has the file open nothing happens to it when
// it is written back; tar would say that it changed as it was read.
func TestWriteBackShowsNoChange(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := modeFile(t, dir, Staged, nil)
		for range 3 {
			mustWrite(t, f, []byte("hello"), f.Size())
			var before, after, looked unix.Stat_t
			if err := f.Stat(&before); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				time.Sleep(20 * time.Millisecond) // more than a step of the kernel's clock
				failures := f.Failures()
				if err := f.Sync(&failures, false); err != nil {
					t.Fatal(err)
				}
				if err := f.Stat(&after); err != nil {
					t.Fatal(err)
				}
				if err := unix.Stat(path, &looked); err != nil {
					t.Fatal(err)
				}
				if looked.Ctim == before.Ctim {
					t.Fatal("the write-back has not changed the inode: this shows nothing")
				}
				if got := f.table.Get(&looked, true); got != f {
					t.Fatal("the file was taken for one that others have changed")
				}
				f.Release(true)
				f.table.StatHeld(&looked, unix.AT_FDCWD, path)
				if after.Ctim != before.Ctim || after.Mtim != before.Mtim || looked.Ctim != before.Ctim || looked.Mtim != before.Mtim {
					t.Fatalf("before %v %v, after %v %v, looked up %v %v", before.Ctim, before.Mtim, after.Ctim, after.Mtim, looked.Ctim, looked.Mtim)
				}
			}
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		var inode, shown unix.Stat_t
		if err := unix.Stat(path, &inode); err != nil {
			t.Fatal(err)
		}
		if err := f.Stat(&shown); err != nil || shown.Ctim != inode.Ctim {
			t.Errorf("after chmod: %v, %v, want %v", shown.Ctim, err, inode.Ctim)
		}
	})
}

// TestStagedAsyncIsNotOnTheDevice: MS_ASYNC brings the bytes to the file, and not
// to the device.
func TestStagedAsyncIsNotOnTheDevice(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := modeFile(t, dir, Staged, filetest.Pattern(int(paging.PageSize), 1))
		want := filetest.Pattern(int(paging.PageSize), 2)
		mustWrite(t, f, want, 0)
		if err := f.Msync(0, 0, unix.MS_ASYNC); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, want, want)
		if f.UnsyncedPages() != 1 || f.table.copied.Taken() != 0 {
			t.Fatalf("unsynced %d, copied %d, want 1 and 0", f.UnsyncedPages(), f.table.copied.Taken())
		}
		failures := f.Failures()
		if err := f.Sync(&failures, true); err != nil || f.UnsyncedPages() != 0 {
			t.Fatalf("after Sync: %v, %d unsynced", err, f.UnsyncedPages())
		}
	})
}

// TestGrowthMovesCopies: a file that outgrows its span keeps every copied page.
func TestGrowthMovesCopies(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		old := filetest.Pattern(100<<10, 1)
		f, path := modeFile(t, dir, Staged, old)
		want := append([]byte(nil), old...)
		for size := 100 << 10; size < 4<<20; size *= 3 {
			data := filetest.Pattern(7000, byte(size>>12))
			mustWrite(t, f, data, int64(size))
			want = append(want, make([]byte, size+len(data)-len(want))...)
			copy(want[size:], data)
			mustWrite(t, f, data[:100], int64(size/2))
			copy(want[size/2:], data[:100])
		}
		wantBoth(t, f, path, want, old)
		failures := f.Failures()
		if err := f.Sync(&failures, false); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, want, want)
	})
}

// TestHeldFilesStay: what only the engine has survives that nobody uses the file.
func TestHeldFilesStay(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table := newTestTable(t, Config{Mode: Private, MaxIdle: 10}, nil)
		var ids []ID
		for i := range 5 {
			path := filepath.Join(dir, string(rune('a'+i)))
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			f, err := openFD(table, fd, true, true)
			if err != nil {
				t.Fatal(err)
			}
			mustWrite(t, f, []byte{byte(i)}, 0)
			ids = append(ids, f.ID())
			f.Release(false)
			table.Forget(f.ID(), false)
		}
		for i, id := range ids {
			f := table.Find(id)
			if f == nil {
				t.Fatalf("file %d is gone", i)
			}
			var p [2]byte
			if n, err := f.ReadAt(p[:], 0); n != 1 || err != nil || p[0] != byte(i) {
				t.Fatalf("file %d: %d bytes, %v, %d", i, n, err, p[0])
			}
			f.Unref()
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "a"), &st); err != nil {
			t.Fatal(err)
		}
		if table.StatHeld(&st, unix.AT_FDCWD, filepath.Join(dir, "a")); st.Size != 1 {
			t.Errorf("StatHeld: size %d, want 1", st.Size)
		}
		// A file without a name is nobody's.
		if err := os.Remove(filepath.Join(dir, "a")); err != nil {
			t.Fatal(err)
		}
		table.Forget(ids[0], true)
		if f := table.Find(ids[0]); f != nil {
			t.Error("a removed file is kept")
		}
		if n := table.copied.Taken(); n != 4 {
			t.Errorf("%d pages are counted as copied, want 4", n)
		}
	})
}

func TestDirtyLimit(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		const limit = 64
		table := newTestTable(t, Config{Mode: Staged, DirtyLimit: limit * paging.PageSize}, nil)
		files := make([]*File, 4)
		for i := range files {
			files[i] = openTest(t, table, filepath.Join(dir, string(rune('a'+i))))
		}
		page := filetest.Pattern(int(paging.PageSize), 1)
		for i := range int64(3 * limit) {
			mustWrite(t, files[i%4], page, i/4*paging.PageSize)
			if n := table.copied.Taken(); n > limit {
				t.Fatalf("%d pages are copied, the limit is %d", n, limit)
			}
		}
		for _, f := range files {
			got := make([]byte, 3*limit/4*paging.PageSize)
			if n, err := f.ReadAt(got, 0); n != len(got) || err != nil || filetest.SameBytes(got, bytes.Repeat(page, 3*limit/4)) != nil {
				t.Fatalf("ReadAt: %d, %v", n, err)
			}
		}
		// Private copies go nowhere.
		f := openTest(t, table, filepath.Join(dir, "private"))
		if err := f.SetMode(Private); err != nil {
			t.Fatal(err)
		}
		for i := range int64(limit) {
			mustWrite(t, f, page, i*paging.PageSize)
		}
		if _, err := f.WriteAt(page, limit*paging.PageSize, Origin{}); !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("a private write over the limit: %v, want ENOMEM", err)
		}
	})
}

// TestZeroesStayInTheBudget: to punch out more than the memory may hold writes back
// on the way, and what is a hole takes no memory at all.
func TestZeroesStayInTheBudget(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		const pages, limit = 2000, 512
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, filetest.Pattern(pages*int(paging.PageSize), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, newTestTable(t, Config{Mode: Staged, DirtyLimit: limit * paging.PageSize}, nil), path)
		punch := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		if err := f.Allocate(punch, 10, (pages-1)*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if n := f.table.copied.Taken(); n > limit {
			t.Errorf("%d pages are copied, the limit is %d", n, limit)
		}
		want := filetest.Pattern(pages*int(paging.PageSize), 1)
		clear(want[10 : 10+(pages-1)*paging.PageSize])
		failures := f.Failures()
		if err := f.Sync(&failures, true); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, want, want)
		if err := f.Allocate(punch, 0, pages*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if n := f.table.copied.Taken(); n != 2 {
			t.Errorf("%d pages are copied for the two that were not zero", n)
		}
	})
}

// TestCutBehindCopies: somebody cuts the backing file, and the kernel takes copied
// pages with it. That is an error for who reads them, and no more.
func TestCutBehindCopies(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := modeFile(t, dir, Staged, filetest.Pattern(4*int(paging.PageSize), 1))
		mustWrite(t, f, []byte("lost"), 2*paging.PageSize)
		mustWrite(t, f, []byte("the size is ours"), 5*paging.PageSize)
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if _, err := f.ReadAt(p, 2*paging.PageSize); !errors.Is(err, syscall.EIO) {
			t.Errorf("a copied page that is gone: %v, want EIO", err)
		}
		if n, err := f.ReadAt(p, paging.PageSize); n != 4 || err != nil || !bytes.Equal(p, make([]byte, 4)) {
			t.Errorf("a page of the file that is gone: %d, %v, %q, want zeros", n, err, p)
		}
		if n, err := f.ReadAt(p, 5*paging.PageSize); n != 4 || err != nil || string(p) != "the " {
			t.Errorf("a page past the file: %d, %v, %q", n, err, p)
		}
		if f.Counters().Faults.Load() == 0 {
			t.Error("no fault is counted")
		}
		if err := f.Msync(0, 0, unix.MS_INVALIDATE); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, filetest.Pattern(100, 1), filetest.Pattern(100, 1))
	})
}

// TestFailedStagedSync: a write-back that fails keeps the bytes, and the next one
// has them all.
func TestFailedStagedSync(t *testing.T) {
	for _, call := range []string{"pwrite", "ftruncate", "fdatasync"} {
		t.Run(call, func(t *testing.T) {
			filetest.OnEachFS(t, func(t *testing.T, dir string) {
				sys := sys.New()
				fail := true
				pwrite, ftruncate, fdatasync := sys.Pwrite, sys.Ftruncate, sys.Fdatasync
				failing := func(name string) error {
					if fail && name == call {
						return os.NewSyscallError(name, syscall.EIO)
					}
					return nil
				}
				sys.Pwrite = func(fd int, p []byte, off int64) (int, error) {
					if err := failing("pwrite"); err != nil {
						return 0, err
					}
					return pwrite(fd, p, off)
				}
				sys.Ftruncate = func(fd int, size int64) error {
					if err := failing("ftruncate"); err != nil {
						return err
					}
					return ftruncate(fd, size)
				}
				sys.Fdatasync = func(fd int) error {
					if err := failing("fdatasync"); err != nil {
						return err
					}
					return fdatasync(fd)
				}
				path := filepath.Join(dir, "f")
				if err := os.WriteFile(path, filetest.Pattern(3*int(paging.PageSize), 1), 0o600); err != nil {
					t.Fatal(err)
				}
				f := openTest(t, newTestTable(t, Config{Mode: Staged}, sys), path)
				if err := f.Truncate(50); err != nil {
					t.Fatal(err)
				}
				mustWrite(t, f, []byte("end"), 2*paging.PageSize)
				want := append(filetest.Pattern(50, 1), make([]byte, 2*paging.PageSize-50)...)
				want = append(want, "end"...)
				seen := f.Failures()
				if err := f.Sync(&seen, true); !errors.Is(err, syscall.EIO) {
					t.Fatalf("Sync: %v, want EIO", err)
				}
				got := make([]byte, len(want)+1)
				if n, err := f.ReadAt(got, 0); err != nil || filetest.SameBytes(got[:n], want) != nil {
					t.Fatalf("after the failure: %v, %v", err, filetest.SameBytes(got[:n], want))
				}
				if f.UnsyncedPages() == 0 {
					t.Fatal("nothing is unsynced after a failure")
				}
				fail = false
				if err := f.Sync(&seen, true); err != nil {
					t.Fatalf("the second Sync: %v", err)
				}
				wantBoth(t, f, path, want, want)
			})
		})
	}
}

// TestStagedConcurrently stores, grows and syncs at once; nothing is lost.
func TestStagedConcurrently(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := modeFile(t, dir, Staged, nil)
		const (
			writers = 4
			rounds  = 300
			block   = 1500 // blocks of different writers share pages
		)
		var group, syncer sync.WaitGroup
		stop := make(chan struct{})
		syncer.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := f.Failures()
				if err := f.Sync(&seen, true); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for w := range writers {
			group.Go(func() {
				for i := range rounds {
					at := int64((i%100*writers + w) * block)
					if n, err := f.WriteAt(filetest.Pattern(block, byte(w+i)), at, Origin{}); n != block || err != nil {
						t.Errorf("WriteAt: %d, %v", n, err)
						return
					}
				}
			})
		}
		group.Wait()
		close(stop)
		syncer.Wait()
		want := make([]byte, 0, 100*writers*block)
		for i := rounds - 100; i < rounds; i++ {
			for w := range writers {
				want = append(want, filetest.Pattern(block, byte(w+i))...)
			}
		}
		seen := f.Failures()
		if err := f.Sync(&seen, false); err != nil {
			t.Fatal(err)
		}
		wantBoth(t, f, path, want, want)
		if n := f.table.copied.Taken(); n != 0 {
			t.Errorf("%d pages are counted as copied after all is synced", n)
		}
	})
}

// TestDirtyLimitIsShared: an owner whose files take all they may leaves memory to
// those of another, and is the one who waits or is refused.
func TestDirtyLimitIsShared(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		const limit = 50
		page := filetest.Pattern(int(paging.PageSize), 1)
		for _, mode := range []Mode{Private, Staged} {
			table := newTestTable(t, Config{Mode: mode, DirtyLimit: limit * paging.PageSize, ManyUsers: true}, nil)
			hog := openTest(t, table, filepath.Join(dir, "hog-"+mode.String()))
			other := openTest(t, table, filepath.Join(dir, "other-"+mode.String()))
			hog.owner, other.owner = 1000, 2000
			var err error
			written := int64(0)
			for ; err == nil && written < 2*limit; written++ {
				_, err = hog.WriteAt(page, written*paging.PageSize, Origin{})
				if n := table.copied.Held(hog.owner); n > limit*4/5 {
					t.Fatalf("%v: %d of %d pages belong to one owner", mode, n, limit)
				}
			}
			if mode == Private && !errors.Is(err, syscall.ENOMEM) || mode == Staged && err != nil {
				t.Errorf("%v: the hog's last write: %v", mode, err)
			}
			hogs := table.copied.Held(hog.owner)
			for i := range table.copied.Held(hog.owner) / 8 {
				mustWrite(t, other, page, i*paging.PageSize)
			}
			if n := table.copied.Held(hog.owner); n != hogs {
				t.Errorf("%v: another's writes took %d of the hog's %d pages", mode, hogs-n, hogs)
			}
		}
	})
}
