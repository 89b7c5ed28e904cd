package explicit

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// eventList is an Observer that remembers.
type eventList struct {
	mu     sync.Mutex
	events []mapping.Event
}

func (l *eventList) Observe(e mapping.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// take returns the events of explicit mappings since the last take.
func (l *eventList) take() (events []mapping.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Mapping != "" {
			events = append(events, e)
		}
	}
	l.events = nil
	return events
}

// arenaTest is a file of some pages, known by their first bytes, in a table of its
// own.
type arenaTest struct {
	*Arena
	t      testing.TB
	f      *mapping.File
	path   string
	events *eventList
	system *sys.System // of the file's table
}

// newArenaTest makes the file with the given number of pages, and 100 bytes more.
func newArenaTest(t testing.TB, dir string, pages int) *arenaTest {
	t.Helper()
	events := new(eventList)
	system := sys.New()
	table := newTestTable(t, mapping.Config{Observer: events, System: system})
	path := filepath.Join(dir, "f")
	f := openTest(t, table, path)
	f.SetName("f")
	if pages > 0 {
		mustWrite(t, f, filetest.Pattern(pages*int(paging.PageSize)+100, 7), 0)
		mustSync(t, f)
	}
	return &arenaTest{newTestArena(t), t, f, path, events, system}
}

// newTestArena returns an arena that is closed, and found without leaks, at the end of
// the test.
func newTestArena(t testing.TB) *Arena {
	t.Helper()
	a := NewArena(slog.Default(), sys.FreeAddressSpace()/4)
	t.Cleanup(func() {
		a.Close()
		if n, length := a.Size(); n != 0 || length != 0 {
			t.Errorf("after Close: %d mappings of %d bytes, want none", n, length)
		}
	})
	return a
}

func mustSync(t testing.TB, f *mapping.File) {
	t.Helper()
	seen := f.Failures()
	if err := f.Sync(&seen, false); err != nil {
		t.Fatal(err)
	}
}

// mmap maps with a descriptor of the given access mode.
func (a *arenaTest) mmap(access int, r Request) (*Mapping, error) {
	a.t.Helper()
	fd, err := unix.Open(a.path, access|unix.O_CLOEXEC, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	defer unix.Close(fd)
	r.Writable = access == unix.O_RDWR
	return a.Arena.Mmap(a.f, fd, r)
}

// must is mmap of pages pages, read-write, that must succeed.
func (a *arenaTest) must(name string, flags, pages int) *Mapping {
	a.t.Helper()
	m, err := a.mmap(unix.O_RDWR, Request{Name: name, Length: uint64(pages) * uint64(paging.PageSize), Prot: unix.PROT_READ | unix.PROT_WRITE, Flags: flags})
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// wantErrno checks the errno at the bottom of an error; 0 is none.
func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	var got syscall.Errno
	if err != nil && !errors.As(err, &got) {
		t.Fatalf("%s: %v has no errno", what, err)
	}
	if got != want {
		t.Errorf("%s: %v, want errno %d (%v)", what, err, want, want)
	}
}

// kernelMaps is what the kernel has in the arena: by address, the permissions of
// each mapped page and its offset in the file; and in how many map areas.
func (a *arenaTest) kernelMaps() (pages map[uintptr]string, areas int) {
	a.t.Helper()
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		a.t.Fatal(err)
	}
	pages = make(map[uintptr]string)
	covered := a.span.start
	for line := range lines(text) {
		var start, end uintptr
		var perms, dev string
		var off, inode int64
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &perms, &off, &dev, &inode); err != nil {
			a.t.Fatalf("%q: %v", line, err)
		}
		if end <= a.span.start || start >= a.span.end {
			continue
		}
		// The kernel may have joined the reservation with a like neighbour.
		if start = max(start, a.span.start); start != covered {
			a.t.Fatalf("%x-%x of the arena is not mapped: the Go heap could get it", covered, start)
		}
		covered = min(end, a.span.end)
		if inode == 0 {
			continue // reserved
		}
		areas++
		for at := start; at < end; at += uintptr(paging.PageSize) {
			pages[at] = fmt.Sprintf("%s %x", perms, off+int64(at-start))
		}
	}
	if covered != a.span.end {
		a.t.Fatalf("%x-%x of the arena is not mapped", covered, a.span.end)
	}
	return pages, areas
}

