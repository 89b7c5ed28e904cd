package explicit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping"
	"mapfs/mapping/paging"
)

func TestExplicitMsyncErrors(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 6)
		page := uintptr(paging.PageSize)
		start, end := a.Bounds()
		m := a.must("m", unix.MAP_SHARED, 6)
		if err := m.Unmap(2*paging.PageSize, 2*paging.PageSize); err != nil {
			t.Fatal(err)
		}
		if err := m.Mlock(5*paging.PageSize, paging.PageSize); err != nil {
			t.Fatal(err)
		}
		dirty := func() {
			t.Helper()
			for _, p := range []int64{0, 1, 4, 5} {
				if _, err := m.WriteAt([]byte{1}, p*paging.PageSize); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range []struct {
			name   string
			addr   uintptr
			length uint64
			flags  int
			want   syscall.Errno
			left   int64 // unsynced pages afterwards
		}{
			{"unaligned", start + 1, 1, unix.MS_SYNC, syscall.EINVAL, 4},
			{"sync and async", start, 1, unix.MS_SYNC | unix.MS_ASYNC, syscall.EINVAL, 4},
			{"unknown flag", start, 1, 64, syscall.EINVAL, 4},
			{"outside", 0x10000, 1, unix.MS_SYNC, syscall.ENOMEM, 4},
			{"past the end", end - page, uint64(2 * page), unix.MS_SYNC, syscall.ENOMEM, 4},
			{"a hole alone", start + 2*page, uint64(page), unix.MS_SYNC, syscall.ENOMEM, 4},
			{"nothing", start, 0, unix.MS_SYNC, 0, 4},
			{"one page, one byte", start, 1, unix.MS_SYNC, 0, 3},
			{"both sides of a hole", start, uint64(6 * page), unix.MS_SYNC, syscall.ENOMEM, 0},
			{"from a hole", start + 3*page, uint64(3 * page), unix.MS_SYNC, syscall.ENOMEM, 2},
			{"async", start, uint64(2 * page), unix.MS_ASYNC, 0, 4},
			{"no flag", start, uint64(2 * page), 0, 0, 4},
			{"invalidate", start, uint64(2 * page), unix.MS_INVALIDATE, 0, 4},
			{"invalidate, locked", start + 4*page, uint64(2 * page), unix.MS_INVALIDATE, syscall.EBUSY, 4},
			{"sync, invalidate, locked", start + 5*page, uint64(page), unix.MS_SYNC | unix.MS_INVALIDATE, syscall.EBUSY, 4},
		} {
			mustSync(t, a.f)
			dirty()
			a.events.take()
			wantErrno(t, c.name, a.Msync(c.addr, c.length, c.flags), c.want)
			if got := a.f.UnsyncedPages(); got != c.left {
				t.Errorf("%s: %d pages are unsynced, want %d", c.name, got, c.left)
			}
			if a.f.Failure() != nil {
				t.Errorf("%s is taken for a failed write-back", c.name)
			}
			for _, e := range a.events.take() {
				if e.Kind != mapping.EventMsync || e.Mapping != "m" || e.Flags != c.flags {
					t.Errorf("%s: event %+v", c.name, e)
				}
			}
		}
		mustSync(t, a.f)
		wantErrno(t, "past the mapping", m.Msync(5*paging.PageSize, 2*paging.PageSize, unix.MS_SYNC), syscall.ENOMEM)
	})
}

// TestReadOnlyMsync: a mapping that the kernel would write nothing back for leaves
// the pages unsynced, as msync(2) does.
func TestReadOnlyMsync(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 2)
	m, err := a.mmap(unix.O_RDONLY, Request{Name: "ro", Length: uint64(2 * paging.PageSize), Prot: unix.PROT_READ, Flags: unix.MAP_SHARED})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, a.f, []byte("x"), 0)
	if err := m.Msync(0, paging.PageSize, unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	if got := a.f.UnsyncedPages(); got != 1 {
		t.Errorf("%d pages are unsynced, want the one that msync did not write", got)
	}
}

