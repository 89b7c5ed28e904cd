package explicit

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
)

// fuzzWindow is how many pages of the arena a fuzzed program reaches, and some
// behind them.
const fuzzWindow = 40

// fuzzPage is what a page of the arena should be.
type fuzzPage struct {
	m      *fuzzMapping // nil: not mapped
	prot   int
	locked bool
}

// fuzzMapping is what an explicit mapping should be.
type fuzzMapping struct {
	real   *Mapping
	start  int // page of the arena
	pages  int
	off    int // page of the file
	shared bool
	write  bool
	copies map[int][]byte // the private pages that were copied
}

// explicitFuzz runs a program on explicit mappings, and beside it on a model.
type explicitFuzz struct {
	*arenaTest
	program []byte
	file    []byte
	arena   [fuzzWindow]fuzzPage
	named   map[string]*fuzzMapping
	step    string
}

// FuzzExplicit does what the bytes say to explicit mappings of one file, and to the
// file, and compares every page with a model, and the arena with what the kernel
// has, after every step.
func FuzzExplicit(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 0, 0, 2, 3, 0, 10, 100, 7, 0, 1, 0, 3, 0, 1, 2, 3, 1, 10, 100, 9, 5, 0, 4})
	f.Add([]byte{0, 0, 0, 3, 0, 1, 2, 1, 1, 1, 2, 1, 2, 3, 0, 1, 0, 255, 0, 200, 6, 5, 7, 0, 200, 3, 1})
	f.Add([]byte{0, 0, 0, 3, 0, 1, 2, 0, 1, 1, 0, 4, 2, 2, 0, 2, 3, 1, 0, 255, 8, 0, 2, 4, 0, 0, 2, 9, 0, 2})
	f.Add([]byte{0, 0, 0, 3, 3, 8, 2, 6, 20, 3, 0, 0, 0, 1, 6, 200, 0, 1, 2, 2, 2, 9, 1, 2, 2, 1, 0, 3, 1})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 400 {
			return
		}
		runExplicit(t, program)
	})
}

// TestExplicitRandom runs programs that nobody thought of.
func TestExplicitRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	for i := range 40 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			program := make([]byte, 400)
			for i := range program {
				program[i] = byte(random.Uint32())
			}
			runExplicit(t, program)
		})
	}
}

