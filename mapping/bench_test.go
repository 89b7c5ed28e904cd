package mapping

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/internal/need"
	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// discard is an Outlet like a FUSE session's: it has a header to send first.
type discard struct {
	fd     int
	header [16]byte
}

func (d *discard) Begin(int) (int, []byte) { return d.fd, d.header[:] }

// newDiscard opens /dev/null: the kernel takes the bytes without a copy, so the
// engine's own cost is what is left.
func newDiscard(t testing.TB) *discard {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &discard{fd: fd}
}

// benchFile returns a file of 16 MiB, all of it written twice so that every page
// is warm.
func benchFile(t testing.TB) *File {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "mapping-bench-")
	if err != nil {
		need.Missing(t, "tmpfs", "%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := openTest(t, newTestTable(t, Config{}, nil), filepath.Join(dir, "f"))
	p := filetest.Pattern(1<<20, 1)
	for range 3 {
		for off := range int64(16) {
			mustWrite(t, f, p, off<<20)
		}
	}
	if _, err := f.ReadAt(make([]byte, 16<<20), 0); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestHotPathsDoNotAllocate is the promise behind the speed: what happens for
// every request leaves nothing for the garbage collector.
func TestHotPathsDoNotAllocate(t *testing.T) {
	f := benchFile(t)
	out := newDiscard(t)
	p := filetest.Pattern(int(paging.PageSize), 1)
	var page int64
	next := func() int64 {
		page = (page + 7) % 4096
		return page * paging.PageSize
	}
	for name, op := range map[string]func(){
		"ReadTo":  func() { f.ReadTo(out, next(), int(paging.PageSize), false) },
		"ReadAt":  func() { f.ReadAt(p, next()) },
		"WriteAt": func() { f.WriteAt(p, next(), Origin{}) },
		"pwrite": func() {
			f.record.Forget(0)
			f.overwrite(p, paging.Range{Off: 0, End: paging.PageSize}, Origin{})
		},
		"process_vm_writev": func() {
			f.record.Forget(0)
			f.record.Set(paging.Range{Off: 0, End: paging.PageSize}, dirty.Written)
			f.overwrite(p, paging.Range{Off: 0, End: paging.PageSize}, Origin{})
		},
		"Stat": func() {
			var st unix.Stat_t
			f.Stat(&st)
		},
	} {
		want := 0.0
		if name == "pwrite" || name == "process_vm_writev" {
			want = 1 // the list of chunks that forget makes
		}
		if n := testing.AllocsPerRun(200, op); n > want {
			t.Errorf("%s allocates %v times, want %v", name, n, want)
		}
	}
}

func BenchmarkReadTo(b *testing.B) {
	for _, size := range []int{4 << 10, 128 << 10} {
		b.Run(byteCount(size), func(b *testing.B) {
			f := benchFile(b)
			out := newDiscard(b)
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if _, err := f.ReadTo(out, int64(i*7%128)*(128<<10), size, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReadAt(b *testing.B) {
	f := benchFile(b)
	p := make([]byte, paging.PageSize)
	b.ReportAllocs()
	b.SetBytes(paging.PageSize)
	for i := 0; b.Loop(); i++ {
		if _, err := f.ReadAt(p, int64(i*7%4096)*paging.PageSize); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOverwrite(b *testing.B) {
	f := benchFile(b)
	p := filetest.Pattern(int(paging.PageSize), 1)
	b.ReportAllocs()
	b.SetBytes(paging.PageSize)
	for i := 0; b.Loop(); i++ {
		if _, err := f.WriteAt(p, int64(i*7%4096)*paging.PageSize, Origin{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExtend(b *testing.B) {
	f := benchFile(b)
	p := filetest.Pattern(128<<10, 1)
	b.ReportAllocs()
	b.SetBytes(int64(len(p)))
	off := int64(0)
	for b.Loop() {
		if off == 0 {
			if err := f.Truncate(0); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := f.WriteAt(p, off, Origin{}); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(len(p))) % (64 << 20)
	}
}

func byteCount(n int) string {
	if n >= 1<<20 {
		return string(rune('0'+n>>20)) + "MiB"
	}
	return map[int]string{4 << 10: "4KiB", 128 << 10: "128KiB"}[n]
}