// TestStagedAndExplicit: an explicit mapping is of the backing file, and neither a
// store through it nor its msync says anything of what is staged.
func TestStagedAndExplicit(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 2)
	if err := a.f.SetMode(mapping.Staged); err != nil {
		t.Fatal(err)
	}
	m := a.must("m", unix.MAP_SHARED, 2)
	mustWrite(t, a.f, []byte("staged"), 0)
	want := unsyncedOf(a.f)
	if len(want) == 0 {
		t.Fatal("nothing is unsynced after a write")
	}
	if _, err := m.WriteAt([]byte("stored"), paging.PageSize); err != nil {
		t.Fatal(err)
	}
	if err := m.Msync(0, m.Length(), unix.MS_SYNC); err != nil {
		t.Fatal(err)
	}
	if got := unsyncedOf(a.f); !slices.Equal(got, want) {
		t.Errorf("unsynced %q, want %q", got, want)
	}
	var b [6]byte
	if _, err := m.ReadAt(b[:], 0); err != nil || string(b[:]) == "staged" {
		t.Errorf("before the sync the mapping has %q, %v", b, err)
	}
	mustSync(t, a.f)
	if _, err := m.ReadAt(b[:], 0); err != nil || string(b[:]) != "staged" {
		t.Errorf("after the sync the mapping has %q, %v", b, err)
	}
	if _, err := m.ReadAt(b[:], paging.PageSize); err != nil || string(b[:]) != "stored" {
		t.Errorf("the other page has %q, %v", b, err)
	}
}

// TestExplicitMsyncFails: a failed write-back is sticky for the file, whoever
// began it.
func TestExplicitMsyncFails(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 2)
	m := a.must("m", unix.MAP_SHARED, 2)
	if _, err := m.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	seen := a.f.Failures()
	real := a.system.Msync
	a.system.Msync = func([]byte, int) error { return syscall.EIO }
	wantErrno(t, "msync", m.Msync(0, paging.PageSize, unix.MS_SYNC), syscall.EIO)
	a.system.Msync = real
	if a.f.UnsyncedPages() != 1 || a.f.Failure() == nil {
		t.Error("the failure is forgotten")
	}
	wantErrno(t, "the next sync", a.f.Sync(&seen, false), syscall.EIO)
	wantErrno(t, "the one after it", a.f.Sync(&seen, false), 0)
	if a.f.UnsyncedPages() != 0 {
		t.Error("still unsynced")
	}
}

func TestExplicitMadvise(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 4)
	page := uintptr(paging.PageSize)
	start, _ := a.Bounds()
	m := a.must("m", unix.MAP_PRIVATE, 4)
	if err := m.Mlock(0, paging.PageSize); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmap(2*paging.PageSize, paging.PageSize); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		addr   uintptr
		length uint64
		advice int
		want   syscall.Errno
	}{
		{"unaligned", start + 1, 1, unix.MADV_WILLNEED, syscall.EINVAL},
		{"outside", 0x10000, 1, unix.MADV_WILLNEED, syscall.ENOMEM},
		{"unknown", start, 1, 12345, syscall.EINVAL},
		{"dontneed, locked", start, 1, unix.MADV_DONTNEED, syscall.EINVAL},
		{"dontneed", start + page, 1, unix.MADV_DONTNEED, 0},
		{"willneed", start, uint64(2 * page), unix.MADV_WILLNEED, 0},
		{"over a hole", start + page, uint64(3 * page), unix.MADV_WILLNEED, syscall.ENOMEM},
		{"nothing", start, 0, unix.MADV_WILLNEED, 0},
	} {
		wantErrno(t, c.name, a.Madvise(c.addr, c.length, c.advice), c.want)
	}
}