// runExplicit runs a program on a disk filesystem and on tmpfs.
func runExplicit(t *testing.T, program []byte) {
	for _, parent := range []string{os.TempDir(), "/dev/shm"} {
		dir, err := os.MkdirTemp(parent, "mapping-fuzz-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		z := &explicitFuzz{arenaTest: newArenaTest(t, dir, 4), program: program, named: make(map[string]*fuzzMapping)}
		if z.file, err = os.ReadFile(z.path); err != nil {
			t.Fatal(err)
		}
		z.run()
	}
}

// next returns a number below limit from the program.
func (z *explicitFuzz) next(limit int) int {
	if len(z.program) == 0 {
		return 0
	}
	b := z.program[0]
	z.program = z.program[1:]
	return int(b) % limit
}

func (z *explicitFuzz) run() {
	for len(z.program) > 0 {
		name := fmt.Sprint("m", z.next(4))
		switch op := z.next(10); op {
		case 0:
			z.mmap(name)
		case 1:
			z.munmap()
		case 2:
			z.mprotect()
		case 3, 4:
			z.store(name)
		case 5:
			z.dontneed()
		case 6:
			z.truncate()
		case 7:
			z.write()
		case 8, 9:
			z.lock(op == 8)
		}
		z.compare()
	}
}

// page returns the address of a page of the arena.
func (z *explicitFuzz) page(i int) uintptr { return z.span.start + uintptr(i)*uintptr(paging.PageSize) }

// some returns a range of pages of the window.
func (z *explicitFuzz) some() (first, end int) {
	n := 1 + z.next(4)
	first = z.next(16 - n + 1)
	return first, first + n
}

func (z *explicitFuzz) want(err error, want syscall.Errno) bool {
	z.t.Helper()
	var got syscall.Errno
	if err != nil {
		got = errnoAt(err)
	}
	if got != want {
		z.t.Fatalf("%s: %v, want errno %d (%v)", z.step, err, want, want)
	}
	return want == 0
}

// errnoAt returns the errno at the bottom of an error.
func errnoAt(err error) syscall.Errno {
	if r, ok := err.(*Refusal); ok {
		return r.Errno
	}
	return errnoOf(err)
}

// free takes pages from their mappings.
func (z *explicitFuzz) free(first, end int) {
	for i := first; i < end; i++ {
		if m := z.arena[i].m; m != nil {
			delete(m.copies, i-m.start)
		}
		z.arena[i] = fuzzPage{}
	}
	for name, m := range z.named {
		left := false
		for _, p := range z.arena {
			left = left || p.m == m
		}
		if !left {
			delete(z.named, name)
			if !m.real.Gone() {
				z.t.Fatalf("%s: %s is not gone", z.step, name)
			}
		}
	}
}

func (z *explicitFuzz) mmap(name string) {
	first, end := z.some()
	n := end - first
	off, where, how := z.next(7), z.next(4), z.next(4)
	prot := []int{unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE}[z.next(3)]
	m := &fuzzMapping{pages: n, off: off, shared: how&1 == 0, write: how&2 == 0, copies: make(map[int][]byte)}
	r := Request{
		Name: name, Length: uint64(int64(n)*paging.PageSize) - 5, Prot: prot, Offset: int64(off) * paging.PageSize,
		Flags: map[bool]int{true: unix.MAP_SHARED, false: unix.MAP_PRIVATE}[m.shared],
	}
	free := func(at int) bool {
		for i := at; i < at+n; i++ {
			if z.arena[i].m != nil {
				return false
			}
		}
		return true
	}
	if where > 0 {
		r.Addr = z.page(first)
	}
	want := syscall.Errno(0)
	switch {
	case where == 2:
		r.Flags |= unix.MAP_FIXED
	case where == 3:
		r.Flags |= unix.MAP_FIXED_NOREPLACE
		if !free(first) {
			want = syscall.EEXIST
		}
	case where == 0 || !free(first):
		for first = 0; !free(first); first++ {
		}
	}
	if z.named[name] != nil {
		want = syscall.EEXIST
	}
	if want == 0 && m.shared && !m.write && prot&unix.PROT_WRITE != 0 {
		want = syscall.EACCES
	}
	z.step = fmt.Sprintf("mmap %+v", r)
	real, err := z.arenaTest.mmap(map[bool]int{true: unix.O_RDWR, false: unix.O_RDONLY}[m.write], r)
	if !z.want(err, want) {
		return
	}
	m.real, m.start = real, first
	if real.Start() != z.page(first) {
		z.t.Fatalf("%s: at %x, want %x", z.step, real.Start(), z.page(first))
	}
	z.free(first, first+n)
	for i := first; i < first+n; i++ {
		z.arena[i] = fuzzPage{m, prot, false}
	}
	z.named[name] = m
}

func (z *explicitFuzz) munmap() {
	first, end := z.some()
	z.step = fmt.Sprintf("munmap %d-%d", first, end)
	z.want(z.Munmap(z.page(first), uint64(int64(end-first)*paging.PageSize)), 0)
	z.free(first, end)
}

// hole reports whether a page of a range is not mapped.
func (z *explicitFuzz) hole(first, end int) bool {
	for _, p := range z.arena[first:end] {
		if p.m == nil {
			return true
		}
	}
	return false
}

func (z *explicitFuzz) mprotect() {
	first, end := z.some()
	prot := []int{unix.PROT_NONE, unix.PROT_READ, unix.PROT_READ | unix.PROT_WRITE}[z.next(3)]
	z.step = fmt.Sprintf("mprotect %d-%d %x", first, end, prot)
	want := syscall.Errno(0)
	if z.hole(first, end) {
		want = syscall.ENOMEM
	} else if prot&unix.PROT_WRITE != 0 {
		for _, p := range z.arena[first:end] {
			if p.m.shared && !p.m.write {
				want = syscall.EACCES
			}
		}
	}
	if !z.want(z.Mprotect(z.page(first), uint64(int64(end-first)*paging.PageSize), prot), want) {
		return
	}
	for i := first; i < end; i++ {
		p := &z.arena[i]
		if p.locked && prot&unix.PROT_WRITE != 0 && p.prot&unix.PROT_WRITE == 0 {
			z.copy(p.m, i-p.m.start) // the kernel does so ahead of the first store
		}
		p.prot = prot
	}
}

// content returns what a page of a mapping should have, or nil past the end of the
// file.
func (z *explicitFuzz) content(m *fuzzMapping, i int) []byte {
	if c := m.copies[i]; c != nil {
		return c
	}
	at := (m.off + i) * int(paging.PageSize)
	if at >= len(z.file) {
		return nil
	}
	return append(bytes.Clone(z.file[at:min(at+int(paging.PageSize), len(z.file))]), make([]byte, max(0, at+int(paging.PageSize)-len(z.file)))...)
}

// copy copies a private page, as the first store to it does.
func (z *explicitFuzz) copy(m *fuzzMapping, i int) {
	if !m.shared && m.copies[i] == nil {
		if c := z.content(m, i); c != nil {
			m.copies[i] = c
		}
	}
}

func (z *explicitFuzz) store(name string) {
	m := z.named[name]
	i, at, length, value := z.next(4), z.next(256)*int(paging.PageSize)/256, (z.next(256)+1)*40, byte(z.next(256))
	if m == nil || i >= m.pages {
		return
	}
	off := i*int(paging.PageSize) + at
	length = min(length, m.pages*int(paging.PageSize)-off)
	if end := (m.off*int(paging.PageSize) + off + length); m.shared && end > len(z.file) {
		// Bytes behind the end of the file are the kernel's to keep or not.
		if length -= end - len(z.file); length <= 0 {
			return
		}
	}
	z.step = fmt.Sprintf("store %s %d+%d", name, off, length)
	stored, errno := 0, syscall.Errno(0)
	for stored < length {
		j := (off + stored) / int(paging.PageSize)
		p := z.arena[m.start+j]
		if p.m != m || p.prot&unix.PROT_WRITE == 0 {
			errno = syscall.EFAULT
			break
		}
		if z.content(m, j) == nil {
			errno = syscall.EIO
			break
		}
		n := min(length-stored, (j+1)*int(paging.PageSize)-off-stored)
		z.copy(m, j)
		to := m.copies[j]
		if m.shared {
			to = z.file[(m.off+j)*int(paging.PageSize):]
		}
		fill := to[(off+stored)%int(paging.PageSize):][:n]
		for k := range fill {
			fill[k] = value
		}
		stored += n
	}
	if stored > 0 {
		errno = 0
	}
	n, err := m.real.WriteAt(bytes.Repeat([]byte{value}, length), int64(off))
	z.want(err, errno)
	if n != stored {
		z.t.Fatalf("%s: %d bytes, want %d", z.step, n, stored)
	}
}

func (z *explicitFuzz) dontneed() {
	first, end := z.some()
	z.step = fmt.Sprintf("madvise dontneed %d-%d", first, end)
	want := syscall.Errno(0)
	if z.hole(first, end) {
		want = syscall.ENOMEM
	}
	for i := first; i < end; i++ {
		p := z.arena[i]
		if p.locked {
			want = syscall.EINVAL
			break
		}
		if p.m != nil {
			delete(p.m.copies, i-p.m.start)
		}
	}
	z.want(z.Madvise(z.page(first), uint64(int64(end-first)*paging.PageSize), unix.MADV_DONTNEED), want)
}

func (z *explicitFuzz) truncate() {
	size := z.next(256) * 6 * int(paging.PageSize) / 256
	z.step = fmt.Sprintf("truncate %d", size)
	if err := z.f.Truncate(int64(size)); err != nil {
		z.t.Fatal(err)
	}
	if size > len(z.file) {
		z.file = append(z.file, make([]byte, size-len(z.file))...)
	}
	z.file = z.file[:size:size]
	// What is cut off is taken from private mappings too, whole pages of it.
	for _, m := range z.named {
		for i := range m.copies {
			if (m.off+i)*int(paging.PageSize) >= size {
				delete(m.copies, i)
			}
		}
	}
}

func (z *explicitFuzz) write() {
	off, length, value := z.next(256)*6*int(paging.PageSize)/256, z.next(256)*20+1, byte(z.next(256))
	z.step = fmt.Sprintf("write %d+%d", off, length)
	p := bytes.Repeat([]byte{value}, length)
	mustWrite(z.t, z.f, p, int64(off))
	if need := off + length - len(z.file); need > 0 {
		z.file = append(z.file, make([]byte, need)...)
	}
	copy(z.file[off:], p)
}

func (z *explicitFuzz) lock(lock bool) {
	first, end := z.some()
	z.step = fmt.Sprintf("mlock(%v) %d-%d", lock, first, end)
	length := uint64(int64(end-first) * paging.PageSize)
	if z.hole(first, end) {
		call := z.Mlock
		if !lock {
			call = z.Munlock
		}
		z.want(call(z.page(first), length), syscall.ENOMEM)
		return
	}
	if !lock {
		z.want(z.Munlock(z.page(first), length), 0)
	} else {
		for i, p := range z.arena[first:end] {
			if p.prot == unix.PROT_NONE || z.content(p.m, first+i-p.m.start) == nil {
				return // it fails on the way, and what it copied by then is not said
			}
		}
		z.want(z.Mlock(z.page(first), length), 0)
	}
	for i := first; i < end; i++ {
		p := &z.arena[i]
		p.locked = lock
		if lock && p.prot&unix.PROT_WRITE != 0 {
			z.copy(p.m, i-p.m.start)
		}
	}
}

// compare loads every page of every mapping, and the file.
func (z *explicitFuzz) compare() {
	z.t.Helper()
	z.compareMappings()
	wantContent(z.t, z.f, z.path, z.file)
}

// compareMappings loads every page of every mapping.
func (z *explicitFuzz) compareMappings() {
	z.t.Helper()
	z.agree()
	for name, m := range z.named {
		for i := range m.pages {
			got := make([]byte, paging.PageSize)
			n, err := m.real.ReadAt(got, int64(i)*paging.PageSize)
			p, want := z.arena[m.start+i], z.content(m, i)
			switch {
			case p.m != m || p.prot == unix.PROT_NONE:
				z.want(err, syscall.EFAULT)
			case want == nil:
				z.want(err, syscall.EIO)
			default:
				z.want(err, 0)
				if err := filetest.SameBytes(got[:n], want); err != nil {
					z.t.Fatalf("%s: page %d of %s: %v", z.step, i, name, err)
				}
			}
		}
	}
}
