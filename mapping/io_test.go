package mapping

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/internal/need"
	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// TestWriteReadSweep writes every combination of offset and length around the
// page size, to files of every size around it.
func TestWriteReadSweep(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		for _, size := range filetest.Boundaries() {
			for _, off := range filetest.Boundaries() {
				for _, length := range filetest.Boundaries() {
					if err := f.Truncate(0); err != nil {
						t.Fatal(err)
					}
					base := filetest.Pattern(int(size), 3)
					mustWrite(t, f, base, 0)
					p := filetest.Pattern(int(length), 77)
					mustWrite(t, f, p, off)
					want := base
					if length > 0 {
						want = make([]byte, max(size, off+length))
						copy(want, base)
						copy(want[off:], p)
					}
					wantContent(t, f, path, want)
				}
			}
		}
	})
}

// TestRepeatedWrites takes a page through every way a write can go: by
// pwrite, by process_vm_writev, by a plain store, before and after write-back.
func TestRepeatedWrites(t *testing.T) {
	for _, noVMWrite := range []bool{false, true} {
		filetest.OnEachFS(t, func(t *testing.T, dir string) {
			f, path := testFile(t, dir)
			f.table.vmwriteOff.Store(noVMWrite)
			want := filetest.Pattern(int(3*paging.PageSize), 1)
			mustWrite(t, f, want, 0)
			seen := f.Failures()
			for round := range 12 {
				p := filetest.Pattern(int(paging.PageSize)+3, byte(round))
				off := paging.PageSize/2 + int64(round)
				mustWrite(t, f, p, off)
				copy(want[off:], p)
				wantContent(t, f, path, want)
				if round%5 == 4 {
					if err := f.Sync(&seen, round%2 == 0); err != nil {
						t.Fatal(err)
					}
					if n := f.UnsyncedPages(); n != 0 {
						t.Fatalf("%d unsynced pages after Sync", n)
					}
				}
			}
			if !f.record.All(paging.Range{Off: paging.PageSize, End: 2 * paging.PageSize}, dirty.Stored) {
				t.Error("a page written many times was never stored to through the mapping")
			}
		})
	}
}

func TestTruncateZeroFills(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		for _, down := range filetest.Boundaries() {
			for _, up := range filetest.Boundaries() {
				full := filetest.Pattern(int(6*paging.PageSize), 9)
				mustWrite(t, f, full, 0)
				if err := f.Truncate(down); err != nil {
					t.Fatal(err)
				}
				wantContent(t, f, path, full[:down])
				if err := f.Truncate(up); err != nil {
					t.Fatal(err)
				}
				want := make([]byte, up)
				copy(want, full[:min(down, up)])
				wantContent(t, f, path, want)
			}
		}
		errnoIs(t, f.Truncate(-1), syscall.EINVAL)
	})
}

