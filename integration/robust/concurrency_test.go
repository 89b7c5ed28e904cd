package robust

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

func init() {
	harness.AddVerb("hammer", clientHammer)
}

// hammerN processes work on the same files at a time. With MAPFS_RACE=1 the
// daemon under them is built with the race detector, and mountT fails on what it
// reports.
const hammerN = 6

// TestConcurrency lets many processes loose on shared files. Each checks what
// it can while it runs; what all of them together must have left is checked at
// the end, in BACKING.
func TestConcurrency(t *testing.T) {
	for _, load := range []struct {
		name   string
		rounds int
		// before prepares the backing directory, after checks it.
		before, after func(t *testing.T, dir string, rounds int)
	}{
		{"blocks", 400, nil, checkBlocks},
		{"mapped", 200, mapPrepare, checkBlocks},
		{"append", 200, nil, checkAppends},
		{"truncate", 300, nil, nil},
		{"names", 200, nil, nil},
		{"counter", 100, counterPrepare, checkCounter},
	} {
		t.Run(load.name, func(t *testing.T) {
			// in has dir hammered where mount shows it.
			in := func(t *testing.T, dir string, mount func() (shown string, unmount func())) {
				if load.before != nil {
					load.before(t, dir, load.rounds)
				}
				shown, unmount := mount()
				runHammers(t, load.name, shown, load.rounds)
				unmount()
				if load.after != nil {
					load.after(t, dir, load.rounds)
				}
			}
			mounted := func(t *testing.T, dir string, opts ...string) {
				in(t, dir, func() (string, func()) {
					m := harness.Mount(t, dir, opts...)
					return m.Dir, m.Unmount
				})
			}
			// On a plain directory first: that proves the load.
			t.Run("plain", func(t *testing.T) {
				dir := harness.TempDir(t)
				in(t, dir, func() (string, func()) { return dir, func() {} })
			})
			harness.EachFS(t, func(t *testing.T, dir string) { mounted(t, dir) })
			t.Run("exclusive", func(t *testing.T) { mounted(t, harness.TempDir(t), "exclusive") })
		})
	}
}

// runHammers runs a load by hammerN processes and waits for all of them.
func runHammers(t *testing.T, load, dir string, rounds int) {
	t.Helper()
	var procs []*harness.Process
	for id := range hammerN {
		procs = append(procs, harness.StartClient(t, "hammer", load, dir, strconv.Itoa(id), strconv.Itoa(rounds)))
	}
	for _, p := range procs {
		p.Hear("ready")
	}
	// All at once, not one after the other as they start.
	for _, p := range procs {
		p.Say("go")
	}
	for _, p := range procs {
		p.Hear("done")
		p.Wait()
	}
}

// hammer is one process of a load.
type hammer struct {
	dir    string
	id     int
	rounds int
	rand   *rand.Rand
}

// clientHammer is `client hammer LOAD DIR ID ROUNDS`.
func clientHammer(args []string) error {
	id, rounds := int(harness.Atoi64(args[2])), int(harness.Atoi64(args[3]))
	h := &hammer{dir: args[1], id: id, rounds: rounds, rand: rand.New(rand.NewPCG(1, uint64(id)))}
	load, ok := map[string]func() error{"blocks": h.blocks, "mapped": h.mapped, "append": h.appends,
		"truncate": h.truncates, "names": h.names, "counter": h.counter}[args[0]]
	if !ok {
		return fmt.Errorf("no load %q", args[0])
	}
	fmt.Println("ready")
	var start string
	if _, err := fmt.Scan(&start); err != nil {
		return err
	}
	if err := load(); err != nil {
		return err
	}
	fmt.Println("done")
	return nil
}

func (h *hammer) path(name string) string { return filepath.Join(h.dir, name) }

// Blocks are not page-sized, so that neighbours in one page have different
// owners: block i belongs to the process i % hammerN.
const (
	blockSize = 1000
	blockN    = 40 * hammerN
)