func TestExplicitMlock(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 6)
	page := uintptr(paging.PageSize)
	start, _ := a.Bounds()
	m := a.must("m", unix.MAP_SHARED, 6)
	locked := func() (text string) {
		for _, seg := range m.Segments() {
			for range int64(seg.End-seg.Start) / paging.PageSize {
				text += map[bool]string{true: "L", false: "-"}[seg.Locked]
			}
		}
		return text
	}
	if err := m.Mprotect(5*paging.PageSize, paging.PageSize, unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		lock   bool
		addr   uintptr
		length uint64
		want   syscall.Errno
		locked string
	}{
		{"unaligned", true, start + 1, 1, syscall.EINVAL, "------"},
		{"outside", true, 0x10000, 1, syscall.ENOMEM, "------"},
		{"into a hole", true, start, uint64(7 * page), syscall.ENOMEM, "------"},
		{"no access to the last", true, start, uint64(6 * page), syscall.ENOMEM, "------"},
		{"two", true, start + page, uint64(2 * page), 0, "-LL---"},
		{"again", true, start + 2*page, uint64(2 * page), 0, "-LLL--"},
		{"a failure leaves what was locked", true, start + 3*page, uint64(3 * page), syscall.ENOMEM, "-LLL--"},
		{"the middle not", false, start + 2*page, 1, 0, "-L-L--"},
		{"unlock over a hole", false, start, uint64(7 * page), syscall.ENOMEM, "-L-L--"},
		{"all not", false, start, uint64(6 * page), 0, "------"},
	} {
		call := a.Munlock
		if c.lock {
			call = a.Mlock
		}
		wantErrno(t, c.name, call(c.addr, c.length), c.want)
		if got := locked(); got != c.locked {
			t.Errorf("%s: locked %s, want %s", c.name, got, c.locked)
		}
	}
	l, err := a.mmap(unix.O_RDWR, Request{Name: "l", Length: 1, Prot: unix.PROT_READ, Flags: unix.MAP_PRIVATE | unix.MAP_LOCKED | unix.MAP_POPULATE})
	if err != nil || !l.Segments()[0].Locked {
		t.Errorf("MAP_LOCKED: %+v, %v", l.Segments(), err)
	}
}

// TestSegmentLimit: the count of map areas is bounded, whatever splits them.
func TestSegmentLimit(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 1)
	a.maxSegments = 300
	m := a.must("m", unix.MAP_SHARED, 1000)
	one := func(i int) (off, length int64) { return int64(2*i+1) * paging.PageSize, paging.PageSize }
	split := map[string]func(off, length int64) error{
		"mprotect": func(off, length int64) error { return m.Mprotect(off, length, unix.PROT_READ) },
		"mlock":    func(off, length int64) error { return m.Mlock(off, length) },
		"munmap":   func(off, length int64) error { return m.Unmap(off, length) },
	}
	// Most of the way by the fastest.
	i := 0
	for ; len(a.list())+2 <= a.maxSegments; i++ {
		if err := m.Mprotect(one2(one(i))); err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range split {
		if name == "munmap" {
			continue // splits in two only
		}
		wantErrno(t, name, call(one(i)), syscall.ENOMEM)
	}
	for {
		err := split["munmap"](one(i))
		if err != nil {
			wantErrno(t, "munmap", err, syscall.ENOMEM)
			break
		}
		i++
	}
	if n := len(a.list()); n != a.maxSegments {
		t.Errorf("%d map areas, want %d", n, a.maxSegments)
	}
	_, err := a.mmap(unix.O_RDWR, Request{Name: "x", Length: 1, Flags: unix.MAP_SHARED})
	wantErrno(t, "mmap", err, syscall.ENOMEM)
	a.agree()
	if err := m.Unmap(0, m.Length()); err != nil || len(a.list()) != 0 {
		t.Errorf("all of it: %v, %d left", err, len(a.list()))
	}
}

func one2(off, length int64) (int64, int64, int) { return off, length, unix.PROT_READ }

// TestArenaSurvivesFailures: a system call that fails leaves the list as it was,
// and an address that cannot be reserved again is never given out.
func TestArenaSurvivesFailures(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 4)
	m := a.must("m", unix.MAP_SHARED, 4)
	calls := *a.calls
	a.calls.mmap = func([]byte, int, int64, int, int) error { return syscall.ENOMEM }
	wantErrno(t, "munmap", m.Unmap(0, paging.PageSize), syscall.ENOMEM)
	a.agree()
	// A protection of which the second half is refused is given back.
	if err := m.Mprotect(2*paging.PageSize, paging.PageSize, unix.PROT_READ); err != nil {
		t.Fatal(err)
	}
	n := 0
	a.calls.mprotect = func(mem []byte, prot int) error {
		if n++; n == 2 {
			return syscall.ENOMEM
		}
		return calls.mprotect(mem, prot)
	}
	wantErrno(t, "mprotect", m.Mprotect(0, m.Length(), unix.PROT_NONE), syscall.ENOMEM)
	a.calls.mprotect = calls.mprotect
	a.agree()
	// mmap fails, and so does the reservation in its place.
	_, err := a.mmap(unix.O_RDWR, Request{Name: "x", Length: 1, Flags: unix.MAP_SHARED})
	wantErrno(t, "mmap", err, syscall.ENOMEM)
	a.calls.mmap = calls.mmap
	_, err = a.mmap(unix.O_RDWR, Request{Name: "x", Length: 1, Flags: unix.MAP_SHARED})
	wantErrno(t, "mmap after addresses were lost", err, syscall.ENOMEM)
	if a.Find("x") != nil || len(m.Segments()) != 3 {
		t.Error("the list changed")
	}
}

