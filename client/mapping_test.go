package client

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// TestLoadAndStore sweeps the boundaries of pages.
func TestLoadAndStore(t *testing.T) {
	onEachFS(t, func(t *testing.T, dir string) {
		p := paging.PageSize
		size := 2*p + 5
		path := newFile(t, dir, size)
		m := mustMap(t, path, Options{Length: ToEnd, Prot: protRW, Writable: true})
		if m.Length() != size {
			t.Errorf("length: got %d, want %d", m.Length(), size)
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{0, 1, p - 1, p, p + 1, 2*p - 1, 2 * p} {
			for _, n := range []int64{0, 1, 3, 5, p - 1, p, p + 1} {
				if off+n > size {
					continue
				}
				b, err := m.LoadBytes(off, n)
				if err != nil || !bytes.Equal(b, want[off:off+n]) {
					t.Fatalf("load %d at %d: %d bytes, %v", n, off, len(b), err)
				}
				text := bytes.Repeat([]byte{byte(off + n)}, int(n))
				if got, err := m.Store(text, off); err != nil || int64(got) != n {
					t.Fatalf("store %d at %d: got %d, %v", n, off, got, err)
				}
				copy(want[off:], text)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the file does not hold what was stored: %v", err)
		}
	})
}

// TestPastTheEnd is about the rest of the last page.
func TestPastTheEnd(t *testing.T) {
	onEachFS(t, func(t *testing.T, dir string) {
		path := newFile(t, dir, 10)
		m := mustMap(t, path, Options{Length: paging.PageSize, Prot: protRW, Writable: true})
		got, err := m.LoadBytes(8, 6)
		if want := []byte{9, 10, 0, 0, 0, 0}; err != nil || !bytes.Equal(got, want) {
			t.Errorf("loaded %v, %v, want %v", got, err, want)
		}
		if _, err := m.Store([]byte("abcd"), 8); err != nil {
			t.Error(err)
		}
		file, err := os.ReadFile(path)
		if err != nil || len(file) != 10 || string(file[8:]) != "ab" {
			t.Errorf("the file: %q, %v, want 10 bytes, the last of them ab", file, err)
		}
		if size, err := m.Size(); err != nil || size != 10 {
			t.Errorf("size: got %d, %v", size, err)
		}
	})
}

// TestPrivate checks who sees a store to a private mapping, and for how long.
func TestPrivate(t *testing.T) {
	onEachFS(t, func(t *testing.T, dir string) {
		path := newFile(t, dir, 10)
		one := mustMap(t, path, Options{Length: ToEnd, Prot: protRW, Private: true})
		two := mustMap(t, path, Options{Length: ToEnd, Prot: protRW, Private: true})
		shared := mustMap(t, path, Options{Length: ToEnd, Prot: protRW, Writable: true})
		load := func(m *Mapping, want string) {
			t.Helper()
			if got, err := m.LoadBytes(0, int64(len(want))); err != nil || string(got) != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		store := func(m *Mapping, text string) {
			t.Helper()
			if _, err := m.Store([]byte(text), 0); err != nil {
				t.Error(err)
			}
		}
		store(one, "one")
		load(two, "\x01\x02\x03")
		load(shared, "\x01\x02\x03")
		store(shared, "all")
		load(one, "one") // it has its own page by now
		load(two, "all") // it has none
		if err := one.Madvise(0, one.Length(), unix.MADV_DONTNEED); err != nil {
			t.Error(err)
		}
		load(one, "all")
	})
}

func TestMapErrors(t *testing.T) {
	dir := t.TempDir()
	f := newFile(t, dir, 100)
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const huge = 1 << 62
	tests := []struct {
		path string
		opts Options
		want string
	}{
		{f, Options{Offset: 100, Length: ToEnd}, "mmap FILE: invalid argument (EINVAL): offset 100 is not a multiple of the page size PAGE"},
		{f, Options{Offset: 1, Length: 10}, "mmap FILE: invalid argument (EINVAL): offset 1 is not a multiple of the page size PAGE"},
		{f, Options{Length: 0}, "mmap FILE: invalid argument (EINVAL): length is 0"},
		{f, Options{Length: huge}, fmt.Sprintf("mmap FILE: cannot allocate memory (ENOMEM): length %d at offset 0", int64(huge))},
		{f, Options{Length: 1, Prot: protRW}, "mmap FILE: permission denied (EACCES): the file is open read-only, and stores through a shared mapping (prot rw) would change it"},
		{f, Options{Offset: paging.PageSize, Length: ToEnd}, "FILE: nothing to map from offset PAGE on, the file has 100 bytes; name a length to map past its end"},
		{empty, Options{Length: ToEnd}, "FILE: nothing to map from offset 0 on, the file has 0 bytes; name a length to map past its end"},
		{dir, Options{Length: 1}, "mmap FILE: no such device (ENODEV): it is no file that can be mapped"},
		{fifo, Options{Length: 1}, "mmap FILE: no such device (ENODEV): it is no file that can be mapped"},
		{dir + "/no", Options{Length: 1}, "open FILE: no such file or directory (ENOENT)"},
		{dir, Options{Length: 1, Writable: true}, "open FILE: is a directory (EISDIR)"},
	}
	before := openFiles(t)
	for _, test := range tests {
		m, err := Map(test.path, test.opts)
		if err == nil {
			t.Errorf("%s %+v: mapped, want an error", test.path, test.opts)
			m.Close()
			continue
		}
		want := strings.NewReplacer("FILE", test.path, "PAGE", fmt.Sprint(paging.PageSize)).Replace(test.want)
		if err.Error() != want {
			t.Errorf("%+v:\ngot  %v\nwant %s", test.opts, err, want)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were before", after, before)
	}
	// A private mapping may be stored to, however the file is open.
	mustMap(t, f, Options{Length: ToEnd, Prot: protRW, Private: true})
}

// openFiles counts this process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMapAround(t *testing.T) {
	p := paging.PageSize
	path := newFile(t, t.TempDir(), 2*p+100)
	for _, off := range []int64{0, 1, p - 1, p, p + 1, 2*p + 99} {
		m, begin, err := MapAround(path, Options{Offset: off, Length: 1, Prot: unix.PROT_READ})
		if err != nil {
			t.Errorf("offset %d: %v", off, err)
			continue
		}
		if got, err := m.LoadBytes(begin, 1); err != nil || got[0] != byte(off%251)+1 {
			t.Errorf("offset %d: got %v, %v", off, got, err)
		}
		if begin+1 != m.Length() {
			t.Errorf("offset %d: begins at %d of %d bytes", off, begin, m.Length())
		}
		m.Close()
	}
	for _, length := range []int64{0, 1<<63 - 1} {
		if m, _, err := MapAround(path, Options{Offset: 5, Length: length}); err == nil {
			t.Errorf("length %d: mapped", length)
			m.Close()
		}
	}
}

// TestMunmapPieces unmaps every part of a mapping in several orders, and holds
// our record of it against the kernel's.
func TestMunmapPieces(t *testing.T) {
	p := paging.PageSize
	const pages = 4
	path := newFile(t, t.TempDir(), pages*p)
	for first := int64(0); first < pages; first++ {
		for end := first + 1; end <= pages; end++ {
			m, err := Map(path, Options{Length: ToEnd, Prot: protRW, Writable: true})
			if err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("pages %d to %d", first, end)
			if err := m.Munmap(first*p, (end-first)*p-1); err != nil { // a length is rounded up
				t.Errorf("%s: %v", name, err)
			}
			if got, want := len(mapsOf(t, path)), len(m.pieces(paging.Range{End: pages * p})); got != want {
				t.Errorf("%s: the kernel has %d pieces, we have %d", name, got, want)
			}
			for page := range int64(pages) {
				_, err := m.LoadBytes(page*p, 1)
				if unmapped := page >= first && page < end; unmapped != (err != nil) {
					t.Errorf("%s: load from page %d: %v", name, page, err)
				}
			}
			// The rest is done all the same, except that mprotect stops.
			if err := m.Msync(0, pages*p, unix.MS_SYNC); !errors.Is(err, unix.ENOMEM) {
				t.Errorf("%s: msync of all: got %v, want ENOMEM", name, err)
			}
			if err := m.Mprotect(0, pages*p, unix.PROT_READ); !errors.Is(err, unix.ENOMEM) {
				t.Errorf("%s: mprotect of all: got %v, want ENOMEM", name, err)
			}
			for page := range int64(pages) {
				_, err := m.Store([]byte("x"), page*p)
				if stays := page >= end; stays != (err == nil) {
					t.Errorf("%s: store to page %d after mprotect: %v", name, page, err)
				}
			}
			if err := m.Munmap(0, pages*p); err != nil {
				t.Errorf("%s: munmap of all: %v", name, err)
			}
			if left := mapsOf(t, path); len(left) > 0 {
				t.Errorf("%s: left: %q", name, left)
			}
			if err := m.Close(); err != nil {
				t.Errorf("%s: close: %v", name, err)
			}
		}
	}
}

// TestCalls is about the arguments of the calls on a mapping.
func TestCalls(t *testing.T) {
	p := paging.PageSize
	path := newFile(t, t.TempDir(), p+1)
	m := mustMap(t, path, Options{Length: ToEnd, Prot: unix.PROT_READ})
	tests := []struct {
		name string
		err  error
		want error // nil: none; errAny: not of the kernel
	}{
		{"msync", m.Msync(0, p, unix.MS_SYNC), nil},
		{"msync of both pages", m.Msync(0, 2*p, unix.MS_ASYNC), nil},
		{"msync of nothing", m.Msync(p, 0, unix.MS_ASYNC), nil},
		{"msync unaligned", m.Msync(1, p, unix.MS_SYNC), unix.EINVAL},
		{"msync sync async", m.Msync(0, p, unix.MS_SYNC|unix.MS_ASYNC), unix.EINVAL},
		{"msync outside", m.Msync(0, 2*p+1, unix.MS_SYNC), errAny},
		{"msync before", m.Msync(-p, p, unix.MS_SYNC), errAny},
		{"mprotect against the open mode", m.Mprotect(0, p, protRW), unix.EACCES},
		{"mprotect none", m.Mprotect(p, p, unix.PROT_NONE), nil},
		{"madvise", m.Madvise(0, p, unix.MADV_WILLNEED), nil},
		{"madvise unaligned", m.Madvise(p-1, p, unix.MADV_WILLNEED), unix.EINVAL},
		{"munmap of nothing", m.Munmap(0, 0), unix.EINVAL},
		{"munmap unaligned", m.Munmap(1, 1), unix.EINVAL},
		{"munmap outside", m.Munmap(0, 3*p), errAny},
		{"munmap", m.Munmap(p, p), nil},
		{"munmap twice", m.Munmap(p, p), nil},
		{"munmap past all numbers", m.Munmap(p, 1<<63-1), errAny},
	}
	for _, test := range tests {
		var errno syscall.Errno
		switch {
		case test.want == errAny && (test.err == nil || errors.As(test.err, &errno)),
			test.want != errAny && !errors.Is(test.err, test.want):
			t.Errorf("%s: got %v, want %v", test.name, test.err, test.want)
		}
	}
	if _, err := m.LoadBytes(2*p, 1); err == nil || errors.As(err, new(*Fault)) {
		t.Errorf("load outside: got %v, want a refusal", err)
	}
	if _, err := m.LoadBytes(0, 1<<62); err == nil || errors.As(err, new(*Fault)) {
		t.Errorf("load of too much: got %v, want a refusal", err)
	}
	if _, err := m.Store([]byte("x"), -1); err == nil || errors.As(err, new(*Fault)) {
		t.Errorf("store before: got %v, want a refusal", err)
	}
}

var errAny = errors.New("an error without an errno")

// TestMappingString holds the description against /proc/self/maps.
func TestMappingString(t *testing.T) {
	p := paging.PageSize
	path := newFile(t, t.TempDir(), 3*p)
	m := mustMap(t, path, Options{Offset: p, Length: p + 1, Prot: protRW, Private: true})
	lines := mapsOf(t, path)
	if len(lines) != 1 {
		t.Fatalf("maps: %q", lines)
	}
	got, want := strings.Fields(m.String()), strings.Fields(lines[0])
	if got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != path {
		t.Errorf("got %q, the kernel has %q", m, lines[0])
	}
}