// block is what block i holds after its owner has written it so many times.
func block(i, generation int) []byte {
	if generation == 0 {
		return make([]byte, blockSize)
	}
	b := harness.Pattern(i*1_000_003+generation, blockSize)
	copy(b, fmt.Sprintf("[%d:%d]", i, generation))
	return b
}

// owned picks one of this process's blocks.
func (h *hammer) owned() int { return h.rand.IntN(blockN/hammerN)*hammerN + h.id }

// ownBlocks writes this process's blocks by write and reads them back by read.
func (h *hammer) ownBlocks(write, read func(b []byte, off int64) error) error {
	generation := map[int]int{}
	got := make([]byte, blockSize)
	for range h.rounds {
		i := h.owned()
		generation[i]++
		if err := write(block(i, generation[i]), int64(i*blockSize)); err != nil {
			return err
		}
		i = h.owned()
		if generation[i] == 0 {
			continue
		}
		if err := read(got, int64(i*blockSize)); err != nil {
			return err
		}
		if want := block(i, generation[i]); !bytes.Equal(got, want) {
			return fmt.Errorf("block %d: got %.20q, want %.20q", i, got, want)
		}
	}
	var notes strings.Builder
	for i, n := range generation {
		fmt.Fprintln(&notes, i, n)
	}
	return os.WriteFile(h.path(fmt.Sprint("notes", h.id)), []byte(notes.String()), 0o644)
}

func (h *hammer) blocks() error {
	f, err := os.OpenFile(h.path("blocks"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return h.ownBlocks(
		func(b []byte, off int64) error {
			_, err := f.WriteAt(b, off)
			if err == nil && h.rand.IntN(50) == 0 {
				err = f.Sync()
			}
			return err
		},
		func(b []byte, off int64) error { _, err := f.ReadAt(b, off); return err })
}

func mapPrepare(t *testing.T, dir string, _ int) {
	if err := os.WriteFile(filepath.Join(dir, "blocks"), make([]byte, blockN*blockSize), 0o644); err != nil {
		t.Fatal(err)
	}
}

// mapped stores to a shared mapping, and every other process writes by
// write(2) to the same pages instead.
func (h *hammer) mapped() error {
	f, err := os.OpenFile(h.path("blocks"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, blockN*blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mem)
	return h.ownBlocks(
		func(b []byte, off int64) error {
			if h.id%2 == 0 {
				_, err := f.WriteAt(b, off)
				return err
			}
			copy(mem[off:], b)
			if h.rand.IntN(20) == 0 {
				return unix.Msync(mem, unix.MS_SYNC)
			}
			return nil
		},
		func(b []byte, off int64) error { copy(b, mem[off:]); return nil })
}

// checkBlocks finds every block in its last generation, which each process has
// noted beside the file.
func checkBlocks(t *testing.T, dir string, _ int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "blocks"))
	if err != nil {
		t.Fatal(err)
	}
	last := make([]int, blockN)
	size := 0
	for id := range hammerN {
		notes, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("notes", id)))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(notes)) {
			var i, generation int
			if _, err := fmt.Sscan(line, &i, &generation); err != nil {
				t.Fatal(err)
			}
			last[i] = generation
			size = max(size, (i+1)*blockSize)
		}
	}
	if len(got) < size || len(got) > blockN*blockSize {
		t.Fatalf("the file in BACKING has %d bytes, want %d", len(got), size)
	}
	for i := range size / blockSize {
		if b := got[i*blockSize : (i+1)*blockSize]; !bytes.Equal(b, block(i, last[i])) {
			t.Errorf("block %d in BACKING: got %.20q, want %.20q", i, b, block(i, last[i]))
		}
	}
}

