package explicit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// mixedFuzz runs a program on a file in all its modes, on explicit mappings of it, and
// on the backing file as others do, and beside it on one model of all.
type mixedFuzz struct {
	explicitFuzz
	table *mapping.Table
	k     *pagestate.Sources
	m     *mixedModel
}

// FuzzMixed does what the bytes say: reads, writes, truncations, write-backs and changes
// of mode through the engine; explicit mappings made, changed and used; truncations and
// writes by others; and files parked and opened again. Everything is compared with one
// model after every step.
func FuzzMixed(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(mixedProgram(seed, 200))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 600 {
			return
		}
		runMixed(t, program)
	})
}

func mixedProgram(seed uint64, length int) []byte {
	random := rand.New(rand.NewPCG(seed, 11))
	program := make([]byte, length)
	for i := range program {
		program[i] = byte(random.Uint32())
	}
	return program
}

// TestMixedRandom runs programs that nobody thought of.
func TestMixedRandom(t *testing.T) {
	for i := range uint64(30) {
		t.Run(fmt.Sprint(i), func(t *testing.T) { runMixed(t, mixedProgram(100+i, 400)) })
	}
}

// runMixed runs a program on a disk filesystem and on tmpfs.
func runMixed(t *testing.T, program []byte) {
	for _, parent := range []string{os.TempDir(), "/dev/shm"} {
		dir, err := os.MkdirTemp(parent, "mapping-fuzz-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		newMixedFuzz(t, dir, program).run()
	}
}

func newMixedFuzz(t *testing.T, dir string, program []byte) *mixedFuzz {
	t.Helper()
	z := &mixedFuzz{explicitFuzz: explicitFuzz{program: program, named: make(map[string]*fuzzMapping)}}
	mode := mapping.Mode(z.next(3))
	z.table = newTestTable(t, mapping.Config{Mode: mode})
	z.k = pagestate.Probe(unix.AT_FDCWD)
	t.Cleanup(z.k.Close)
	path := filepath.Join(dir, "f")
	z.file = filetest.Pattern(4*int(paging.PageSize)+100, 7)
	if err := os.WriteFile(path, z.file, 0o600); err != nil {
		t.Fatal(err)
	}
	z.m = newMixedModel(mode, z.file)
	z.arenaTest = &arenaTest{newTestArena(t), t, reopen(t, z.table, path), path, new(eventList), nil}
	t.Cleanup(func() { z.f.Release(false) })
	return z
}

// own says whether the engine has taken over the size: that is its own affair, but what
// others may do, and what comes of it, depends on it.
func (z *mixedFuzz) own() bool { return z.f.Inside().OwnsSize }

// followed reports whether the file shows what others do to the pages [first, end) of
// the backing file. Past the mapped part it shows what it found there once.
func (z *mixedFuzz) followed(end int) bool {
	return !z.own() || int64(end)*paging.PageSize <= z.f.Inside().FileEnd
}

func (z *mixedFuzz) run() {
	for len(z.program) > 0 {
		name := fmt.Sprint("m", z.next(4))
		z.m.least = len(z.m.backing)
		z.step = ""
		switch op := z.next(22); op {
		case 0, 1, 2, 3:
			z.change(op)
		case 4, 5, 6, 7:
			z.writeBack(op)
		case 8:
			z.setMode()
		case 9:
			z.park()
		case 10, 11:
			z.mmap(name)
		case 12:
			z.munmap()
		case 13:
			z.mprotect()
		case 14, 15, 16:
			z.storeExplicit(name)
		case 17:
			z.dontneed()
		case 18:
			z.lock(z.next(2) == 0)
		case 19:
			z.msyncExplicit()
		case 20:
			z.lockFile()
		default:
			z.others()
		}
		z.settle()
		z.compareAll()
	}
}

// settle brings the explicit mappings up to date with what has happened to the backing
// file, and the file too.
func (z *mixedFuzz) settle() {
	z.m.follow()
	for _, e := range z.named {
		for i := range e.copies {
			if (e.off+i)*int(paging.PageSize) >= z.m.least {
				delete(e.copies, i) // truncate(2) takes private copies, whole pages of them
			}
		}
	}
	z.file = z.m.backing
}

// offset returns an offset in the file, or not far behind it.
func (z *mixedFuzz) offset() int { return z.next(256) * 6 * int(paging.PageSize) / 256 }

// change changes bytes or size through the engine.
func (z *mixedFuzz) change(op int) {
	at, length, value := z.offset(), z.next(256)*int(paging.PageSize)/100, byte(z.next(256))
	data := filetest.Pattern(length, value)
	switch op {
	case 0:
		z.step = fmt.Sprintf("write %d+%d", at, length)
		mustWrite(z.t, z.f, data, int64(at))
		if length > 0 {
			z.m.store(data, at)
		}
	case 1:
		z.step = fmt.Sprintf("append %d", length)
		off, n, err := z.f.Append(data, mapping.Origin{})
		if err != nil || n != length || length > 0 && off != int64(z.m.size) {
			z.t.Fatalf("%s: %d, %d, %v, the size was %d", z.step, off, n, err, z.m.size)
		}
		if length > 0 {
			z.m.store(data, z.m.size)
		}
	case 2:
		z.step = fmt.Sprintf("truncate %d", at)
		if err := z.f.Truncate(int64(at)); err != nil {
			z.t.Fatalf("%s: %v", z.step, err)
		}
		z.m.resize(at)
	case 3:
		z.step = fmt.Sprintf("punch %d+%d", at, length)
		if length == 0 {
			return
		}
		if err := z.f.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(length)); err != nil {
			z.t.Fatalf("%s: %v", z.step, err)
		}
		z.m.punch(at, at+length)
	}
}