func lines(text []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for len(text) > 0 {
			i := slices.Index(text, '\n')
			if i < 0 || !yield(string(text[:i])) {
				return
			}
			text = text[i+1:]
		}
	}
}

// agree checks that the arena's list is what the kernel has, apart from locks,
// which the kernel's rows do not show, and that it counts all the kernel's areas.
func (a *arenaTest) agree() {
	a.t.Helper()
	want := make(map[uintptr]string)
	for _, seg := range a.list() {
		perms := []byte("---p")
		for i, bit := range []int{unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC} {
			if seg.prot&bit != 0 {
				perms[i] = "rwx"[i]
			}
		}
		if seg.m.shared() {
			perms[3] = 's'
		}
		for at := seg.start; at < seg.end; at += uintptr(paging.PageSize) {
			want[at] = fmt.Sprintf("%s %x", perms, seg.m.fileOffset(at))
		}
	}
	got, areas := a.kernelMaps()
	if !maps.Equal(got, want) {
		a.t.Fatalf("the kernel has\n%v, the arena\n%v", got, want)
	}
	if areas > len(a.list()) {
		a.t.Fatalf("the kernel has %d map areas, the arena counts %d", areas, len(a.list()))
	}
}

func TestMmapArguments(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 3)
	page := uint64(paging.PageSize)
	start, end := a.Bounds()
	first := a.must("first", unix.MAP_SHARED, 2)
	if first.Start() != start {
		t.Errorf("the first mapping is at %x, want the lowest place, %x", first.Start(), start)
	}
	const rw = unix.PROT_READ | unix.PROT_WRITE
	for _, c := range []struct {
		name   string
		access int
		r      Request
		want   syscall.Errno
	}{
		{"no length", unix.O_RDWR, Request{Flags: unix.MAP_SHARED}, syscall.EINVAL},
		{"no sharing", unix.O_RDWR, Request{Length: page}, syscall.EINVAL},
		{"both sharings", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED | unix.MAP_PRIVATE}, syscall.EINVAL},
		{"anonymous", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, syscall.EINVAL},
		{"grows down", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_PRIVATE, Prot: unix.PROT_GROWSDOWN}, syscall.EINVAL},
		{"offset", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED, Offset: 100}, syscall.EINVAL},
		{"negative offset", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED, Offset: -paging.PageSize}, syscall.EINVAL},
		{"last offset", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED, Offset: paging.PageDown(math.MaxInt64)}, syscall.EOVERFLOW},
		{"past any file", unix.O_RDWR, Request{Length: 1 << 30, Flags: unix.MAP_SHARED, Offset: paging.PageDown(math.MaxInt64) - 1<<20}, syscall.EOVERFLOW},
		{"longest", unix.O_RDWR, Request{Length: math.MaxUint64, Flags: unix.MAP_SHARED}, syscall.ENOMEM},
		{"longest off_t", unix.O_RDWR, Request{Length: math.MaxInt64, Flags: unix.MAP_SHARED}, syscall.ENOMEM},
		{"larger than the arena", unix.O_RDWR, Request{Length: uint64(end-start) + page, Flags: unix.MAP_SHARED}, syscall.ENOMEM},
		{"shared, w, read-only", unix.O_RDONLY, Request{Length: page, Prot: rw, Flags: unix.MAP_SHARED}, syscall.EACCES},
		{"write-only", unix.O_WRONLY, Request{Length: page, Prot: unix.PROT_WRITE, Flags: unix.MAP_SHARED}, syscall.EACCES},
		{"fixed outside", unix.O_RDWR, Request{Addr: 0x10000, Length: page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"fixed at 0", unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"fixed over the end", unix.O_RDWR, Request{Addr: end - uintptr(page), Length: 2 * page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"fixed before the start", unix.O_RDWR, Request{Addr: start - uintptr(page), Length: 2 * page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"fixed at the highest", unix.O_RDWR, Request{Addr: math.MaxUint64 &^ uintptr(page-1), Length: 2 * page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"fixed unaligned", unix.O_RDWR, Request{Addr: start + 1, Length: page, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EINVAL},
		{"noreplace, taken", unix.O_RDWR, Request{Addr: start + uintptr(page), Length: 2 * page, Flags: unix.MAP_SHARED | unix.MAP_FIXED_NOREPLACE}, syscall.EEXIST},
		{"fixed, refused by the kernel", unix.O_RDONLY, Request{Addr: start, Length: page, Prot: rw, Flags: unix.MAP_SHARED | unix.MAP_FIXED}, syscall.EACCES},
	} {
		c.r.Name = "x"
		if c.access == unix.O_WRONLY {
			// The daemon's own user may read it, so the kernel is asked about the descriptor.
			c.r.Writable = true
		}
		m, err := a.mmap(c.access, c.r)
		wantErrno(t, c.name, err, c.want)
		if m != nil || a.Find("x") != nil || len(a.list()) != 1 || first.Gone() {
			t.Fatalf("%s: something was changed", c.name)
		}
		a.agree()
	}
	_, err := a.mmap(unix.O_RDWR, Request{Name: "first", Length: page, Flags: unix.MAP_SHARED})
	wantErrno(t, "a name in use", err, syscall.EEXIST)
	_, err = a.mmap(unix.O_RDWR, Request{Length: page, Flags: unix.MAP_SHARED})
	wantErrno(t, "no name", err, syscall.EINVAL)
}

// TestMmapPlaces: a hint is taken if it is free, else the lowest place is; fixed
// replaces, splitting what it covers, and fixed_noreplace does not.
func TestMmapPlaces(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 8)
	page := uintptr(paging.PageSize)
	start, end := a.Bounds()
	at := func(name string, addr uintptr, pages, flags int) uintptr {
		t.Helper()
		m, err := a.mmap(unix.O_RDWR, Request{Name: name, Addr: addr, Length: uint64(pages) * uint64(page), Prot: unix.PROT_READ, Flags: unix.MAP_SHARED | flags})
		if err != nil {
			t.Fatal(err)
		}
		a.agree()
		return m.Start()
	}
	for _, c := range []struct {
		name      string
		addr      uintptr
		pages     int
		flags     int
		want      uintptr
		wantPages int // of the mapping "big" that are left
	}{
		{"big", 0, 6, 0, start, 6},
		{"hint", start + 20*page, 1, 0, start + 20*page, 6},
		{"unaligned hint", start + 30*page + 123, 1, 0, start + 30*page, 6},
		{"hint, taken", start + 5*page, 2, 0, start + 6*page, 6},
		{"hint, outside", 0x1000, 1, 0, start + 8*page, 6},
		{"hint, above all", math.MaxUint64, 1, 0, start + 9*page, 6},
		{"hint, last page", end - page, 1, 0, end - page, 6},
		{"hint, past the end", end, 1, 0, start + 10*page, 6},
		{"noreplace", start + 40*page, 1, unix.MAP_FIXED_NOREPLACE, start + 40*page, 6},
		{"middle", start + 2*page, 2, unix.MAP_FIXED, start + 2*page, 4},
		{"head", start, 1, unix.MAP_FIXED, start, 3},
		{"tail", start + 5*page, 1, unix.MAP_FIXED, start + 5*page, 2},
	} {
		if got := at(c.name, c.addr, c.pages, c.flags); got != c.want {
			t.Errorf("%s is at %x, want %x", c.name, got, c.want)
		}
		left := int64(0)
		for _, seg := range a.Find("big").Segments() {
			left += int64(seg.End - seg.Start)
		}
		if left != int64(c.wantPages)*paging.PageSize {
			t.Errorf("%s: big has %d bytes left, want %d pages", c.name, left, c.wantPages)
		}
	}
	// Offsets keep what they mean, and what others have taken is not big's.
	big := a.Find("big")
	for i, want := range []syscall.Errno{syscall.EFAULT, 0, syscall.EFAULT, syscall.EFAULT, 0, syscall.EFAULT} {
		var b [1]byte
		_, err := big.ReadAt(b[:], int64(i)*paging.PageSize)
		wantErrno(t, fmt.Sprint("page ", i, " of big"), err, want)
	}
	at("all", start, 50, unix.MAP_FIXED)
	if a.Find("big") != nil || !big.Gone() {
		t.Error("big outlives its last page")
	}
}

func TestMunmap(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 8)
	page := uintptr(paging.PageSize)
	start, end := a.Bounds()
	m := a.must("m", unix.MAP_SHARED, 6)
	a.must("n", unix.MAP_SHARED, 2)
	for _, c := range []struct {
		name   string
		addr   uintptr
		length uint64
		want   syscall.Errno
	}{
		{"unaligned", start + 1, 1, syscall.EINVAL},
		{"no length", start, 0, syscall.EINVAL},
		{"outside", 0x10000, 4096, syscall.EINVAL},
		{"before", start - page, uint64(2 * page), syscall.EINVAL},
		{"past the end", end - page, uint64(2 * page), syscall.EINVAL},
		{"at the end", end, uint64(page), syscall.EINVAL},
		{"around the world", start, math.MaxUint64, syscall.EINVAL},
		{"nothing there", start + 100*page, uint64(page), 0},
	} {
		wantErrno(t, c.name, a.Munmap(c.addr, c.length), c.want)
		if len(m.Segments()) != 1 || len(a.list()) != 2 {
			t.Fatalf("%s: something was unmapped", c.name)
		}
	}
	a.events.take()
	wantErrno(t, "one page, a length of 1", a.Munmap(start+2*page, 1), 0)
	a.agree()
	if got := m.Segments(); len(got) != 2 || got[1].Offset != 3*paging.PageSize {
		t.Errorf("segments %+v", got)
	}
	if got := a.events.take(); len(got) != 1 || got[0].Kind != mapping.EventUnmap || got[0].Addr != start+2*page || got[0].Length != paging.PageSize || got[0].Mapping != "m" {
		t.Errorf("events %+v", got)
	}
	wantErrno(t, "over two mappings and a hole", a.Munmap(start+page, uint64(6*page)), 0)
	a.agree()
	if got := a.list(); len(got) != 2 || got[0].m != m || got[1].m.name != "n" {
		t.Errorf("left: %+v", got)
	}
	wantErrno(t, "all of m", m.Unmap(0, m.Length()), 0)
	if !m.Gone() || a.Find("m") != nil || len(a.list()) != 1 {
		t.Error("m is not gone")
	}
	var b [1]byte
	_, err := m.ReadAt(b[:], 0)
	wantErrno(t, "load after the end", err, syscall.ESTALE)
	_, err = m.WriteAt(b[:], 0)
	wantErrno(t, "store after the end", err, syscall.ESTALE)
	wantErrno(t, "pages after the end", m.Inspect(new(pagestate.Sources), 0, 6, func(pagestate.Run) bool { return true }), syscall.ESTALE)
	a.agree()
	// The addresses are free again.
	if n := a.must("m", unix.MAP_SHARED, 6); n.Start() != start || n.Serial() == m.Serial() {
		t.Errorf("a new m is at %x", n.Start())
	}
	_, err = m.ReadAt(b[:], 0)
	wantErrno(t, "the old m where the new one is", err, syscall.ESTALE)
}

// TestProtections: loads and stores under every protection, as the hardware has
// it, each fault with its event.
func TestProtections(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		a := newArenaTest(t, dir, 2)
		const r, w, x = unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC
		m := a.must("m", unix.MAP_PRIVATE, 2)
		for _, c := range []struct {
			prot        int
			load, store bool
		}{
			{unix.PROT_NONE, false, false}, {r, true, false}, {r | w, true, true}, {r | x, true, false}, {r | w | x, true, true},
		} {
			err := m.Mprotect(0, paging.PageSize, c.prot)
			if noexec(t, dir) && c.prot&x != 0 {
				wantErrno(t, "PROT_EXEC of a file mounted noexec", err, syscall.EPERM)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			a.agree()
			a.events.take()
			b := []byte{1}
			_, err = m.ReadAt(b, 5)
			wantErrno(t, fmt.Sprintf("load with %x", c.prot), err, map[bool]syscall.Errno{true: 0, false: syscall.EFAULT}[c.load])
			_, err = m.WriteAt(b, 5)
			wantErrno(t, fmt.Sprintf("store with %x", c.prot), err, map[bool]syscall.Errno{true: 0, false: syscall.EFAULT}[c.store])
			faults := 0
			for _, e := range a.events.take() {
				if e.Kind == mapping.EventFault {
					faults++
					if e.Signal != syscall.SIGSEGV || e.Addr != m.Start()+5 || e.Off != 0 || e.Mapping != "m" {
						t.Errorf("fault %+v", e)
					}
				}
			}
			if want := map[bool]int{true: 0, false: 1}[c.load] + map[bool]int{true: 0, false: 1}[c.store]; faults != want {
				t.Errorf("with %x: %d faults, want %d", c.prot, faults, want)
			}
			// The page beside it is as it was.
			if _, err := m.WriteAt(b, paging.PageSize); err != nil {
				t.Errorf("the second page: %v", err)
			}
		}
	})
}