// TestExplicitConcurrency: loads, stores and commands of every kind at once, on
// mappings that come and go. Nobody sees a byte of a mapping that is not theirs:
// every file has bytes of its own.
func TestExplicitConcurrency(t *testing.T) {
	dir := t.TempDir()
	table := newTestTable(t, mapping.Config{})
	arena := newTestArena(t)
	const files, pages, rounds = 3, 4, 150
	type target struct {
		f  *mapping.File
		fd int
	}
	var targets []target
	for i := range files {
		path := fmt.Sprint(dir, "/", i)
		f := openTest(t, table, path)
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		p := make([]byte, pages*paging.PageSize)
		for j := range p {
			p[j] = byte('a' + i)
		}
		mustWrite(t, f, p, 0)
		targets = append(targets, target{f, fd})
	}
	start, _ := arena.Bounds()
	var current [files]atomic.Pointer[Mapping]
	fine := func(err error) {
		var errno syscall.Errno
		if err == nil || errors.As(err, &errno) && (errno == syscall.ESTALE || errno == syscall.EFAULT || errno == syscall.ENOMEM || errno == syscall.EEXIST || errno == syscall.EINVAL || errno == syscall.EBUSY) {
			return
		}
		t.Errorf("%v", err)
	}
	var wg sync.WaitGroup
	run := func(seed uint64, step func(r *rand.Rand)) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			for range rounds {
				step(r)
			}
		})
	}
	for i := range files {
		// One who maps, anywhere or over the others, and unmaps.
		run(uint64(i), func(r *rand.Rand) {
			request := Request{
				Name: fmt.Sprint(i), Length: uint64(pages * paging.PageSize), Writable: true,
				Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: unix.MAP_SHARED,
			}
			if r.IntN(2) == 0 {
				request.Addr = start + uintptr(r.Int64N(2*pages)*paging.PageSize)
				request.Flags |= unix.MAP_FIXED
			}
			m, err := arena.Mmap(targets[i].f, targets[i].fd, request)
			fine(err)
			if m != nil {
				current[i].Store(m)
			}
			if m := current[i].Load(); m != nil && r.IntN(2) == 0 {
				fine(m.Unmap(0, m.Length()))
			}
		})
		// Those who load and store.
		for j := range 2 {
			run(uint64(100+10*i+j), func(r *rand.Rand) {
				m := current[i].Load()
				if m == nil {
					return
				}
				p := make([]byte, r.IntN(int(2*paging.PageSize))+1)
				n, err := m.ReadAt(p, r.Int64N(pages*paging.PageSize))
				fine(err)
				for _, b := range p[:n] {
					if b != byte('a'+i) {
						t.Errorf("a byte %q in the mapping of file %d", b, i)
						return
					}
				}
				for k := range p {
					p[k] = byte('a' + i)
				}
				_, err = m.WriteAt(p, r.Int64N(pages*paging.PageSize))
				fine(err)
			})
		}
	}
	// Commands on whatever is there.
	for j := range 2 {
		run(uint64(1000+j), func(r *rand.Rand) {
			addr, length := start+uintptr(r.Int64N(3*pages)*paging.PageSize), uint64(r.Int64N(2*pages)*paging.PageSize)
			switch r.IntN(6) {
			case 0:
				fine(arena.Mprotect(addr, length, []int{unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE}[r.IntN(3)]))
			case 1:
				fine(arena.Msync(addr, length, []int{unix.MS_SYNC, unix.MS_ASYNC, unix.MS_INVALIDATE}[r.IntN(3)]))
			case 2:
				fine(arena.Mlock(addr, length))
			case 3:
				fine(arena.Munlock(addr, length))
			case 4:
				fine(arena.Munmap(addr, length))
			case 5:
				for _, m := range arena.Mappings() {
					m.Segments()
					m.UnsyncedBytes()
					m.CopiedPages()
				}
			}
		})
	}
	wg.Wait()
	(&arenaTest{Arena: arena, t: t}).agree()
	for i, target := range targets {
		p := make([]byte, pages*paging.PageSize)
		if _, err := target.f.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		for _, b := range p {
			if b != byte('a'+i) {
				t.Fatalf("file %d has a byte %q", i, b)
			}
		}
	}
}
