package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/need"
)

// tight runs a daemon with few descriptors that it cannot raise.
var tight = []string{"prlimit", "--nofile=1024:1024", "setpriv", "--bounding-set", "-sys_resource"}

// starved is a mount with few descriptors, of which a hog takes all he can while
// another user works.
func starved(t *testing.T, dir string, opts ...string) (m *mount, hogs, works string) {
	t.Helper()
	need.Root(t)
	need.Tool(t, "prlimit")
	need.Tool(t, "setpriv")
	for name, uid := range map[string]int{"hog": alice, "work": bob} {
		sub := subDir(t, dir, name)
		if err := os.Chown(sub, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	m = mountWith(t, dir, mountConfig{opts: append(opts, "allow_other"), wrap: tight})
	return m, m.path("hog"), m.path("work")
}

// startHog starts a hog that takes what, and returns what he says he has got, like
// "510 ENFILE", when he has all he can take.
func startHog(t *testing.T, what, dir string) string {
	t.Helper()
	return startProc(t, as(clientCmd("hog", what, dir), alice, aliceGroup)).line()
}

// works runs the steps of somebody's work and returns the median time of each.
func works(t *testing.T, dir string) map[string]time.Duration {
	t.Helper()
	out, err := runCmd(as(clientCmd("work", dir), bob, bobGroup), clientTimeout)
	if err != nil {
		t.Fatalf("another user's work: %v", err)
	}
	medians := make(map[string]time.Duration)
	for line := range strings.Lines(out) {
		step, ns, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		medians[step] = time.Duration(n)
	}
	return medians
}

// undisturbed fails the test if another user's work is slower than before by more than
// three times, or meets an error.
func undisturbed(t *testing.T, dir string, before map[string]time.Duration) {
	t.Helper()
	// A machine with other load can be slow for a moment, and for one step.
	var slow []string
	for range 3 {
		slow = nil
		for step, d := range works(t, dir) {
			// A step of some microseconds is all the scheduler's.
			if d > 3*max(before[step], 50*time.Microsecond) {
				slow = append(slow, fmt.Sprintf("%s takes %v, before %v", step, d, before[step]))
			}
		}
		if len(slow) == 0 {
			return
		}
	}
	t.Errorf("slow beside the hog: %v", slow)
}

// TestStarve lets one user take all he can of each resource while another works.
func TestStarve(t *testing.T) {
	for _, c := range []struct {
		what string
		opts []string
		errs []string // what the hog may be refused with
	}{
		{"files", nil, []string{"ENFILE"}},
		{"same", nil, []string{"ENFILE"}},
		{"dirs", nil, []string{"ENFILE"}},
		{"removed", nil, []string{"all"}},
		{"texts", nil, []string{"ENFILE", "ENOMEM"}},
		{"private", []string{"mode=private", "dirty_limit=8388608"}, []string{"ENOMEM"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			eachFS(t, func(t *testing.T, dir string) {
				m, hogs, work := starved(t, dir, c.opts...)
				before := works(t, work)
				has := startHog(t, c.what, hogs)
				count, reason, _ := strings.Cut(has, " ")
				if n, _ := strconv.Atoi(count); n < 100 || !slices.Contains(c.errs, reason) {
					t.Errorf("the hog got %s, want at least 100 and then one of %v", has, c.errs)
				}
				undisturbed(t, work, before)
				if got := m.fds(); got > 1000 {
					t.Errorf("the daemon has %d of 1024 descriptors", got)
				}
				// The hog himself can still list and remove, and so can root.
				run(t, "sh", "-ec", `ls "$1" >"$2"; cat "$1/../.mapfs/status" >>"$2"; rm -r "$1"`, "sh", hogs, os.DevNull)
			})
		})
	}
}

// TestStarveWaiting lets requests of one user wait for a device that does not answer: a
// mount inside BACKING whose daemon is stopped.
func TestStarveWaiting(t *testing.T) {
	need.Root(t)
	fusectl(t)
	dir, below := tmpfsDir(t), tmpfsDir(t)
	const files = 200 // some times as many as there are workers
	for i := range files {
		if err := os.WriteFile(filepath.Join(below, fmt.Sprint(i)), []byte("some bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	subDir(t, dir, "hog")
	hung := mountWith(t, below, mountConfig{dir: filepath.Join(dir, "hog"), opts: []string{"allow_other"}})
	work := subDir(t, dir, "work")
	if err := os.Chown(work, bob, bobGroup); err != nil {
		t.Fatal(err)
	}
	m := mountWith(t, dir, mountConfig{opts: []string{"allow_other"}, wrap: tight})
	before := works(t, m.path("work"))
	hog := startProc(t, as(clientCmd("hog", "waiting", m.path("hog")), alice, aliceGroup))
	hog.hear("opened")
	hung.signal(syscall.SIGSTOP)
	defer hung.signal(syscall.SIGCONT) // also when the test fails: nothing else ends the wait
	hog.say("read")
	hog.hear("reading")
	time.Sleep(100 * time.Millisecond) // the reads are on their way
	undisturbed(t, m.path("work"), before)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", m.pid))
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) > 100 {
		t.Errorf("the daemon has %d threads", len(threads))
	}
	// Who is killed while his request waits for a worker is gone at once.
	killed := startProc(t, as(exec.Command("ls", m.path("work")), alice, aliceGroup))
	time.Sleep(50 * time.Millisecond)
	killed.kill()
	if errors.Is(killed.err, errTimeout) {
		t.Errorf("a process that waits for a worker: %v", killed.err)
	}
	hung.signal(syscall.SIGCONT)
	if got := hog.line(); got != fmt.Sprint(files, " all") {
		t.Errorf("after the device has come back the hog says %s", got)
	}
}

// fusectl mounts the filesystem by which FUSE mounts are controlled, which most systems
// have mounted, if it is not there.
func fusectl(t *testing.T) {
	t.Helper()
	const dir = "/sys/fs/fuse/connections"
	if !isMounted(t, dir) {
		mountFor(t, dir, "-t", "fusectl", "fusectl", dir)
	}
}

// clientHog takes all it can of what, below dir, says how many it has and what ended it, and
// keeps them until its input ends.
func clientHog(args []string) error {
	what, dir := args[0], args[1]
	if what == "waiting" {
		return hogWaiting(dir)
	}
	take, ok := map[string]func(i int) error{
		"files": func(i int) error {
			_, err := unix.Open(filepath.Join(dir, fmt.Sprint(i)), unix.O_RDWR|unix.O_CREAT, 0o600)
			return err
		},
		"same": func(int) error {
			_, err := unix.Open(filepath.Join(dir, "f"), unix.O_RDWR|unix.O_CREAT, 0o600)
			return err
		},
		"dirs": func(int) error {
			_, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			return err
		},
		"removed": func(i int) error {
			// Known, without a name, and not open.
			name := filepath.Join(dir, fmt.Sprint(i))
			fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT, 0o600)
			if err == nil {
				_, err = unix.Open(name, unix.O_PATH, 0)
				unix.Close(fd)
			}
			if err == nil {
				err = unix.Unlink(name)
			}
			return err
		},
		"texts": func(int) error {
			_, err := unix.Open(filepath.Join(dir, "..", ".mapfs", "metrics"), unix.O_RDONLY, 0)
			return err
		},
		"private": func(i int) error {
			fd, err := unix.Open(filepath.Join(dir, fmt.Sprint(i/16)), unix.O_RDWR|unix.O_CREAT, 0o600)
			if err == nil {
				_, err = unix.Pwrite(fd, make([]byte, 4096), int64(i%16)*int64(os.Getpagesize()))
				unix.Close(fd)
			}
			return err
		},
	}[what]
	if !ok {
		return fmt.Errorf("%q is nothing to take", what)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 5000, Max: 5000}); err != nil {
		return err
	}
	var err error
	n := 0
	for ; n < 4000 && err == nil; n++ {
		err = take(n)
	}
	if err == nil {
		fmt.Println(n, "all")
	} else {
		fmt.Println(n-1, unix.ErrnoName(err.(syscall.Errno)))
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// hogWaiting reads every file below dir at the same time, and past the kernel's cache,
// when it is told to.
func hogWaiting(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var fds []int
	for _, e := range entries {
		fd, err := unix.Open(filepath.Join(dir, e.Name()), unix.O_RDONLY|unix.O_DIRECT, 0)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	fmt.Println("opened")
	if _, err := os.Stdin.Read(make([]byte, 5)); err != nil {
		return err
	}
	var readers sync.WaitGroup
	errs := make(chan error, len(fds))
	for _, fd := range fds {
		readers.Go(func() {
			_, err := unix.Pread(fd, make([]byte, 512), 0)
			errs <- err
		})
	}
	fmt.Println("reading")
	readers.Wait()
	for range fds {
		if err := <-errs; err != nil {
			return err
		}
	}
	fmt.Println(len(fds), "all")
	return nil
}

// clientWork does what people do with files, below dir, and prints each step's median time
// in nanoseconds.
func clientWork(args []string) error {
	const rounds = 60
	dir := args[0]
	name, moved := filepath.Join(dir, "w"), filepath.Join(dir, "moved")
	steps := []struct {
		name string
		do   func() error
	}{
		{"create", func() error { return os.WriteFile(name, make([]byte, 4096), 0o600) }},
		{"read", func() error { _, err := os.ReadFile(name); return err }},
		{"stat", func() error { _, err := os.Stat(name); return err }},
		{"list", func() error { _, err := os.ReadDir(dir); return err }},
		{"truncate", func() error { return os.Truncate(name, 100) }},
		{"rename", func() error { return os.Rename(name, moved) }},
		{"status", func() error { _, err := os.ReadFile(filepath.Join(dir, "..", ".mapfs", "status")); return err }},
		{"remove", func() error { return os.Remove(moved) }},
	}
	times := make([][]time.Duration, len(steps))
	for range rounds {
		for i, step := range steps {
			start := time.Now()
			if err := step.do(); err != nil {
				return fmt.Errorf("%s: %w", step.name, err)
			}
			times[i] = append(times[i], time.Since(start))
		}
	}
	for i, step := range steps {
		slices.Sort(times[i])
		fmt.Println(step.name, int64(times[i][rounds/2]))
	}
	return nil
}