// noexec reports whether nothing in dir may be run: /dev/shm of a container is so.
func noexec(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Flags&unix.ST_NOEXEC != 0
}

// TestHalfProtections: whether what may only be stored or run can be loaded too is
// up to the processor. A fault is one of the protection, unless the page is past
// the end of the file.
func TestHalfProtections(t *testing.T) {
	dir := t.TempDir()
	a := newArenaTest(t, dir, 1)
	for _, prot := range []int{unix.PROT_WRITE, unix.PROT_EXEC} {
		if noexec(t, dir) && prot == unix.PROT_EXEC {
			continue
		}
		m, err := a.mmap(unix.O_RDWR, Request{Name: fmt.Sprint(prot), Length: uint64(3 * paging.PageSize), Prot: prot, Flags: unix.MAP_SHARED})
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		if _, err := m.ReadAt(b, 0); err != nil {
			wantErrno(t, "load", err, syscall.EFAULT)
		} else if b[0] != filetest.Pattern(1, 7)[0] {
			t.Errorf("a load with protection %d has %d", prot, b[0])
		}
		_, err = m.WriteAt(b, 0)
		wantErrno(t, "store", err, map[int]syscall.Errno{unix.PROT_WRITE: 0, unix.PROT_EXEC: syscall.EFAULT}[prot])
		_, err = m.WriteAt(b, 2*paging.PageSize)
		wantErrno(t, "store past the end", err, map[int]syscall.Errno{unix.PROT_WRITE: syscall.EIO, unix.PROT_EXEC: syscall.EFAULT}[prot])
	}
}