// pages returns some pages of the file.
func (z *mixedFuzz) pages() (g paging.Range, first, end int) {
	_, count := paging.Range{Off: 0, End: int64(z.m.size)}.Pages()
	first, end = z.next(6), z.next(3)+1
	if int64(first) >= count {
		first = 0
	}
	end = min(first+end, int(count))
	return paging.Range{Off: int64(first) * paging.PageSize, End: int64(end) * paging.PageSize}, first, end
}

// locked reports whether pages of g are locked in the mapping that serves the file.
func (z *mixedFuzz) locked(g paging.Range) bool {
	for _, l := range z.f.Inside().Locked {
		if !l.Intersect(g).Empty() {
			return true
		}
	}
	return false
}

// writeBack writes back, or gives up.
func (z *mixedFuzz) writeBack(op int) {
	g, first, end := z.pages()
	how := z.next(4)
	switch op {
	case 4:
		z.step = "fsync"
		mustSync(z.t, z.f)
		z.m.sync(0, math.MaxInt, true)
		if z.m.mode != mapping.Private {
			clear(z.m.unsynced)
		}
	case 5:
		if g.Empty() {
			return
		}
		flags := unix.MS_SYNC
		if how == 0 && z.m.mode != mapping.Shared {
			flags = unix.MS_ASYNC
		}
		z.step = fmt.Sprintf("msync %d-%d %d", first, end, flags)
		if err := z.f.Msync(g.Off, g.Len(), flags); err != nil {
			z.t.Fatalf("%s: %v", z.step, err)
		}
		z.m.sync(first, end, flags == unix.MS_SYNC)
	case 6:
		z.step = fmt.Sprintf("give up, %d", how)
		if how == 0 {
			z.f.Evict()
			return
		}
		err := z.f.Msync(0, 0, unix.MS_INVALIDATE)
		if z.locked(paging.Range{Off: 0, End: int64(z.m.size)}) {
			z.want(err, syscall.EBUSY)
			return
		}
		z.want(err, 0)
		if z.m.mode != mapping.Shared {
			z.m.discard()
		}
	case 7:
		if g.Empty() || z.m.mode == mapping.Shared || z.locked(g) {
			return
		}
		z.step = fmt.Sprintf("give up %d-%d", first, end)
		z.want(z.f.Msync(g.Off, g.Len(), unix.MS_INVALIDATE), 0)
		for i := first; i < end; i++ {
			if z.m.copies[i] != nil {
				delete(z.m.copies, i)
				delete(z.m.unsynced, i)
			}
		}
		// Of the page where the file ends, or was cut, the backing file can have more
		// than belongs to it: that stays hidden under zeros, which are a copy.
		if last := min(z.m.size, z.m.cut); z.m.own && last%int(paging.PageSize) != 0 {
			if i := last / int(paging.PageSize); i >= first && i < end && z.f.Inside().Copied(paging.Range{Off: int64(last), End: int64(last) + 1}) {
				clear(z.m.copyPage(i)[last%int(paging.PageSize):])
			}
		}
	}
}

// setMode changes the file's mode, where nothing is unsynced.
func (z *mixedFuzz) setMode() {
	next := mapping.Mode(z.next(3))
	if len(z.f.Inside().Locked) > 0 && next != mapping.Shared {
		return // pages that are locked in memory are copied there at once
	}
	z.step = fmt.Sprintf("mode %v", next)
	busy := len(z.m.unsynced) > 0 || len(z.m.copies) > 0 || z.own() || z.f.UnsyncedPages() > 0
	err := z.f.SetMode(next)
	if next == z.m.mode {
		z.want(err, 0)
		return
	}
	if busy {
		z.want(err, syscall.EBUSY)
		return
	}
	z.want(err, 0)
	z.m.mode = next
}

// park closes the file, and opens it again.
func (z *mixedFuzz) park() {
	if len(z.named) > 0 || len(z.f.Inside().Locked) > 0 {
		return // these keep it open
	}
	z.step = "park"
	z.f.Release(true)
	for deadline := time.Now().Add(10 * time.Second); z.table.Count() > 0; {
		z.table.CloseIdle(1) // in vain while the janitor looks at the file
		if time.Now().After(deadline) {
			z.t.Fatal("the file stays open after the last was given up")
		}
	}
	if z.m.mode == mapping.Staged && (len(z.m.copies) > 0 || z.m.own) {
		z.m.sync(0, math.MaxInt, true)
		clear(z.m.unsynced)
	}
	z.f = reopen(z.t, z.table, z.path)
}

