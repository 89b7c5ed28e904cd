package mapping

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// FuzzModes does what the bytes say to a file through the engine, mode changes
// among it, and compares the file, the backing file and the states of the pages
// with a model after every step.
func FuzzModes(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 255, 1, 3, 0, 0, 0, 0, 0, 0, 3, 7, 6, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 100, 9, 2, 0, 5, 0, 0, 2, 60, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 80, 4})
	f.Add([]byte{2, 0, 16, 10, 200, 9, 4, 0, 2, 100, 0, 0, 0, 0, 50, 5, 2, 0, 7, 0, 0, 3, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 200, 9, 3, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 16, 0, 100, 5, 5, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 250, 9, 2, 0, 0, 9, 0, 0, 48, 0, 100, 5, 4, 0, 3, 50, 0, 3, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 48, 0, 250, 9, 8, 0, 0, 9, 1, 6, 48, 0, 100, 5, 9, 0, 3, 50, 0, 3, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) == 0 {
			return
		}
		for _, parent := range []string{os.TempDir(), "/dev/shm"} {
			runModes(t, parent, Mode(program[0]%3), program[1:])
		}
	})
}

// modesModel is what a file should be.
type modesModel struct {
	mode     Mode
	logical  []byte
	backing  []byte
	unsynced map[int64]bool // pages
	copied   map[int64]bool // pages in memory only
	own      bool           // the size may differ
	cut      int
}

// resize makes the logical size.
func (m *modesModel) resize(size int) {
	old := len(m.logical)
	if size == old {
		return
	}
	if m.mode != Shared && !m.own {
		m.own, m.cut = true, old
	}
	if size < old {
		m.logical = m.logical[:size:size]
		m.cut = min(m.cut, size)
		for page := range m.unsynced {
			if page*paging.PageSize >= int64(size) {
				delete(m.unsynced, page)
				delete(m.copied, page)
			}
		}
		if size%int(paging.PageSize) != 0 {
			m.touch(size, size+1)
		}
	} else {
		m.logical = append(m.logical, make([]byte, size-old)...)
		if old%int(paging.PageSize) != 0 {
			m.touch(old, old+1)
		}
		m.touch(size-1, size)
	}
	if m.mode == Shared {
		m.backing = append([]byte(nil), m.logical...)
	}
}

// touch notes that the bytes [from, to) were stored to. What is unsynced of a shared
// file is FuzzFile's to say.
func (m *modesModel) touch(from, to int) {
	if m.mode == Shared {
		return
	}
	first, end := paging.Range{Off: int64(from), End: int64(to)}.Pages()
	for page := first; page < end; page++ {
		m.copied[page] = true
		m.unsynced[page] = true
	}
}

// regrown reports whether a page is past where a staged file was cut, and the backing file
// has it still.
func (m *modesModel) regrown(page int64) bool {
	at := page * paging.PageSize
	return m.mode == Staged && m.own && at >= int64(m.cut) && at < int64(min(len(m.backing), len(m.logical)))
}

// store writes data at at.
func (m *modesModel) store(data []byte, at int) {
	if len(data) == 0 {
		return
	}
	if at+len(data) > len(m.logical) {
		m.resize(at + len(data))
	}
	copy(m.logical[at:], data)
	m.touch(at, at+len(data))
	if m.mode == Shared {
		m.backing = append([]byte(nil), m.logical...)
	}
}

// sync is write-back of the pages [first, end), or only to the file.
func (m *modesModel) sync(first, end int64, toDevice bool) {
	if m.mode == Staged {
		if m.own {
			m.backing = m.backing[:min(m.cut, len(m.backing))]
		}
		for page := range m.copied {
			if page < first || page >= end || !m.unsynced[page] {
				continue
			}
			to := int(min((page+1)*paging.PageSize, int64(len(m.logical))))
			if to > len(m.backing) {
				m.backing = append(m.backing, make([]byte, to-len(m.backing))...)
			}
			copy(m.backing[page*paging.PageSize:to], m.logical[page*paging.PageSize:to])
		}
		if m.own {
			m.cut = 1 << 40
			size := len(m.logical)
			if size > len(m.backing) {
				m.backing = append(m.backing, make([]byte, size-len(m.backing))...)
			}
			m.backing = m.backing[:size:size]
		}
	}
	if m.mode == Private {
		return
	}
	for page := range m.unsynced {
		if page >= first && page < end && toDevice {
			delete(m.unsynced, page)
		}
	}
	for page := range m.copied {
		if page >= first && page < end {
			delete(m.copied, page)
		}
	}
}

