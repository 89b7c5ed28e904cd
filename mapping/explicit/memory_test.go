package explicit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// unsyncedOf lists a file's unsynced ranges.
func unsyncedOf(f *mapping.File) (ranges []string) {
	f.Unsynced(func(g paging.Range, cause dirty.Cause) bool {
		ranges = append(ranges, fmt.Sprintf("%d+%d %s", g.Off, g.Len(), cause))
		return true
	})
	return ranges
}

// kinds returns the kinds of events in order.
func kinds(events []mapping.Event) (names []string) {
	for _, e := range events {
		names = append(names, e.Kind.String())
	}
	return names
}

// TestExplicitRead compares loads at every boundary with the file. The file has
// two pages and 100 bytes; the mapping has five pages, of which the third is the
// last with bytes.
func TestExplicitRead(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 2)
		for _, flags := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
			m := a.must(fmt.Sprint(flags), flags, 5)
			file, err := os.ReadFile(a.path)
			if err != nil {
				t.Fatal(err)
			}
			want := append(file, make([]byte, 3*paging.PageSize-int64(len(file)))...)
			for _, off := range filetest.Boundaries() {
				for _, length := range filetest.Boundaries() {
					got := make([]byte, length)
					n, err := m.ReadAt(got, off)
					reach := min(off+length, 3*paging.PageSize) // SIGBUS from there on
					switch {
					case length == 0 || off >= 5*paging.PageSize:
						if n != 0 || err != nil {
							t.Fatalf("[%d, +%d): %d, %v", off, length, n, err)
						}
					case off >= 3*paging.PageSize:
						if n != 0 {
							t.Fatalf("[%d, +%d): %d bytes", off, length, n)
						}
						wantErrno(t, "past the end of the file", err, syscall.EIO)
					default:
						if int64(n) != reach-off || err != nil {
							t.Fatalf("[%d, +%d): %d, %v, want %d", off, length, n, err, reach-off)
						}
						if err := filetest.SameBytes(got[:n], want[off:reach]); err != nil {
							t.Fatalf("[%d, +%d): %v", off, length, err)
						}
					}
				}
			}
			_, err = m.ReadAt(make([]byte, 1), -1)
			wantErrno(t, "negative offset", err, syscall.EINVAL)
		}
	})
}

// TestExplicitFaults: each fault has an event with its signal, address and page,
// and stops where a process would have been stopped.
func TestExplicitFaults(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 4)
		m := a.must("m", unix.MAP_SHARED, 8)
		fault := func(what string, signal syscall.Signal, page int64) {
			t.Helper()
			var got []mapping.Event
			for _, e := range a.events.take() {
				if e.Kind == mapping.EventFault {
					got = append(got, e)
				}
			}
			if len(got) != 1 || got[0].Signal != signal || got[0].Off != page*paging.PageSize || got[0].Addr != m.Start()+uintptr(page*paging.PageSize) {
				t.Errorf("%s: events %+v, want %v on page %d", what, got, signal, page)
			}
		}
		store := make([]byte, 3*paging.PageSize)

		// Truncated under the mapping.
		a.events.take()
		if err := a.f.Truncate(paging.PageSize); err != nil {
			t.Fatal(err)
		}
		n, err := m.WriteAt(store, 0)
		if n != int(paging.PageSize) || err != nil {
			t.Errorf("store over the end: %d, %v", n, err)
		}
		fault("store over the end", syscall.SIGBUS, 1)
		_, err = m.WriteAt(store, paging.PageSize)
		wantErrno(t, "store past the end", err, syscall.EIO)
		fault("store past the end", syscall.SIGBUS, 1)
		if err := a.f.Truncate(4 * paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if n, err = m.WriteAt(store, paging.PageSize); n != len(store) || err != nil {
			t.Errorf("store after the file grew: %d, %v", n, err)
		}
		a.events.take()

		// Protected, and not mapped any more.
		if err := m.Mprotect(2*paging.PageSize, paging.PageSize, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
		if n, err = m.WriteAt(store, paging.PageSize); n != int(paging.PageSize) || err != nil {
			t.Errorf("store up to the protected page: %d, %v", n, err)
		}
		fault("store up to the protected page", syscall.SIGSEGV, 2)
		if err := m.Unmap(paging.PageSize, paging.PageSize); err != nil {
			t.Fatal(err)
		}
		n, err = m.ReadAt(store, 0)
		if n != int(paging.PageSize) || err != nil {
			t.Errorf("load up to the hole: %d, %v", n, err)
		}
		fault("load up to the hole", syscall.SIGSEGV, 1)
		_, err = m.ReadAt(store, paging.PageSize)
		wantErrno(t, "load from the hole", err, syscall.EFAULT)
		fault("load from the hole", syscall.SIGSEGV, 1)
		// A protection that forbids it goes before the end of the file, which
		// goes before nothing.
		if err := m.Mprotect(6*paging.PageSize, paging.PageSize, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		_, err = m.ReadAt(store[:1], 6*paging.PageSize)
		wantErrno(t, "no access past the end of the file", err, syscall.EFAULT)
		fault("no access past the end of the file", syscall.SIGSEGV, 6)
		_, err = m.WriteAt(store[:1], 8*paging.PageSize)
		wantErrno(t, "store past the mapping", err, syscall.EFAULT)
		if m.Faults() != 6 || a.f.Counters().Faults.Load() != 6 {
			t.Errorf("%d faults are counted", m.Faults())
		}
	})
}