// storeExplicit stores through an explicit mapping.
func (z *mixedFuzz) storeExplicit(name string) {
	if e := z.named[name]; e == nil || e.shared && !z.followed(e.off+e.pages) {
		return
	}
	z.file = z.m.backing
	z.store(name)
}

// msyncExplicit syncs explicit mappings: what they have in common with the file is in
// the page cache anyway.
func (z *mixedFuzz) msyncExplicit() {
	first, end := z.some()
	z.step = fmt.Sprintf("msync of mappings %d-%d", first, end)
	want := syscall.Errno(0)
	if z.hole(first, end) {
		want = syscall.ENOMEM
	}
	z.want(z.Msync(z.page(first), uint64(int64(end-first)*paging.PageSize), unix.MS_SYNC), want)
}

// lockFile locks pages of the mapping that serves the file, or unlocks them.
func (z *mixedFuzz) lockFile() {
	g, first, end := z.pages()
	lock := z.next(2) == 0
	if g.Empty() || lock && z.m.mode != mapping.Shared {
		return // locking copies what can be stored to
	}
	z.step = fmt.Sprintf("lock(%v) of the file's pages %d-%d", lock, first, end)
	if lock {
		z.want(z.f.Mlock(g.Off, g.Len()), 0)
	} else {
		z.want(z.f.Munlock(g.Off, g.Len()), 0)
	}
}

// others change the backing file.
func (z *mixedFuzz) others() {
	at, length, value, cut := z.offset(), z.next(256)*20+1, byte(z.next(256)), z.next(3) == 0
	if cut {
		if z.own() {
			return // of what the engine has over the end of the file it would take copies
		}
		z.step = fmt.Sprintf("others truncate to %d", at)
		if err := os.Truncate(z.path, int64(at)); err != nil {
			z.t.Fatal(err)
		}
		z.m.setBacking(at)
		return
	}
	if !z.followed((at + length + int(paging.PageSize) - 1) / int(paging.PageSize)) {
		return
	}
	z.step = fmt.Sprintf("others write %d+%d", at, length)
	file, err := os.OpenFile(z.path, os.O_WRONLY, 0)
	if err != nil {
		z.t.Fatal(err)
	}
	defer file.Close()
	data := filetest.Pattern(length, value)
	if _, err := file.WriteAt(data, int64(at)); err != nil {
		z.t.Fatal(err)
	}
	if at+length > len(z.m.backing) {
		z.m.setBacking(at + length)
	}
	copy(z.m.backing[at:], data)
}

// compareAll compares the file, its pages, the backing file and every explicit mapping
// with the model.
func (z *mixedFuzz) compareAll() {
	z.t.Helper()
	z.m.own = z.own()
	var st unix.Stat_t
	if err := z.f.Stat(&st); err != nil || st.Size != int64(z.m.size) {
		z.t.Fatalf("%s, %v: Stat: %d, %v, want %d", z.step, z.m.mode, st.Size, err, z.m.size)
	}
	want := z.m.content()
	got := make([]byte, len(want)+int(paging.PageSize))
	n, err := z.f.ReadAt(got, 0)
	if err != nil || filetest.SameBytes(got[:n], want) != nil {
		z.t.Fatalf("%s, %v: ReadAt: %v, %v", z.step, z.m.mode, err, filetest.SameBytes(got[:n], want))
	}
	direct, err := os.ReadFile(z.path)
	if err != nil || filetest.SameBytes(direct, z.m.backing) != nil {
		z.t.Fatalf("%s, %v: the backing file: %v, %v", z.step, z.m.mode, err, filetest.SameBytes(direct, z.m.backing))
	}
	z.compareMappings()
	if z.m.mode == mapping.Shared {
		return
	}
	_, count := paging.Range{Off: 0, End: int64(z.m.size)}.Pages()
	err = z.f.Inspect(z.k, 0, count, func(run pagestate.Run) bool {
		for i := int(run.First); i < int(run.End); i++ {
			// Past where a staged file was cut the backing file can have bytes still.
			at := i * int(paging.PageSize)
			regrown := z.m.mode == mapping.Staged && z.m.own && at >= z.m.cut && at < min(len(z.m.backing), z.m.size)
			if unsynced := run.Flags&pagestate.Unsynced != 0; unsynced != (z.m.unsynced[i] || regrown) {
				z.t.Fatalf("%s, %v: page %d is %v, but unsynced: %v", z.step, z.m.mode, i, run.Flags, z.m.unsynced[i])
			}
			if copied := run.Flags&pagestate.Copied != 0; copied != (z.m.copies[i] != nil) {
				z.t.Fatalf("%s, %v: page %d is %v, but copied: %v", z.step, z.m.mode, i, run.Flags, !copied)
			}
		}
		return true
	})
	if err != nil {
		z.t.Fatal(err)
	}
	if c := z.table.CopiedBytes() / paging.PageSize; c != int64(len(z.m.copies)) {
		z.t.Fatalf("%s, %v: %d pages are counted as copied, want %d", z.step, z.m.mode, c, len(z.m.copies))
	}
}
