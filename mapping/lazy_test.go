package mapping

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// collector is an Outlet that keeps what is sent.
type collector struct {
	file  *os.File
	begun int
}

func newCollector(t testing.TB) *collector {
	t.Helper()
	fd, err := unix.MemfdCreate("collector", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{file: os.NewFile(uintptr(fd), "collector")}
	t.Cleanup(func() { c.file.Close() })
	return c
}

var headerOfTests = [4]byte{'h', 'e', 'a', 'd'}

func (c *collector) Begin(n int) (int, []byte) {
	c.begun = n
	return int(c.file.Fd()), headerOfTests[:]
}

// read returns what ReadTo sends.
func (c *collector) read(t testing.TB, f *File, off int64, n int) []byte {
	t.Helper()
	if err := c.file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := c.file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	if sent, err := f.ReadTo(c, off, n, false); !sent || err != nil {
		t.Fatalf("ReadTo(%d, %d) = %v, %v", off, n, sent, err)
	}
	all := make([]byte, n+2*len(headerOfTests))
	k, _ := c.file.ReadAt(all, 0)
	if k != len(headerOfTests)+c.begun || string(all[:len(headerOfTests)]) != string(headerOfTests[:]) {
		t.Fatalf("ReadTo(%d, %d): %d bytes were announced, %d came", off, n, c.begun, k-len(headerOfTests))
	}
	return all[len(headerOfTests):k]
}

// lazyTable returns a table that maps lazily, and promptly no more.
func lazyTable(t *testing.T) *Table {
	table := newTestTable(t, Config{MapLazily: true}, nil)
	table.prompt.Store(math.MaxInt64)
	return table
}

func isMapped(f *File) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.mem != nil
}

// TestMapLazily: the first read of a page needs no mapping, the second has one.
func TestMapLazily(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table, out := lazyTable(t), newCollector(t)
		for _, size := range []int{1, 5, 4096, 4097, 100_000, 1 << 20} {
			path := filepath.Join(dir, fmt.Sprint(size))
			want := filetest.Pattern(size, 3)
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			f := openTest(t, table, path)
			n := min(size, 20_000)
			for i, mapped := range []bool{false, true, true} {
				if err := filetest.SameBytes(out.read(t, f, int64(size-n), n+100), want[size-n:]); err != nil {
					t.Errorf("%d bytes, read %d: %v", size, i, err)
				}
				if isMapped(f) != mapped {
					t.Errorf("%d bytes, read %d: mapped %v", size, i, !mapped)
				}
			}
		}
	})
}

// TestMapLazilyLarge: a read of many pages goes by the mapping at once, unless it is
// all there is.
func TestMapLazilyLarge(t *testing.T) {
	table, out := lazyTable(t), newCollector(t)
	for _, test := range []struct {
		size, off, n int
		mapped       bool
	}{
		{100_000, 0, 131_072, false},
		{200_000, 0, 131_072, true},
		{200_000, 131_072, 131_072, true},
		{200_000, 4096, 4096, false},
	} {
		path := filepath.Join(t.TempDir(), "f")
		want := filetest.Pattern(test.size, 5)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, table, path)
		if err := filetest.SameBytes(out.read(t, f, int64(test.off), test.n), want[test.off:min(test.off+test.n, test.size)]); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
		if isMapped(f) != test.mapped {
			t.Errorf("%+v: mapped %v", test, !test.mapped)
		}
	}
}

// TestMapPrompt: a few files a second are mapped with their first read.
func TestMapPrompt(t *testing.T) {
	table, out := newTestTable(t, Config{MapLazily: true}, nil), newCollector(t)
	dir := t.TempDir()
	mapped := 0
	const files = 4 * promptMappings
	for i := range files {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte("some"), 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, table, path)
		out.read(t, f, 0, 4096)
		if isMapped(f) {
			mapped++
		}
		if i == 0 && mapped == 0 {
			t.Error("the first file is not mapped")
		}
	}
	// A slow machine can take some seconds for this.
	if mapped < promptMappings || mapped >= files {
		t.Errorf("%d of %d files are mapped", mapped, files)
	}
}

// TestMapNow: who looks at the mappings finds one for every file that was read, and
// from then on with the first read.
func TestMapNow(t *testing.T) {
	table, out := lazyTable(t), newCollector(t)
	dir := t.TempDir()
	open := func(name string) *File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return openTest(t, table, path)
	}
	read, other := open("read"), open("other")
	out.read(t, read, 0, 4096)
	if isMapped(read) {
		t.Fatal("mapped with the first read")
	}
	table.MapNow()
	if !isMapped(read) || isMapped(other) {
		t.Errorf("mapped: what was read %v, what was not %v", isMapped(read), isMapped(other))
	}
	if out.read(t, other, 0, 4096); !isMapped(other) {
		t.Error("later: not mapped with the first read")
	}
}

// TestMapNowBusy: a read that waits for its device does not hold up who looks at the
// mappings.
func TestMapNowBusy(t *testing.T) {
	table, out := lazyTable(t), newCollector(t)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("some"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := openTest(t, table, path)
	out.read(t, f, 0, 4096)
	f.mu.RLock()
	looked := make(chan struct{})
	go func() {
		table.MapNow()
		close(looked)
	}()
	select {
	case <-looked:
	case <-time.After(10 * time.Second):
		t.Error("MapNow waits for the read")
	}
	f.mu.RUnlock()
	for deadline := time.Now().Add(10 * time.Second); !isMapped(f); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not mapped after the read")
		}
	}
}

// TestMapLazilyGrown: a file that others have made longer or shorter is read as it is.
func TestMapLazilyGrown(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table, out := lazyTable(t), newCollector(t)
		path := filepath.Join(dir, "f")
		want := filetest.Pattern(9000, 7)
		if err := os.WriteFile(path, want[:5000], 0o600); err != nil {
			t.Fatal(err)
		}
		f := openTest(t, table, path)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := filetest.SameBytes(out.read(t, f, 0, 16384), want); err != nil {
			t.Errorf("longer: %v", err)
		}
		g := openTest(t, lazyTable(t), path)
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		if err := filetest.SameBytes(out.read(t, g, 0, 16384), want[:100]); err != nil {
			t.Errorf("shorter: %v", err)
		}
		if g.Size() != 100 {
			t.Errorf("the size is %d", g.Size())
		}
	})
}

// TestSeenPages compares with a set.
func TestSeenPages(t *testing.T) {
	for _, first := range []int64{0, 1, 31, 32, 33, 1000, 1023, 1024, 5000} {
		for _, n := range []int64{1, 2, 31, 32, 33, 64, 1025} {
			var r dirty.Record
			g := paging.Range{Off: first * paging.PageSize, End: (first + n) * paging.PageSize}
			if !r.See(g) || r.See(g) {
				t.Errorf("pages %d to %d: not new, or new twice", first, first+n)
			}
			for _, page := range []int64{first - 1, first, first + n - 1, first + n} {
				if page < 0 {
					continue
				}
				inside := page >= first && page < first+n
				// The first pages are kept apart when they are asked for alone.
				if page < 32 && first+n > 32 {
					continue
				}
				if fresh := r.See(paging.Range{Off: page * paging.PageSize, End: page*paging.PageSize + 1}); fresh == inside {
					t.Errorf("pages %d to %d: page %d is new: %v", first, first+n, page, fresh)
				}
			}
		}
	}
}