// TestSharedStores: a store through a shared mapping is in the file at once and
// unsynced until an msync of its pages.
func TestSharedStores(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 4)
		one, two := a.must("one", unix.MAP_SHARED, 5), a.must("two", unix.MAP_SHARED, 5)
		a.events.take()
		if n, err := one.WriteAt([]byte("hello"), paging.PageSize-2); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		if e := a.events.take(); len(e) != 1 || e[0].Kind != mapping.EventStore || e[0].Off != paging.PageSize-2 || e[0].Length != 5 || e[0].Mapping != "one" {
			t.Errorf("events %+v", e)
		}
		var b [5]byte
		if _, err := two.ReadAt(b[:], paging.PageSize-2); err != nil || string(b[:]) != "hello" {
			t.Errorf("the other mapping has %q, %v", b, err)
		}
		if _, err := a.f.ReadAt(b[:], paging.PageSize-2); err != nil || string(b[:]) != "hello" {
			t.Errorf("the file has %q, %v", b, err)
		}
		want := []string{fmt.Sprintf("0+%d store", 2*paging.PageSize)}
		if got := unsyncedOf(a.f); !slices.Equal(got, want) {
			t.Errorf("unsynced %q, want %q", got, want)
		}
		if one.UnsyncedBytes() != 2*paging.PageSize || one.Stores() != 1 || a.f.Counters().Stores.Load() != 1 {
			t.Errorf("%d unsynced bytes, %d stores", one.UnsyncedBytes(), one.Stores())
		}
		// Bytes after the end of the file are not the file's.
		if _, err := one.WriteAt([]byte("tail"), 4*paging.PageSize+100); err != nil {
			t.Fatal(err)
		}
		if got := unsyncedOf(a.f); !slices.Equal(got, want) {
			t.Errorf("after a store past the end, unsynced %q", got)
		}
		if err := a.Msync(two.Start()+uintptr(paging.PageSize), uint64(paging.PageSize), unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		want = []string{fmt.Sprintf("0+%d store", paging.PageSize)}
		if got := unsyncedOf(a.f); !slices.Equal(got, want) {
			t.Errorf("after msync of the second page, unsynced %q, want %q", got, want)
		}
		if err := one.Msync(0, paging.PageSize, unix.MS_ASYNC); err != nil {
			t.Fatal(err)
		}
		if got := unsyncedOf(a.f); !slices.Equal(got, want) {
			t.Errorf("after MS_ASYNC, unsynced %q, want %q", got, want)
		}
		mustSync(t, a.f)
		if got := unsyncedOf(a.f); len(got) > 0 {
			t.Errorf("after sync, unsynced %q", got)
		}
		// The time of a store reaches the inode.
		var before, after unix.Stat_t
		if err := a.f.Stat(&before); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := one.WriteAt([]byte("x"), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.f.Stat(&after); err != nil || after.Mtim == before.Mtim {
			t.Errorf("two stores left the mtime as it was, %v, %v", after.Mtim, err)
		}
	})
}