// TestTailStoredByOthersIsCleared: somebody stores past the end of the file
// inside its last page, through a mapping of their own. On tmpfs the bytes stay
// and would reappear when the file grows.
func TestTailStoredByOthersIsCleared(t *testing.T) {
	grow := map[string]func(f *File) error{
		"truncate": func(f *File) error { return f.Truncate(2 * paging.PageSize) },
		"write past the end": func(f *File) error {
			_, err := f.WriteAt([]byte("x"), 2*paging.PageSize-1, Origin{})
			return err
		},
		"fallocate": func(f *File) error { return f.Allocate(0, 0, 2*paging.PageSize) },
	}
	for name, fn := range grow {
		t.Run(name, func(t *testing.T) {
			filetest.OnEachFS(t, func(t *testing.T, dir string) {
				f, path := testFile(t, dir)
				mustWrite(t, f, []byte("hel"), 0)
				storeByOther(t, path, "sneaked in", 5)
				if err := fn(f); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 2*paging.PageSize-1)
				if n, err := f.ReadAt(got, 0); n != len(got) || err != nil {
					t.Fatal(n, err)
				}
				want := make([]byte, len(got))
				copy(want, "hel")
				if err := filetest.SameBytes(got, want); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// storeByOther stores text at off through a mapping that the engine does not
// know.
func storeByOther(t *testing.T, path, text string, off int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, int(paging.PageSize), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	copy(mem[off:], text)
}

// TestTruncatedBehind: the file becomes shorter by somebody else's hand while it
// is mapped. Reads end where it ends now; writes make it longer again.
func TestTruncatedBehind(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		full := filetest.Pattern(int(4*paging.PageSize), 5)
		mustWrite(t, f, full, 0)
		mustWrite(t, f, full, 0)
		mustWrite(t, f, full, 0) // warm: by stores
		wantContent(t, f, path, full)
		if err := os.Truncate(path, paging.PageSize+1); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4*paging.PageSize)
		n, err := f.ReadAt(got, 0)
		if err != nil || filetest.SameBytes(got[:n], full[:paging.PageSize+1]) != nil {
			t.Fatalf("read %d bytes, %v; want the %d that are left", n, err, paging.PageSize+1)
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, full[:10], 3*paging.PageSize)
		if n, err := f.ReadAt(got, 3*paging.PageSize); n != 10 || err != nil {
			t.Fatalf("after a write past the cut: %d, %v", n, err)
		}
		want := make([]byte, 3*paging.PageSize+10)
		copy(want[3*paging.PageSize:], full[:10])
		wantContent(t, f, path, want)
	})
}

// TestGrownBehind: what others append is there to be read, and an append of ours
// comes after it.
func TestGrownBehind(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		mustWrite(t, f, []byte("one"), 0)
		if err := appendByOther(path, "two"); err != nil {
			t.Fatal(err)
		}
		off, n, err := f.Append([]byte("three"), Origin{})
		if off != 6 || n != 5 || err != nil {
			t.Fatalf("Append = %d, %d, %v", off, n, err)
		}
		wantContent(t, f, path, []byte("onetwothree"))
	})
}

func appendByOther(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	file.Close()
	return err
}

// smallTmpfs mounts a tmpfs of the given size for the test.
func smallTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		need.Missing(t, "tmpfs", "it cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFullFilesystem fills a filesystem three ways. Each time the writer is told
// and the size is what was written.
func TestFullFilesystem(t *testing.T) {
	dir := smallTmpfs(t, "1m")
	table := newTestTable(t, Config{}, nil)
	f := openTest(t, table, filepath.Join(dir, "f"))

	t.Run("a hole in a mapped file", func(t *testing.T) {
		const size = 4 << 20
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, paging.PageSize)
		stored := 0
		p := filetest.Pattern(int(paging.PageSize), 8)
		var err error
		for off := int64(0); off < size; off += paging.PageSize {
			var n int
			// The record calls the page warm, so that the write is a store.
			f.record.Set(paging.Range{Off: off, End: off + paging.PageSize}, dirty.Written|dirty.Stored)
			if n, err = f.WriteAt(p, off, Origin{}); err != nil {
				break
			}
			stored += n
		}
		errnoIs(t, err, syscall.ENOSPC)
		if stored == 0 || stored > 1<<20 {
			t.Errorf("%d bytes fit into 1 MiB", stored)
		}
		if n, err := f.ReadAt(got, 0); n != len(got) || err != nil || filetest.SameBytes(got, p) != nil {
			t.Error("what was stored before is not there", n, err)
		}
		if f.Size() != size {
			t.Errorf("size %d, want %d", f.Size(), size)
		}
	})
	t.Run("growing", func(t *testing.T) {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		written := int64(0)
		var err error
		for err == nil {
			var n int
			n, err = f.WriteAt(filetest.Pattern(100_000, 2), written, Origin{})
			written += int64(n)
		}
		errnoIs(t, err, syscall.ENOSPC)
		var st unix.Stat_t
		if err := f.Stat(&st); err != nil || st.Size != written || f.Size() != written {
			t.Errorf("stat %d, Size %d, want the %d written (%v)", st.Size, f.Size(), written, err)
		}
	})
	t.Run("and there is room again", func(t *testing.T) {
		if err := f.Truncate(10); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, []byte("again"), 10)
	})
}

