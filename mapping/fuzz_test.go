package mapping

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/internal/filetest"
	"mapfs/mapping/paging"
)

// FuzzFile does what the bytes say to a file through the engine, to a plain file
// by system calls and to a []byte, and compares the three after every step.
// Others change the backing file in between: the last operations store past its
// end and truncate it behind the engine's back.
func FuzzFile(f *testing.F) {
	f.Add([]byte{0, 0, 0, 255, 1, 2, 0, 3, 1, 1, 0, 9, 9})
	f.Add([]byte{0, 1, 16, 0, 2, 2, 0, 5, 0, 2, 16, 0, 0, 0, 31, 255, 7, 3, 0, 0, 0})
	f.Add([]byte{0, 0, 1, 0, 9, 5, 0, 16, 1, 1, 16, 32, 4, 4, 0, 200, 3, 6, 0, 0, 7})
	f.Add([]byte{0, 63, 255, 16, 1, 0, 63, 255, 16, 2, 0, 63, 255, 16, 3, 3, 0, 0, 0, 0, 0, 1, 0, 5})
	f.Add([]byte{1, 0, 5, 0, 0, 7, 0, 7, 3, 2, 31, 255, 0, 0, 8, 16, 1, 0, 0, 0, 0, 15, 9})
	f.Fuzz(func(t *testing.T, program []byte) {
		for _, parent := range []string{os.TempDir(), "/dev/shm"} {
			runProgram(t, parent, program)
		}
	})
}

// runProgram runs a fuzzed program on the filesystem that parent is on.
func runProgram(t *testing.T, parent string, program []byte) {
	dir, err := os.MkdirTemp(parent, "mapping-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// Half of the programs read as a mount does that nobody looks at.
	table := NewTable(Config{MapLazily: len(program)%2 == 1})
	defer table.Close()
	table.prompt.Store(math.MaxInt64)
	out := newCollector(t)
	path := filepath.Join(dir, "f")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f, err := openFD(table, fd, true, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release(false)
	plain, err := os.Create(filepath.Join(dir, "plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()

	var model []byte
	grow := func(size int) {
		if size > len(model) {
			model = append(model, make([]byte, size-len(model))...)
		}
	}
	failures := f.Failures()
	const operation = 5
	for step := 0; len(program) >= operation && step < 64; step++ {
		op, seed := program[0], program[4]
		at := int(binary.BigEndian.Uint16(program[1:]))
		length := int(program[3]) * int(paging.PageSize) / 100 // 0 to 2.5 pages
		program = program[operation:]
		data := filetest.Pattern(length, seed)
		switch op % 10 {
		case 0: // write
			mustWrite(t, f, data, int64(at))
			if _, err := plain.WriteAt(data, int64(at)); err != nil {
				t.Fatal(err)
			}
			if length > 0 {
				grow(at + length)
				copy(model[at:], data)
			}
		case 1: // append
			off, n, err := f.Append(data, Origin{})
			if err != nil || n != length || length > 0 && off != int64(len(model)) {
				t.Fatalf("step %d: Append = %d, %d, %v", step, off, n, err)
			}
			if _, err := plain.WriteAt(data, int64(len(model))); err != nil {
				t.Fatal(err)
			}
			model = append(model, data...)
		case 2: // truncate
			if err := f.Truncate(int64(at)); err != nil {
				t.Fatal(err)
			}
			if err := plain.Truncate(int64(at)); err != nil {
				t.Fatal(err)
			}
			grow(at)
			model = model[:at:at]
		case 3: // fsync, fdatasync
			if err := f.Sync(&failures, seed%2 == 0); err != nil {
				t.Fatal(err)
			}
		case 4, 5: // fallocate
			if length == 0 {
				continue
			}
			mode := uint32(0)
			if op%10 == 5 {
				mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
			}
			if err := f.Allocate(mode, int64(at), int64(length)); err != nil {
				t.Fatal(err)
			}
			if err := unix.Fallocate(int(plain.Fd()), mode, int64(at), int64(length)); err != nil {
				t.Fatal(err)
			}
			if mode == 0 {
				grow(at + length)
			} else if at < len(model) {
				clear(model[at:min(len(model), at+length)])
			}
		case 6: // the mapping is given up
			f.Evict()
		case 7: // somebody stores past the end, inside the last page
			if tail := len(model) % int(paging.PageSize); tail != 0 {
				storePastEnd(t, path, len(model), seed)
			}
		case 8: // somebody cuts the file
			size := min(at, len(model))
			if err := os.Truncate(path, int64(size)); err != nil {
				t.Fatal(err)
			}
			if err := plain.Truncate(int64(size)); err != nil {
				t.Fatal(err)
			}
			model = model[:size:size]
		case 9: // a copy inside the file
			from := at / 2
			n, err := f.CopyRange(int64(at), f, int64(from), int64(length), Origin{})
			if errnoIn(err) == syscall.EOPNOTSUPP && from+length > at {
				break // the two overlap
			}
			want := max(0, min(length, len(model)-from))
			if err != nil || n != want {
				t.Fatalf("step %d: CopyRange of %d from %d to %d of %d: %d, %v", step, length, from, at, len(model), n, err)
			}
			if n == 0 {
				break
			}
			copied := append([]byte(nil), model[from:from+n]...)
			grow(at + n)
			copy(model[at:], copied)
			if _, err := plain.WriteAt(copied, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
		if op%10 != 8 { // a cut by others is seen when the size is asked for
			wantSent(t, f, out, int64(at), length, model)
		}
		wantContent(t, f, path, model)
		wantSeeks(t, f, model)
		wantSent(t, f, out, int64(at), length, model)
		if byPlain, err := os.ReadFile(plain.Name()); err != nil || filetest.SameBytes(byPlain, model) != nil {
			t.Fatalf("step %d: the model is wrong: %v", step, filetest.SameBytes(byPlain, model))
		}
	}
}

// wantSent checks what a read of n bytes from off sends.
func wantSent(t *testing.T, f *File, out *collector, off int64, n int, model []byte) {
	t.Helper()
	g, _ := paging.RangeOf(off, int64(n))
	g = g.Intersect(paging.Range{Off: 0, End: int64(len(model))})
	if got := out.read(t, f, off, n); !g.Empty() || len(got) > 0 {
		if err := filetest.SameBytes(got, model[g.Off:g.End]); err != nil {
			t.Fatalf("sent from %d: %v", off, err)
		}
	}
}

// storePastEnd fills the rest of the last page of a file through a mapping that
// the engine does not know.
func storePastEnd(t *testing.T, path string, size int, seed byte) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	end, _ := paging.PageUp(int64(size))
	mem, err := unix.Mmap(fd, 0, int(end), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	for i := size; i < int(end); i++ {
		mem[i] = seed | 1
	}
}