// TestStoreBehindTheEnd: what was stored between the end of the file and the end of
// its page is zero when the file grows over it.
func TestStoreBehindTheEnd(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		for name, grow := range map[string]func(f *mapping.File) error{
			"truncate": func(f *mapping.File) error { return f.Truncate(2 * paging.PageSize) },
			"write": func(f *mapping.File) error {
				_, err := f.WriteAt([]byte{0}, 2*paging.PageSize-1, mapping.Origin{})
				return err
			},
		} {
			dir, err := os.MkdirTemp(dir, name)
			if err != nil {
				t.Fatal(err)
			}
			a := newArenaTest(t, dir, 0)
			mustWrite(t, a.f, []byte("hello"), 0)
			m := a.must("m", unix.MAP_SHARED, 1)
			if _, err := m.WriteAt([]byte("secret"), 5); err != nil {
				t.Fatal(err)
			}
			if err := grow(a.f); err != nil {
				t.Fatal(err)
			}
			wantContent(t, a.f, a.path, append([]byte("hello"), make([]byte, 2*paging.PageSize-5)...))
		}
	})
}

// TestPrivateStores: two private mappings of one file show each its own copy, and
// the file stays what it was.
func TestPrivateStores(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 4)
		one, two := a.must("one", unix.MAP_PRIVATE, 4), a.must("two", unix.MAP_PRIVATE, 4)
		k := kernelTest(t, dir)
		before, err := os.ReadFile(a.path)
		if err != nil {
			t.Fatal(err)
		}
		a.events.take()
		for i, m := range []*Mapping{one, two} {
			for range 2 {
				if _, err := m.WriteAt([]byte{byte(i), byte(i)}, paging.PageSize-1); err != nil {
					t.Fatal(err)
				}
			}
		}
		if k.Pagemap == "" {
			want := []string{"store", "copy", "store", "store", "copy", "store"}
			if got := a.events.take(); !slices.Equal(kinds(got), want) || got[1].Pages != 2 || got[1].Off != paging.PageSize-1 {
				t.Errorf("events %+v", got)
			}
			if one.CopiedPages() != 2 || two.CopiedPages() != 2 {
				t.Errorf("%d and %d pages are copied, want 2", one.CopiedPages(), two.CopiedPages())
			}
		}
		for i, m := range []*Mapping{one, two} {
			var b [2]byte
			if _, err := m.ReadAt(b[:], paging.PageSize-1); err != nil || b != [2]byte{byte(i), byte(i)} {
				t.Errorf("mapping %d has %v, %v", i, b, err)
			}
		}
		wantContent(t, a.f, a.path, before)
		if got := unsyncedOf(a.f); len(got) > 0 {
			t.Errorf("unsynced %q", got)
		}
		// There is nothing to write, and a page not copied yet shows the file.
		if err := one.Msync(0, one.Length(), unix.MS_SYNC); err != nil {
			t.Error(err)
		}
		wantContent(t, a.f, a.path, before)
		mustWrite(t, a.f, []byte("new"), 3*paging.PageSize)
		var b [3]byte
		if _, err := one.ReadAt(b[:], 3*paging.PageSize); err != nil || string(b[:]) != "new" {
			t.Errorf("a page not copied has %q, %v", b, err)
		}
		// Giving the copies up shows the file again.
		if err := one.Madvise(0, paging.PageSize, unix.MADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		var c [2]byte
		if _, err := one.ReadAt(c[:], paging.PageSize-1); err != nil || c != [2]byte{before[paging.PageSize-1], 0} {
			t.Errorf("after dontneed of the first page: %v, %v", c, err)
		}
		// A file open for reading only can be copied too.
		m, err := a.mmap(unix.O_RDONLY, Request{Name: "ro", Length: uint64(paging.PageSize), Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_PRIVATE})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.WriteAt([]byte("x"), 0); err != nil {
			t.Error(err)
		}
	})
}