// runModes runs a fuzzed program on the filesystem that parent is on.
func runModes(t *testing.T, parent string, mode Mode, program []byte) {
	dir, err := os.MkdirTemp(parent, "mapping-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	table := NewTable(Config{Mode: mode})
	defer table.Close()
	path := filepath.Join(dir, "f")
	m := &modesModel{mode: mode, unsynced: map[int64]bool{}, copied: map[int64]bool{}}
	m.backing = filetest.Pattern(5000, 77)
	m.logical = append([]byte(nil), m.backing...)
	if err := os.WriteFile(path, m.backing, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFD(table, fd, true, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(false)
	k := pagestate.Probe(unix.AT_FDCWD)
	defer k.Close()

	failures := f.Failures()
	const operation = 5
	for step := 0; len(program) >= operation && step < 48; step++ {
		op, seed := program[0]%10, program[4]
		at := int(binary.BigEndian.Uint16(program[1:]))
		length := int(program[3]) * int(paging.PageSize) / 100 // 0 to 2.5 pages
		program = program[operation:]
		pages := func() (paging.Range, int64, int64) { // of the file, from the page of at on
			_, count := paging.Range{Off: 0, End: int64(len(m.logical))}.Pages()
			first := int64(at) / paging.PageSize
			if first >= count {
				first = 0
			}
			end := min(first+int64(seed%3)+1, count)
			return paging.Range{Off: first * paging.PageSize, End: end * paging.PageSize}, first, end
		}
		switch op {
		case 0: // write
			data := filetest.Pattern(length, seed)
			mustWrite(t, f, data, int64(at))
			m.store(data, at)
		case 1: // append
			data := filetest.Pattern(length, seed)
			off, n, err := f.Append(data, Origin{})
			if err != nil || n != length || length > 0 && off != int64(len(m.logical)) {
				t.Fatalf("step %d: Append = %d, %d, %v", step, off, n, err)
			}
			m.store(data, len(m.logical))
		case 2: // truncate
			if err := f.Truncate(int64(at)); err != nil {
				t.Fatal(err)
			}
			m.resize(at)
		case 3: // fsync
			if err := f.Sync(&failures, seed%2 == 0); err != nil {
				t.Fatal(err)
			}
			m.sync(0, 1<<30, true)
		case 4: // msync of some pages
			g, first, end := pages()
			if g.Empty() {
				continue
			}
			flags := unix.MS_SYNC
			if seed%5 == 0 && m.mode != Shared {
				flags = unix.MS_ASYNC
			}
			if err := f.Msync(g.Off, g.Len(), flags); err != nil {
				t.Fatal(err)
			}
			m.sync(first, end, flags == unix.MS_SYNC)
		case 5: // all copies are given up
			if err := f.Msync(0, 0, unix.MS_INVALIDATE); err != nil {
				t.Fatal(err)
			}
			if m.mode != Shared {
				m.logical = append([]byte(nil), m.backing...)
				m.own = false
				for page := range m.unsynced {
					if m.copied[page] || page*paging.PageSize >= int64(len(m.logical)) {
						delete(m.unsynced, page)
					}
				}
				clear(m.copied)
			}
		case 6: // the mapping is given up, where that loses nothing
			f.Evict()
		case 7: // a change of mode
			next := Mode(seed % 3)
			dirty := m.mode == Shared && f.UnsyncedPages() > 0
			err := f.SetMode(next)
			if busy := dirty || len(m.unsynced) > 0 || len(m.copied) > 0 || len(m.logical) != len(m.backing); next != m.mode && busy != (err != nil) {
				// A size that was changed and changed back is still the engine's.
				if !m.own {
					t.Fatalf("step %d: SetMode(%v) from %v with %d unsynced: %v", step, next, m.mode, len(m.unsynced), err)
				}
			}
			if err == nil && next != m.mode {
				m.mode, m.own = next, false
			}
		case 8: // the copies of some pages are given up
			g, first, end := pages()
			if g.Empty() || m.mode == Shared {
				continue
			}
			if err := f.Msync(g.Off, g.Len(), unix.MS_INVALIDATE); err != nil {
				t.Fatal(err)
			}
			m.invalidated(t, f, first, end)
		case 9: // zeros
			if length == 0 {
				continue
			}
			if err := f.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(length)); err != nil {
				t.Fatal(err)
			}
			if at < len(m.logical) {
				end := min(len(m.logical), at+length)
				for at < end { // pages that are zero already are not copied
					next := min(int(paging.PageDown(int64(at))+paging.PageSize), end)
					if filetest.SameBytes(m.logical[at:next], make([]byte, next-at)) != nil {
						clear(m.logical[at:next])
						m.touch(at, next)
					}
					at = next
				}
				if m.mode == Shared {
					m.backing = append([]byte(nil), m.logical...)
				}
			}
		}
		m.check(t, f, k, path, step)
	}
}

// invalidated takes over what is at the pages [first, end) after their copies were
// given up: the file's bytes, or zeros.
func (m *modesModel) invalidated(t *testing.T, f *File, first, end int64) {
	t.Helper()
	for page := first; page < end; page++ {
		if !m.copied[page] {
			continue
		}
		g := paging.Range{Off: page * paging.PageSize, End: min((page+1)*paging.PageSize, int64(len(m.logical)))}
		got := make([]byte, g.Len())
		if n, err := f.ReadAt(got, g.Off); n != len(got) || err != nil {
			t.Fatalf("ReadAt: %d, %v", n, err)
		}
		// What the file has past where it was cut is not the file's any more.
		ours := m.backing
		if m.own {
			ours = ours[:min(len(ours), m.cut)]
		}
		fromFile := make([]byte, g.Len())
		if g.Off < int64(len(ours)) {
			copy(fromFile, ours[g.Off:])
		}
		if filetest.SameBytes(got, fromFile) != nil && filetest.SameBytes(got, make([]byte, g.Len())) != nil {
			t.Fatalf("page %d is neither the file's nor zero", page)
		}
		copy(m.logical[g.Off:], got)
		delete(m.copied, page)
		delete(m.unsynced, page)
		// A file that was cut inside the page keeps what was cut off hidden. Where
		// the page shows zeros, which the file could have too, the engine knows.
		tail := m.backing[min(int(g.End), len(ours)):min(int((page+1)*paging.PageSize), len(m.backing))]
		hidden := m.own && filetest.SameBytes(tail, make([]byte, len(tail))) != nil
		if zeros := filetest.SameBytes(got, make([]byte, g.Len())) == nil; zeros {
			hidden = hidden && f.record.All(g, dirty.Copied)
		}
		if hidden {
			m.touch(int(g.Off), int(g.Off)+1)
		}
	}
}

// check compares the file with the model.
func (m *modesModel) check(t *testing.T, f *File, k *pagestate.Sources, path string, step int) {
	t.Helper()
	got := make([]byte, len(m.logical)+int(2*paging.PageSize))
	n, err := f.ReadAt(got, 0)
	if err != nil || filetest.SameBytes(got[:n], m.logical) != nil {
		t.Fatalf("step %d, %v: ReadAt: %v, %v", step, m.mode, err, filetest.SameBytes(got[:n], m.logical))
	}
	var st unix.Stat_t
	if err := f.Stat(&st); err != nil || st.Size != int64(len(m.logical)) {
		t.Fatalf("step %d, %v: Stat: %d, %v, want %d", step, m.mode, st.Size, err, len(m.logical))
	}
	direct, err := os.ReadFile(path)
	if err != nil || filetest.SameBytes(direct, m.backing) != nil {
		t.Fatalf("step %d, %v: the backing file: %v, %v", step, m.mode, err, filetest.SameBytes(direct, m.backing))
	}
	wantSeeks(t, f, m.logical)
	// The last page is shown whole, zero past the end.
	end, _ := paging.PageUp(st.Size)
	memory := make([]byte, end)
	n, err = f.ReadMemory(memory, 0)
	if err != nil || int64(n) != end || filetest.SameBytes(memory[st.Size:], make([]byte, end-st.Size)) != nil {
		t.Fatalf("step %d, %v: the tail is not zero: %d, %v, %v", step, m.mode, n, err, filetest.SameBytes(memory[st.Size:], make([]byte, end-st.Size)))
	}
	if m.mode == Shared {
		return
	}
	count := end / paging.PageSize
	err = f.Inspect(k, 0, count, func(run pagestate.Run) bool {
		for page := run.First; page < run.End; page++ {
			want := m.unsynced[page] || m.regrown(page)
			if unsynced := run.Flags&pagestate.Unsynced != 0; unsynced != want {
				t.Fatalf("step %d, %v: page %d is %v, but unsynced: %v", step, m.mode, page, run.Flags, m.unsynced[page])
			}
			// The kernel's word, or past what the file has, the record's.
			if copied := run.Flags&pagestate.Copied != 0; copied != m.copied[page] {
				t.Fatalf("step %d, %v: page %d is %v, but copied: %v", step, m.mode, page, run.Flags, m.copied[page])
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if c := f.copies.count.Load(); c != int64(len(m.copied)) || f.table.copied.Taken() != c {
		t.Fatalf("step %d, %v: %d pages are counted as copied, %d by the table, want %d", step, m.mode, c, f.table.copied.Taken(), len(m.copied))
	}
}