// TestMprotectErrors: what is refused changes nothing.
func TestMprotectErrors(t *testing.T) {
	a := newArenaTest(t, t.TempDir(), 4)
	page := uintptr(paging.PageSize)
	start, _ := a.Bounds()
	rw := a.must("rw", unix.MAP_SHARED, 2)
	ro, err := a.mmap(unix.O_RDONLY, Request{Name: "ro", Length: uint64(2 * page), Prot: unix.PROT_READ, Flags: unix.MAP_SHARED})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		addr   uintptr
		length uint64
		prot   int
		want   syscall.Errno
	}{
		{"unaligned", start + 1, 1, unix.PROT_READ, syscall.EINVAL},
		{"outside", 0x10000, 1, unix.PROT_READ, syscall.ENOMEM},
		{"hole at the end", start, uint64(5 * page), unix.PROT_READ, syscall.ENOMEM},
		{"read-only file", ro.Start(), 1, unix.PROT_READ | unix.PROT_WRITE, syscall.EACCES},
		{"the second of two", start + page, uint64(2 * page), unix.PROT_WRITE, syscall.EACCES},
		{"bits nobody knows", start, 1, 1 << 20, syscall.EINVAL},
		{"nothing", start, 0, unix.PROT_NONE, 0},
		{"nothing, inside", start + page, 0, unix.PROT_NONE, 0},
	} {
		wantErrno(t, c.name, a.Mprotect(c.addr, c.length, c.prot), c.want)
		a.agree()
		if len(a.list()) > 4 || len(rw.Segments()) != 1 || rw.Segments()[0].Prot != unix.PROT_READ|unix.PROT_WRITE || len(ro.Segments()) != 1 {
			t.Fatalf("%s: a protection was changed", c.name)
		}
	}
	wantErrno(t, "past the mapping's end", rw.Mprotect(paging.PageSize, 2*paging.PageSize, unix.PROT_READ), syscall.ENOMEM)
	wantErrno(t, "unaligned offset", rw.Mprotect(1, 1, unix.PROT_READ), syscall.EINVAL)
	wantErrno(t, "over both", a.Mprotect(start+page, uint64(2*page), unix.PROT_NONE), 0)
	a.agree()
	if len(rw.Segments()) != 2 || len(ro.Segments()) != 2 {
		t.Error("not split")
	}
}