// kernelTest probes the kernel's sources for a directory.
func kernelTest(t *testing.T, dir string) *pagestate.Sources {
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

// TestExplicitPages: the runs cover the mapping without a gap, holes have no flags,
// copies are the mapping's own, and the end of the file is marked.
func TestExplicitPages(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 6)
		k := kernelTest(t, dir)
		shared, private := a.must("shared", unix.MAP_SHARED, 10), a.must("private", unix.MAP_PRIVATE, 10)
		later, err := a.mmap(unix.O_RDWR, Request{Name: "later", Offset: 5 * paging.PageSize, Length: 4096, Prot: unix.PROT_READ, Flags: unix.MAP_SHARED})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := shared.WriteAt([]byte{1}, 2*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if _, err := private.WriteAt([]byte{1}, 3*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if err := shared.Unmap(4*paging.PageSize, paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if err := private.Unmap(0, paging.PageSize); err != nil {
			t.Fatal(err)
		}
		pages := func(m *Mapping, first, end int64) (text string) {
			t.Helper()
			at := first
			err := m.Inspect(k, first, end, func(run pagestate.Run) bool {
				if run.First != at || run.End <= run.First {
					t.Errorf("a run [%d, %d) after %d", run.First, run.End, at)
				}
				at = run.End
				for range run.End - run.First {
					// What only some filesystems tell is left out.
					text += (run.Flags &^ (pagestate.Dirty | pagestate.Writeback | pagestate.Resident)).String() + " "
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			if at != max(first, min(end, m.Length()/paging.PageSize)) {
				t.Errorf("the runs end at %d", at)
			}
			return text
		}
		copied := "C"
		if k.Pagemap != "" {
			copied = "-"
		}
		for _, c := range []struct {
			m          *Mapping
			first, end int64
			want       string
		}{
			{shared, 0, 10, "- - U - - - T - - - "},
			{shared, 2, 5, "U - - "},
			{shared, 4, 100, "- - T - - - "},
			{shared, 7, 7, ""},
			{private, 0, 10, "- - - " + copied + " - - T - - - "},
			{later, 0, 10, "- "},
		} {
			if got := pages(c.m, c.first, c.end); got != c.want {
				t.Errorf("%s, pages [%d, %d): %q, want %q", c.m.Name(), c.first, c.end, got, c.want)
			}
		}
		stop := 0
		if err := shared.Inspect(k, 0, 10, func(pagestate.Run) bool { stop++; return false }); err != nil || stop != 1 {
			t.Errorf("emit was called %d times after it said stop, %v", stop, err)
		}
	})
}

// TestMappingKeepsItsFile: the file can lose its last name, and its last other
// user; with the mapping it goes.
func TestMappingKeepsItsFile(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table := newTestTable(t, mapping.Config{})
		path := filepath.Join(dir, "f")
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		f, err := openFD(table, fd)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, f, []byte("hello"), 0)
		r := Request{Name: "m", Length: 1, Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_SHARED, Writable: true}
		m, err := newTestArena(t).Mmap(f, fd, r)
		if err != nil {
			t.Fatal(err)
		}
		f.Release(false)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		table.Forget(m.FileID(), true)
		if _, err := m.WriteAt([]byte("J"), 0); err != nil {
			t.Error(err)
		}
		var b [5]byte
		if _, err := m.ReadAt(b[:], 0); err != nil || string(b[:]) != "Jello" {
			t.Errorf("%q, %v", b, err)
		}
		if err := m.Msync(0, paging.PageSize, unix.MS_SYNC); err != nil {
			t.Error(err)
		}
		if table.Count() != 1 {
			t.Errorf("the table has %d files", table.Count())
		}
		if err := m.Unmap(0, m.Length()); err != nil {
			t.Fatal(err)
		}
		if table.Count() != 0 {
			t.Errorf("the table has %d files after the munmap", table.Count())
		}
	})
}
