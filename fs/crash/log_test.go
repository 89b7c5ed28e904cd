package crash_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"mapfs/fs/crash"
	"mapfs/fs/crash/oracle"
	"mapfs/internal/need"
)

// segment is how many bytes the log keeps together.
const segment = 1 << 20

func newTestLog(t *testing.T, model crash.Model, memory int64) *crash.Log {
	t.Helper()
	l, err := crash.New(crash.Options{Model: model, PageSize: 4096, MaxMemory: memory, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// write adds a write of p at off to a file that is size bytes long.
func write(t *testing.T, l *crash.Log, inode crash.Inode, off, size int64, p []byte) *crash.Op {
	t.Helper()
	kept, err := l.Keep(p)
	if err != nil {
		t.Fatal(err)
	}
	op := &crash.Op{
		Kind: crash.Write, Inode: inode, Off: off, Length: int64(len(p)), OldSize: size,
		Size: max(size, off+int64(len(p))), Bytes: kept, Path: "f",
	}
	l.Add(op)
	return op
}

// content returns what a state makes of an empty file.
func content(t *testing.T, state *crash.State, inode crash.Inode) []byte {
	t.Helper()
	w := oracle.NewWorld()
	apply(t, w, &crash.State{Files: map[crash.Inode][]crash.Step{inode: state.Files[inode]}})
	return w.Files[inode]
}

// TestSpill writes more than memory may have and reads it back.
func TestSpill(t *testing.T) {
	l := newTestLog(t, crash.Posix{}, 2*segment)
	random := rand.New(rand.NewPCG(1, 2))
	var want []byte
	for range 300 {
		p := bytes.Repeat([]byte{byte(random.IntN(256))}, 1+random.IntN(100_000))
		write(t, l, 2, int64(len(want)), int64(len(want)), p)
		want = append(want, p...)
	}
	if memory, file := l.Size(); memory > 3*segment || memory+file < int64(len(want)) {
		t.Fatalf("%d bytes in memory and %d in the file of %d", memory, file, len(want))
	}
	state, err := l.Cut(crash.Choice{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, state, 2), want) {
		t.Error("the bytes changed")
	}
	l.Sync(crash.Sync{Inode: 2})
	if memory, file := l.Size(); memory > segment || file != 0 {
		t.Errorf("after the sync %d bytes are in memory and %d in the file", memory, file)
	}
}

// TestFull fills the directory of the file.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	need.Root(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		need.Missing(t, "mount", "mount of a tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	l, err := crash.New(crash.Options{Model: crash.Posix{}, PageSize: 4096, MaxMemory: segment, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := bytes.Repeat([]byte("x"), 64<<10)
	var size int64
	for {
		kept, err := l.Keep(p)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Add(&crash.Op{Kind: crash.Write, Inode: 2, Off: size, Length: int64(len(p)), OldSize: size, Size: size + int64(len(p)), Bytes: kept})
		if size += int64(len(p)); size > 16<<20 {
			t.Fatal("the directory has 4 MiB, and more than that was kept")
		}
	}
	state, err := l.Cut(crash.Choice{All: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, state, 2); int64(len(got)) != size || bytes.Count(got, []byte("x")) != int(size) {
		t.Errorf("%d bytes of %d are there", len(got), size)
	}
	l.Sync(crash.Sync{Inode: 2})
	write(t, l, 2, 0, size, p) // there is room again
}

// TestNoFile checks the error where the file cannot be made.
func TestNoFile(t *testing.T) {
	if _, err := crash.New(crash.Options{Model: crash.Posix{}, PageSize: 4096, Dir: "/nonexistent/directory"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestRanges settles parts of operations.
func TestRanges(t *testing.T) {
	page := func(c string) []byte { return bytes.Repeat([]byte(c), 4096) }
	three := append(append(page("a"), page("b")...), page("c")...)
	pending := func(l *crash.Log) string {
		var lines []string
		l.Pending(func(op *crash.Op, _ []string) bool {
			off, length := op.Left()
			lines = append(lines, fmt.Sprintf("%d %v %d %d", op.Number, op.Kind, off, length))
			return true
		})
		return strings.Join(lines, ", ")
	}
	for name, c := range map[string]struct {
		do      func(l *crash.Log)
		pending string
		left    []byte // of an empty file, when all survives that is pending
	}{
		"sync of the middle":           {func(l *crash.Log) { l.SyncRange(2, 4096, 8192) }, "1 write 0 12288", append(append(page("a"), make([]byte, 4096)...), page("c")...)},
		"sync of the beginning":        {func(l *crash.Log) { l.SyncRange(2, 0, 4096) }, "1 write 4096 8192", append(make([]byte, 4096), three[4096:]...)},
		"sync of all":                  {func(l *crash.Log) { l.SyncRange(2, 0, 12288) }, "", nil},
		"sync of all but one":          {func(l *crash.Log) { l.SyncRange(2, 4096, 12288) }, "1 write 0 4096", page("a")},
		"revert of the end":            {func(l *crash.Log) { l.Revert(2, 4096, 12288) }, "1 write 0 4096", append(page("a"), make([]byte, 8192)...)},
		"revert of all":                {func(l *crash.Log) { l.RevertAll(2) }, "", nil},
		"a sync after it was given up": {func(l *crash.Log) { l.Abandon(2); l.Sync(crash.Sync{Inode: 2}) }, "1 write 0 12288", three},
		"forgotten":                    {func(l *crash.Log) { l.Forget(2) }, "", nil},
		"a truncation that a range makes durable": {func(l *crash.Log) {
			l.Add(&crash.Op{Kind: crash.Truncate, Inode: 2, OldSize: 12288, Size: 100})
			l.SyncRange(2, 4096, 8192)
		}, "1 write 0 100", page("a")[:100]},
	} {
		l := newTestLog(t, crash.Posix{}, segment)
		write(t, l, 2, 0, 0, three)
		c.do(l)
		if got := pending(l); got != c.pending {
			t.Errorf("%s: pending %q, want %q", name, got, c.pending)
		}
		state, err := l.Cut(crash.Choice{All: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, state, 2); !bytes.Equal(got, c.left) {
			t.Errorf("%s: %d bytes left, want %d", name, len(got), len(c.left))
		}
	}
}

// TestTorn tears a page.
func TestTorn(t *testing.T) {
	l := newTestLog(t, crash.Posix{}, segment)
	write(t, l, 2, 0, 0, bytes.Repeat([]byte("x"), 4096))
	torn := false
	for seed := range uint64(50) {
		for _, unit := range []int64{0, 512} {
			state, err := l.Cut(crash.Choice{Random: true, Seed: seed, Torn: unit})
			if err != nil {
				t.Fatal(err)
			}
			n := bytes.Count(content(t, state, 2), []byte("x"))
			if n%512 != 0 || unit == 0 && n%4096 != 0 {
				t.Fatalf("%d bytes survive of a page, in units of %d", n, unit)
			}
			torn = torn || n%4096 != 0
		}
	}
	if !torn {
		t.Error("no page was torn")
	}
}

// TestMany times what is asked of many pending operations.
func TestMany(t *testing.T) {
	for _, model := range crash.Models() {
		l := newTestLog(t, model, segment)
		const many = 100_000
		for i := range int64(many) {
			if i%2 == 0 {
				l.Add(&crash.Op{Kind: crash.Create, Inode: crash.Inode(i + 2), Entry: crash.Entry{Dir: 1, Name: fmt.Sprint(i)}})
			} else {
				write(t, l, 2, i*4096, i*4096, []byte("x"))
			}
		}
		begin := time.Now()
		n := 0
		l.Pending(func(*crash.Op, []string) bool { n++; return true })
		if _, err := l.Cut(crash.Choice{Random: true, Seed: 1}); err != nil {
			t.Fatal(err)
		}
		l.Sync(crash.Sync{Inode: 1})
		l.Sync(crash.Sync{Inode: 2})
		left := 0
		l.Pending(func(*crash.Op, []string) bool { left++; return true })
		if n != many || left != 0 {
			t.Errorf("%s: %d pending, %d after syncs", model.Name(), n, left)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: %d operations took %v", model.Name(), n, took)
		}
	}
}

func TestModelOf(t *testing.T) {
	for _, m := range crash.Models() {
		if got, err := crash.ModelOf(m.Name()); err != nil || got != m {
			t.Errorf("%s: %v, %v", m.Name(), got, err)
		}
	}
	if _, err := crash.ModelOf("xfs"); err == nil || err.Error() != "choose posix or ext4" {
		t.Errorf("xfs: %v", err)
	}
}

// TestEmptied removes directories that were emptied: what emptied them survives with that.
func TestEmptied(t *testing.T) {
	for name, last := range map[string]crash.Op{
		"rmdir": {Kind: crash.Rmdir, Inode: 2, IsDir: true, Entry: crash.Entry{Dir: 1, Name: "d"}},
		"rename": {
			Kind: crash.Rename, Inode: 4, IsDir: true, Entry: crash.Entry{Dir: 1, Name: "e"}, To: crash.Entry{Dir: 1, Name: "d"},
			Replaced: 2, ReplacedDir: true,
		},
	} {
		l := newTestLog(t, crash.Posix{}, segment)
		for _, op := range []crash.Op{
			{Kind: crash.Create, Inode: 3, Entry: crash.Entry{Dir: 2, Name: "f"}},
			{Kind: crash.Unlink, Inode: 3, Entry: crash.Entry{Dir: 2, Name: "f"}},
			last,
		} {
			l.Add(&op)
		}
		if _, err := l.Cut(crash.Choice{Keep: []uint64{1, 3}}); err == nil || !strings.Contains(err.Error(), "a directory must be empty to be removed") {
			t.Errorf("%s without what emptied the directory: %v", name, err)
		}
		l.Sync(crash.Sync{Inode: 1})
		l.Pending(func(op *crash.Op, _ []string) bool {
			t.Errorf("%s is durable, and operation %d, a %v in the directory, is not", name, op.Number, op.Kind)
			return true
		})
	}
}