// appends writes numbered lines of different lengths to one file.
func (h *hammer) appends() error {
	f, err := os.OpenFile(h.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range h.rounds {
		if _, err := f.WriteString(appendLine(h.id, i)); err != nil {
			return err
		}
	}
	return nil
}

func appendLine(id, i int) string {
	return fmt.Sprintf("%d %d %s\n", id, i, strings.Repeat(string(rune('a'+id)), (i*37)%700))
}

// checkAppends finds every line once, whole, and each process's in order.
func checkAppends(t *testing.T, dir string, rounds int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	next := make([]int, hammerN)
	for line := range strings.Lines(string(got)) {
		var id int
		if _, err := fmt.Sscan(line, &id); err != nil || id < 0 || id >= hammerN {
			t.Fatalf("a torn line: %.40q", line)
		}
		if want := appendLine(id, next[id]); line != want {
			t.Fatalf("process %d: got line %.40q, want %.40q", id, line, want)
		}
		next[id]++
	}
	for id, n := range next {
		if n != rounds {
			t.Errorf("process %d: %d lines, want %d", id, n, rounds)
		}
	}
}

// truncates lets half of the processes write and cut one file while the others
// read it. A byte is a function of its offset; whatever the order of things, no
// reader may find anything but that byte or a zero.
func (h *hammer) truncates() error {
	const most = 200_000
	f, err := os.OpenFile(h.path("cut"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 10_000)
	for range h.rounds {
		off := h.rand.Int64N(most)
		if h.id%2 == 1 {
			n, err := f.ReadAt(b, off)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			for i, got := range b[:n] {
				if want := byteAt(off + int64(i)); got != 0 && got != want {
					return fmt.Errorf("at %d: got %#x, want %#x or 0", off+int64(i), got, want)
				}
			}
			continue
		}
		if h.rand.IntN(3) == 0 {
			if err := f.Truncate(off); err != nil {
				return err
			}
			continue
		}
		part := b[:h.rand.IntN(len(b))]
		for i := range part {
			part[i] = byteAt(off + int64(i))
		}
		if _, err := f.WriteAt(part, off); err != nil {
			return err
		}
	}
	return nil
}

func byteAt(off int64) byte { return byte(off%251) + 1 }

// names replaces, reads and removes a few shared names. Who opens one finds a
// whole file, never a mix of two.
func (h *hammer) names() error {
	for i := range h.rounds {
		slot := h.path(fmt.Sprint("slot", h.rand.IntN(4)))
		switch h.rand.IntN(8) {
		case 0:
			if err := os.Remove(slot); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		case 1, 2, 3:
			body := harness.Pattern(h.id*1_000_003+i, 1+h.rand.IntN(20_000))
			sum := fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(body))
			tmp := h.path(fmt.Sprint("tmp", h.id))
			if err := os.WriteFile(tmp, append([]byte(sum), body...), 0o644); err != nil {
				return err
			}
			if err := os.Rename(tmp, slot); err != nil {
				return err
			}
		default:
			data, err := os.ReadFile(slot)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if len(data) < 9 || fmt.Sprintf("%08x\n", crc32.ChecksumIEEE(data[9:])) != string(data[:9]) {
				return fmt.Errorf("%s: %d bytes that nobody wrote like this", slot, len(data))
			}
		}
	}
	return nil
}

func counterPrepare(t *testing.T, dir string, _ int) {
	if err := os.WriteFile(filepath.Join(dir, "counter"), []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// counter adds one under a lock, again and again: a stale read by anyone loses
// a count.
func (h *hammer) counter() error {
	f, err := os.OpenFile(h.path("counter"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 20)
	for range h.rounds {
		lock := unix.Flock_t{Type: unix.F_WRLCK}
		for {
			err := unix.FcntlFlock(f.Fd(), unix.F_SETLKW, &lock)
			if err == nil {
				break
			}
			// The Go runtime's signals interrupt the wait.
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		n, err := f.ReadAt(b, 0)
		if n == 0 {
			return err
		}
		count, err := strconv.Atoi(string(b[:n]))
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte(strconv.Itoa(count+1)), 0); err != nil {
			return err
		}
		lock.Type = unix.F_UNLCK
		if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
			return err
		}
	}
	return nil
}

func checkCounter(t *testing.T, dir string, rounds int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, "counter"))
	if err != nil {
		t.Fatal(err)
	}
	if want := strconv.Itoa(hammerN * rounds); string(got) != want {
		t.Errorf("the counter in BACKING is %q, want %q", got, want)
	}
}
