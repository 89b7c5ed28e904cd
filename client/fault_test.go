package client

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// TestFaults has every way to be refused, with the words for it.
func TestFaults(t *testing.T) {
	onEachFS(t, func(t *testing.T, dir string) {
		p := paging.PageSize
		tests := []struct {
			name   string
			size   int64
			opts   Options
			before func(m *Mapping, path string) error
			store  bool
			off    int64
			want   Fault
			why    string
		}{
			{name: "load past the end", size: 100, opts: Options{Length: 3 * p, Prot: unix.PROT_READ}, off: p + 7,
				want: Fault{Signal: unix.SIGBUS, Page: 1}, why: "the page lies wholly past the end of the file; the file has 100 bytes in 1 page"},
			{name: "store past the end", size: p, opts: Options{Length: 2 * p, Prot: protRW, Writable: true}, store: true, off: p,
				want: Fault{Signal: unix.SIGBUS, Page: 1}, why: fmt.Sprintf("the page lies wholly past the end of the file; the file has %d bytes in 1 page", p)},
			{name: "private past the end", size: p, opts: Options{Length: 2 * p, Prot: protRW, Private: true}, store: true, off: p,
				want: Fault{Signal: unix.SIGBUS, Page: 1}, why: fmt.Sprintf("the page lies wholly past the end of the file; the file has %d bytes in 1 page", p)},
			{name: "with an offset", size: 2*p + 1, opts: Options{Offset: 2 * p, Length: 3 * p, Prot: unix.PROT_READ}, off: 2 * p,
				want: Fault{Signal: unix.SIGBUS, Page: 4}, why: fmt.Sprintf("the page lies wholly past the end of the file; the file has %d bytes in 3 pages", 2*p+1)},
			{name: "of an empty file", size: 0, opts: Options{Length: 1, Prot: unix.PROT_READ},
				want: Fault{Signal: unix.SIGBUS, Page: 0}, why: "the page lies wholly past the end of the file; the file has 0 bytes in 0 pages"},
			{name: "cut", size: 2 * p, opts: Options{Length: ToEnd, Prot: unix.PROT_READ}, off: p,
				before: func(_ *Mapping, path string) error { return os.Truncate(path, 1) },
				want:   Fault{Signal: unix.SIGBUS, Page: 1},
				why:    fmt.Sprintf("the page lies wholly past the end of the file, which was cut from %d bytes since; the file has 1 byte in 1 page", 2*p)},
			{name: "none", size: p, opts: Options{Length: ToEnd}, off: 5,
				want: Fault{Signal: unix.SIGSEGV, Page: 0}, why: fmt.Sprintf("its protection, ---, forbids a load; the file has %d bytes in 1 page", p)},
			{name: "none past the end", size: 1, opts: Options{Length: 2 * p}, off: p,
				want: Fault{Signal: unix.SIGSEGV, Page: 1}, why: "its protection, ---, forbids a load; the file has 1 byte in 1 page"},
			{name: "read-only", size: 5, opts: Options{Length: ToEnd, Prot: unix.PROT_READ, Writable: true}, store: true, off: 3,
				want: Fault{Signal: unix.SIGSEGV, Page: 0}, why: "its protection, r--, forbids a store; the file has 5 bytes in 1 page"},
			{name: "mprotect", size: 2 * p, opts: Options{Length: ToEnd, Prot: protRW, Writable: true}, store: true, off: p,
				before: func(m *Mapping, _ string) error { return m.Mprotect(p, p, unix.PROT_READ|unix.PROT_EXEC) },
				want:   Fault{Signal: unix.SIGSEGV, Page: 1}, why: fmt.Sprintf("its protection, r-x, forbids a store; the file has %d bytes in 2 pages", 2*p)},
			{name: "munmap", size: 2 * p, opts: Options{Length: ToEnd, Prot: protRW, Writable: true}, store: true, off: p + 1,
				before: func(m *Mapping, _ string) error { return m.Munmap(p, p) },
				want:   Fault{Signal: unix.SIGSEGV, Page: 1}, why: fmt.Sprintf("it was unmapped; the file has %d bytes in 2 pages", 2*p)},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				path := newFile(t, dir, test.size)
				m := mustMap(t, path, test.opts)
				if test.before != nil {
					if err := test.before(m, path); err != nil {
						t.Fatal(err)
					}
				}
				access := "load"
				_, err := m.LoadBytes(test.off, 1)
				if test.store {
					access = "store"
					_, err = m.Store([]byte("x"), test.off)
				}
				var got *Fault
				if !errors.As(err, &got) {
					t.Fatalf("got %v, want a fault", err)
				}
				if got.Signal != test.want.Signal || got.Page != test.want.Page || got.Access != access ||
					got.Addr != m.address(test.off) || got.Offset != test.opts.Offset+test.off {
					t.Errorf("got %+v", got)
				}
				name := map[bool]string{true: "SIGBUS", false: "SIGSEGV"}[test.want.Signal == unix.SIGBUS]
				want := fmt.Sprintf("%s: %s at address 0x%x, page %d of %s (offset %d): %s",
					name, access, m.address(test.off), test.want.Page, path, test.opts.Offset+test.off, test.why)
				if got.Error() != want {
					t.Errorf("got  %v\nwant %s", got, want)
				}
			})
		}
	})
}

// TestFaultAfterPages checks that all before a fault was done.
func TestFaultAfterPages(t *testing.T) {
	p := paging.PageSize
	path := newFile(t, t.TempDir(), p+1)
	m := mustMap(t, path, Options{Length: 3 * p, Prot: protRW, Writable: true})
	b, err := m.LoadBytes(1, 3*p-1)
	if int64(len(b)) != 2*p-1 || !errors.As(err, new(*Fault)) {
		t.Errorf("loaded %d bytes, %v, want %d and a fault", len(b), err, 2*p-1)
	}
	n, err := m.Store(make([]byte, 3*p), 0)
	if int64(n) != 2*p || !errors.As(err, new(*Fault)) {
		t.Errorf("stored %d bytes, %v, want %d and a fault", n, err, 2*p)
	}
}

// TestGuardElsewhere checks that a bug is not taken for a fault of the mapping.
func TestGuardElsewhere(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a nil pointer was taken for a fault of the mapping")
		}
	}()
	var nothing *int
	guarded(make([]byte, 8), func() { *nothing = 1 })
}
