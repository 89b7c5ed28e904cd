package mapping

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
)

// TestMappingCap: however many files are used at once, no more mappings live
// than the cap allows, and every file still serves its own bytes.
func TestMappingCap(t *testing.T) {
	const files, limit = 40, 4
	dir := t.TempDir()
	table := newTestTable(t, Config{MaxMappings: limit}, nil)
	open := make([]*File, files)
	for i := range open {
		open[i] = openTest(t, table, filepath.Join(dir, fmt.Sprint(i)))
		mustWrite(t, open[i], filetest.Pattern(int(paging.PageSize)+i, byte(i)), 0)
	}
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 2))
			got := make([]byte, 2*paging.PageSize)
			for range 2000 {
				i := rng.IntN(files)
				n, err := open[i].ReadAt(got, 0)
				if err != nil || filetest.SameBytes(got[:n], filetest.Pattern(int(paging.PageSize)+i, byte(i))) != nil {
					t.Errorf("file %d: %d bytes, %v", i, n, err)
					return
				}
				if live, _ := table.Mappings(); live > limit {
					t.Errorf("%d mappings live, the cap is %d", live, limit)
					return
				}
			}
		})
	}
	workers.Wait()
	if mapped := mappedFiles(t, dir); mapped > limit {
		t.Errorf("/proc/self/maps has %d of the files, the cap is %d", mapped, limit)
	}
}

// mappedFiles counts the mappings of files below dir in /proc/self/maps.
func mappedFiles(t *testing.T, dir string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), dir+"/")
}

// use opens path in the table, reads it and gives it back.
func use(t *testing.T, table *Table, path string, keep bool) *File {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFD(table, fd, true, true)
	if err != nil {
		t.Fatal(err)
	}
	if f.Size() == 0 {
		mustWrite(t, f, []byte(filepath.Base(path)), 0)
	}
	if _, err := f.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	f.Release(keep)
	return f
}

func TestIdleFiles(t *testing.T) {
	dir := t.TempDir()
	path := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	stat := func(i int) *unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Stat(path(i), &st); err != nil {
			t.Fatal(err)
		}
		return &st
	}
	table := newTestTable(t, Config{MaxIdle: 3}, nil)

	kept := use(t, table, path(0), true)
	if got := table.Get(stat(0), true); got != kept {
		t.Fatal("an idle file was not found again")
	} else {
		got.Release(true)
	}
	for i := range 10 {
		use(t, table, path(i), true)
	}
	if n := mappedFiles(t, dir); n != 3 {
		t.Errorf("%d idle files are mapped, the cap is 3", n)
	}
	use(t, table, path(9), false)
	if got := table.Get(stat(9), false); got != nil {
		t.Error("a file that was not to be kept was kept")
		got.Release(false)
	}

	// Changed by somebody else while idle: not trusted.
	use(t, table, path(8), true)
	time.Sleep(5 * time.Millisecond)
	if err := appendByOther(path(8), "more"); err != nil {
		t.Fatal(err)
	}
	if got := table.Get(stat(8), false); got != nil {
		t.Error("an idle file that changed was returned")
		got.Release(false)
	}

	// Its last name is gone: the space must be freed soon.
	use(t, table, path(7), true)
	if err := os.Remove(path(7)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * idleCheck)
	for {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(maps), path(7)+" (deleted)") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a file without a name stays mapped")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestConcurrentUse opens, uses and closes a few files from many goroutines,
// with idle files evicted all the time, and finds no descriptor left over.
func TestConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	before := openDescriptors(t)
	func() {
		table := NewTable(Config{MaxIdle: 2, MaxMappings: 3})
		defer table.Close()
		var workers sync.WaitGroup
		for w := range 8 {
			workers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(w), 3))
				for range 300 {
					path := filepath.Join(dir, fmt.Sprint(rng.IntN(5)))
					writing := rng.IntN(2) == 0
					flags := unix.O_RDONLY
					if writing {
						flags = unix.O_RDWR
					}
					fd, err := unix.Open(path, flags|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
					if err != nil {
						t.Error(err)
						return
					}
					f, err := openFD(table, fd, true, writing)
					if err != nil {
						t.Error(err)
						return
					}
					if writing {
						if _, err := f.WriteAt(filetest.Pattern(int(rng.Int64N(3*paging.PageSize)), byte(w)), rng.Int64N(paging.PageSize), Origin{}); err != nil {
							t.Error(err)
						}
						switch rng.IntN(4) {
						case 0:
							if err := f.Truncate(rng.Int64N(4 * paging.PageSize)); err != nil {
								t.Error(err)
							}
						case 1:
							seen := f.Failures()
							if err := f.Sync(&seen, rng.IntN(2) == 0); err != nil {
								t.Error(err)
							}
						}
					}
					if _, err := f.ReadAt(make([]byte, 5*paging.PageSize), 0); err != nil {
						t.Error(err)
					}
					f.Release(rng.IntN(3) > 0)
					if rng.IntN(50) == 0 {
						if err := table.SyncAll(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		workers.Wait()
	}()
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if n := mappedFiles(t, dir); n != 0 {
		t.Errorf("%d mappings left", n)
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// TestTwoNamesOneMapping: hard links share the file, its size and its mapping.
func TestTwoNamesOneMapping(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	table := newTestTable(t, Config{}, nil)
	f := openTest(t, table, a)
	mustWrite(t, f, []byte("shared"), 0)
	if err := os.Link(a, b); err != nil {
		t.Fatal(err)
	}
	g := openTest(t, table, b)
	if f != g {
		t.Fatal("two files for one inode")
	}
	wantContent(t, g, b, []byte("shared"))
	if n, _ := table.Mappings(); n != 1 {
		t.Errorf("%d mappings, want 1", n)
	}
}

// TestMappedBytesAreBounded: mappings that do not fit the address space make room for
// each other, and files that never fit are served without one.
func TestMappedBytesAreBounded(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		const most = 1 << 20
		table := newTestTable(t, Config{MaxMappedBytes: most}, nil)
		for round := range 2 {
			for i := range 10 {
				f := openTest(t, table, filepath.Join(dir, fmt.Sprint(i)))
				want := filetest.Pattern((i+1)*70_000, byte(i))
				if round == 0 {
					mustWrite(t, f, want, 0)
				}
				wantContent(t, f, filepath.Join(dir, fmt.Sprint(i)), want)
				if _, n := table.Mappings(); n > most {
					t.Fatalf("%d bytes are mapped, the cap is %d", n, most)
				}
				f.Release(true)
			}
		}
		path := filepath.Join(dir, "large")
		want := filetest.Pattern(3*most, 1)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, table, path)
		mustWrite(t, f, []byte("changed"), most)
		copy(want[most:], "changed")
		wantContent(t, f, path, want)
		failures := f.Failures()
		if err := f.Sync(&failures, false); err != nil {
			t.Error(err)
		}
		if err := f.SetMode(Private); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("x"), 2*most, Origin{}); !errors.Is(err, syscall.ENOMEM) {
			t.Errorf("a private write that cannot be mapped: %v, want ENOMEM", err)
		}
		wantContent(t, f, path, want)
	})
}