func TestLimits(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		if n, err := f.ReadAt(make([]byte, 10), 0); n != 0 || err != nil {
			t.Errorf("read of an empty file: %d, %v", n, err)
		}
		if n, _ := f.table.Mappings(); n != 0 {
			t.Errorf("an empty file has %d mappings", n)
		}
		_, err := f.WriteAt([]byte("x"), -1, Origin{})
		errnoIs(t, err, syscall.EFBIG)
		_, err = f.WriteAt([]byte("xy"), 1<<63-2, Origin{})
		errnoIs(t, err, syscall.EFBIG)
		errnoIs(t, f.Allocate(0, 0, 0), syscall.EINVAL)
		wantContent(t, f, path, nil)

		// A terabyte away, sparse: reads across it are zeros.
		const far = 1 << 40
		mustWrite(t, f, []byte("far"), far)
		got := make([]byte, 8)
		if n, err := f.ReadAt(got, far-5); n != 8 || err != nil || string(got) != "\x00\x00\x00\x00\x00far" {
			t.Errorf("at 1 TiB: %d bytes %q, %v", n, got, err)
		}
	})
}

// TestReadKeepsHoles: looking at a hole takes no memory and no disk, also on
// tmpfs, where a load through a mapping would.
func TestReadKeepsHoles(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, _ := testFile(t, dir)
		mustWrite(t, f, []byte("data"), 40*paging.PageSize)
		out := newDiscard(t)
		for off := int64(0); off < 40*paging.PageSize; off += paging.PageSize {
			if _, err := f.ReadTo(out, off, int(2*paging.PageSize), false); err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAt(make([]byte, paging.PageSize), off); err != nil {
				t.Fatal(err)
			}
		}
		var st unix.Stat_t
		if err := f.Stat(&st); err != nil {
			t.Fatal(err)
		}
		if got := st.Blocks * 512; got > 2*paging.PageSize {
			t.Errorf("after a read of its holes the file takes %d bytes", got)
		}
	})
}

func TestAllocate(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		f, path := testFile(t, dir)
		want := filetest.Pattern(int(3*paging.PageSize), 6)
		mustWrite(t, f, want, 0)
		if err := f.Allocate(unix.FALLOC_FL_KEEP_SIZE, 0, 8*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		wantContent(t, f, path, want)
		if err := f.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, paging.PageSize-1, paging.PageSize+2); err != nil {
			t.Fatal(err)
		}
		clear(want[paging.PageSize-1 : 2*paging.PageSize+1])
		wantContent(t, f, path, want)
		if err := f.Allocate(0, 4*paging.PageSize, 5); err != nil {
			t.Fatal(err)
		}
		want = append(want, make([]byte, paging.PageSize+5)...)
		wantContent(t, f, path, want)
	})
}

// TestUnmappable: a filesystem that knows no mmap is served by pread and pwrite.
func TestUnmappable(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENODEV, syscall.ENOMEM} {
		sys := sys.New()
		sys.Mmap = func(int, int64, int, int) ([]byte, error) { return nil, os.NewSyscallError("mmap", errno) }
		path := filepath.Join(t.TempDir(), "f")
		f := openTest(t, newTestTable(t, Config{}, sys), path)
		want := filetest.Pattern(int(2*paging.PageSize)+1, 4)
		for range 4 {
			mustWrite(t, f, want, 0)
		}
		wantContent(t, f, path, want)
		seen := f.Failures()
		if err := f.Sync(&seen, true); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(5); err != nil {
			t.Fatal(err)
		}
		wantContent(t, f, path, want[:5])
	}
}

// TestDescriptorAccess: what the descriptor forbids, the mapping cannot give.
func TestDescriptorAccess(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	want := filetest.Pattern(int(paging.PageSize), 2)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	t.Run("read-only", func(t *testing.T) {
		table := newTestTable(t, Config{}, nil)
		f, err := openFD(table, open(unix.O_RDONLY), true, false)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release(false)
		wantContent(t, f, path, want)
		_, err = f.WriteAt([]byte("x"), 0, Origin{})
		errnoIs(t, err, syscall.EBADF)
		// Opened for writing by somebody else: the same file, from now on
		// writable, through one new mapping.
		g, err := openFD(table, open(unix.O_RDWR), true, true)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Release(false)
		if f != g {
			t.Fatal("one inode, two files")
		}
		for range 3 {
			mustWrite(t, f, want[:7], 9)
		}
		copy(want[9:], want[:7])
		wantContent(t, f, path, want)
	})
	t.Run("write-only", func(t *testing.T) {
		f, err := openFD(newTestTable(t, Config{}, nil), open(unix.O_WRONLY), false, true)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release(false)
		for range 4 {
			mustWrite(t, f, []byte("y"), 3)
		}
		_, err = f.ReadAt(make([]byte, 1), 0)
		errnoIs(t, err, syscall.EBADF)
	})
}
