package durability

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
)

// stagedKills is how often TestStagedKilled kills a daemon on each filesystem.
var stagedKills = flag.Int("kills", killsByDefault(), "how often the daemon of a staged mount is killed")

// killsByDefault are fewer for a daemon with the race detector: its start is slow.
func killsByDefault() int {
	if os.Getenv("MAPFS_RACE") == "1" {
		return 10
	}
	return 50
}

func init() {
	harness.AddVerb("stage", clientStage)
}

// stagedFiles is how many files the load of clientStage has.
const stagedFiles = 3

// stagedStep is one step of a load that follows from its seed alone, so that who
// only knows how many steps were done knows what the files were.
type stagedStep struct {
	file int
	op   string // write, truncate, sync
	off  int64  // or the size
	data []byte
}

// stagedSteps calls fn for each step of the load until fn returns false.
func stagedSteps(seed uint64, fn func(stagedStep) bool) {
	r := rand.New(rand.NewPCG(seed, 1))
	for {
		s := stagedStep{file: r.IntN(stagedFiles)}
		switch r.IntN(6) {
		case 0:
			s.op, s.off = "truncate", r.Int64N(60_000)
		case 1:
			s.op = "sync"
		default:
			s.op, s.off = "write", r.Int64N(50_000)
			s.data = make([]byte, 1+r.IntN(9_000))
			for i := range s.data {
				s.data[i] = byte(r.Uint32())
			}
		}
		if !fn(s) {
			return
		}
	}
}

// apply does the step to a model of the file.
func (s stagedStep) apply(content []byte) []byte {
	size := int(s.off) + len(s.data)
	switch {
	case s.op == "sync":
		return content
	case s.op == "truncate":
		content = content[:min(len(content), size)]
	}
	if size > len(content) {
		content = append(slices.Clone(content), make([]byte, size-len(content))...)
	}
	content = slices.Clone(content)
	copy(content[s.off:], s.data)
	return content
}

// clientStage is `stage DIR SEED`: it does the steps to files in DIR, and prints
// the number of each when it is done.
func clientStage(args []string) error {
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	var fds [stagedFiles]int
	for i := range fds {
		if fds[i], err = unix.Open(filepath.Join(args[0], fmt.Sprint(i)), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644); err != nil {
			return err
		}
	}
	fmt.Println(0)
	done := 0
	stagedSteps(seed, func(s stagedStep) bool {
		switch fd := fds[s.file]; s.op {
		case "write":
			var n int
			if n, err = unix.Pwrite(fd, s.data, s.off); err == nil && n != len(s.data) {
				err = fmt.Errorf("a write of %d bytes wrote %d", len(s.data), n)
			}
		case "truncate":
			err = unix.Ftruncate(fd, s.off)
		case "sync":
			err = unix.Fsync(fd)
		}
		if err != nil {
			return false
		}
		done++
		fmt.Println(done)
		return true
	})
	return nil // the daemon was killed
}

// TestStagedKilled kills the daemon of a staged mount at random points of a load.
// Each backing file is what the last sync made it. Where a sync was under way, and
// nowhere else, the file may be on the way from one to the other.
func TestStagedKilled(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		for round := range *stagedKills {
			killStaged(t, harness.SubDir(t, dir, fmt.Sprint(round)), uint64(round))
		}
	})
}

func killStaged(t *testing.T, dir string, seed uint64) {
	t.Helper()
	m := harness.Mount(t, dir, "mode=staged")
	load := harness.StartClient(t, "stage", m.Dir, fmt.Sprint(seed))
	load.Hear("0")
	delay := rand.New(rand.NewPCG(seed, 2)).IntN(40)
	time.Sleep(time.Duration(delay) * time.Millisecond)
	m.Kill()
	done := 0
	for line := range load.Lines {
		if n, err := strconv.Atoi(line); err == nil {
			done = n
		}
	}
	load.Wait()
	m.Unmount()

	var now, synced [stagedFiles][]byte
	syncing := -1 // the file whose sync was the next step
	step := 0
	stagedSteps(seed, func(s stagedStep) bool {
		if step == done {
			if s.op == "sync" {
				syncing = s.file
			}
			return false
		}
		step++
		now[s.file] = s.apply(now[s.file])
		if s.op == "sync" {
			synced[s.file] = now[s.file]
		}
		return true
	})
	for i := range stagedFiles {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, synced[i]) || i == syncing && between(got, synced[i], now[i]) {
			continue
		}
		t.Errorf("seed %d, %d steps: file %d has %d bytes that differ from the %d of its last sync at %d (sync under way: %v)",
			seed, done, i, len(got), len(synced[i]), firstDifferent(got, synced[i]), i == syncing)
	}
}

// between reports whether each byte of got is what it was in a, or is in b, or a
// zero of a file that was cut and is growing.
func between(got, a, b []byte) bool {
	at := func(p []byte, i int) byte {
		if i < len(p) {
			return p[i]
		}
		return 0
	}
	for i, v := range got {
		if v != at(a, i) && v != at(b, i) && v != 0 {
			return false
		}
	}
	return len(got) <= max(len(a), len(b))
}

// firstDifferent is the index of the first byte in which a and b differ.
func firstDifferent(a, b []byte) int {
	n := min(len(a), len(b))
	if i := firstDifference(a[:n], b[:n]); i >= 0 {
		return i
	}
	return n
}
