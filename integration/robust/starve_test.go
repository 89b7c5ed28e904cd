package robust

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

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

func init() {
	harness.AddVerb("hog", clientHog)
	harness.AddVerb("work", clientWork)
}

// tight runs a daemon with few descriptors that it cannot raise.
var tight = []string{"prlimit", "--nofile=1024:1024", "setpriv", "--bounding-set", "-sys_resource"}

// starved is a mount with few descriptors, of which a hog takes all he can while
// another user works, and another such mount without a hog, by which that work is
// measured: what else the machine does slows down both.
func starved(t *testing.T, dir string, opts ...string) (m *harness.Mounted, hogs, work, quiet string) {
	t.Helper()
	need.Root(t)
	need.Tool(t, "prlimit")
	need.Tool(t, "setpriv")
	conf := harness.MountConfig{Opts: append(opts, "allow_other"), Wrap: tight}
	busy, still := harness.SubDir(t, dir, "busy"), harness.SubDir(t, dir, "quiet")
	for sub, uid := range map[string]int{harness.SubDir(t, busy, "hog"): harness.Alice, harness.SubDir(t, busy, "work"): harness.Bob, harness.SubDir(t, still, "work"): harness.Bob} {
		if err := os.Chown(sub, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	m = harness.MountWith(t, busy, conf)
	return m, m.Path("hog"), m.Path("work"), harness.MountWith(t, still, conf).Path("work")
}

// startHog starts a hog that takes what, and returns what he says he has got, like
// "510 ENFILE", when he has all he can take.
func startHog(t *testing.T, what, dir string) string {
	t.Helper()
	return harness.StartProc(t, harness.As(harness.ClientCmd("hog", what, dir), harness.Alice, harness.AliceGroup)).Line()
}

// undisturbed fails the test if another user's work in dir meets an error, or takes more
// than three times as long as in quiet.
func undisturbed(t *testing.T, dir, quiet string) {
	t.Helper()
	// The race detector makes some steps slower than others: then it is races and errors
	// that are looked for.
	times := time.Duration(3)
	if os.Getenv("MAPFS_RACE") == "1" {
		times = 20
	}
	// A machine with other load can be slow for a moment, and for one step.
	var slow []string
	for range 5 {
		out, err := harness.RunCmd(harness.As(harness.ClientCmd("work", dir, quiet), harness.Bob, harness.BobGroup), harness.ClientTimeout)
		if err != nil {
			t.Fatalf("another user's work: %v", err)
		}
		slow = nil
		for line := range strings.Lines(out) {
			var step string
			var here, there time.Duration
			if _, err := fmt.Sscan(line, &step, (*int64)(&here), (*int64)(&there)); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			// A step of some microseconds is all the scheduler's.
			if here > times*max(there, 50*time.Microsecond) {
				slow = append(slow, fmt.Sprintf("%s takes %v, without the hog %v", step, here, there))
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
			harness.EachFS(t, func(t *testing.T, dir string) {
				m, hogs, work, quiet := starved(t, dir, c.opts...)
				has := startHog(t, c.what, hogs)
				count, reason, _ := strings.Cut(has, " ")
				if n, _ := strconv.Atoi(count); n < 100 || !slices.Contains(c.errs, reason) {
					t.Errorf("the hog got %s, want at least 100 and then one of %v", has, c.errs)
				}
				undisturbed(t, work, quiet)
				if got := m.Fds(); got > 1000 {
					t.Errorf("the daemon has %d of 1024 descriptors", got)
				}
				// The hog himself can still list and remove, and so can root.
				harness.Run(t, "sh", "-ec", `ls "$1" >"$2"; cat "$1/../.mapfs/status" >>"$2"; rm -r "$1"`, "sh", hogs, os.DevNull)
			})
		})
	}
}

// TestStarveWaiting lets requests of one user wait for a device that does not answer: a
// mount inside BACKING whose daemon is stopped.
func TestStarveWaiting(t *testing.T) {
	need.Root(t)
	fusectl(t)
	dir, below, quietDir := harness.TmpfsDir(t), harness.TmpfsDir(t), harness.TmpfsDir(t)
	const files = 200 // some times as many as there are workers
	for i := range files {
		if err := os.WriteFile(filepath.Join(below, fmt.Sprint(i)), []byte("some bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	harness.SubDir(t, dir, "hog")
	hung := harness.MountWith(t, below, harness.MountConfig{Dir: filepath.Join(dir, "hog"), Opts: []string{"allow_other"}})
	for _, work := range []string{harness.SubDir(t, dir, "work"), harness.SubDir(t, quietDir, "work")} {
		if err := os.Chown(work, harness.Bob, harness.BobGroup); err != nil {
			t.Fatal(err)
		}
	}
	conf := harness.MountConfig{Opts: []string{"allow_other"}, Wrap: tight}
	m, quiet := harness.MountWith(t, dir, conf), harness.MountWith(t, quietDir, conf)
	hog := harness.StartProc(t, harness.As(harness.ClientCmd("hog", "waiting", m.Path("hog")), harness.Alice, harness.AliceGroup))
	hog.Hear("opened")
	hung.Signal(syscall.SIGSTOP)
	defer hung.Signal(syscall.SIGCONT) // also when the test fails: nothing else ends the wait
	hog.Say("read")
	hog.Hear("reading")
	time.Sleep(100 * time.Millisecond) // the reads are on their way
	undisturbed(t, m.Path("work"), quiet.Path("work"))
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", m.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if len(threads) > 100 {
		t.Errorf("the daemon has %d threads", len(threads))
	}
	// Who is killed while his request waits for a worker is gone at once.
	killed := harness.StartProc(t, harness.As(exec.Command("ls", m.Path("work")), harness.Alice, harness.AliceGroup))
	time.Sleep(50 * time.Millisecond)
	killed.Kill()
	if errors.Is(killed.Err, harness.ErrTimeout) {
		t.Errorf("a process that waits for a worker: %v", killed.Err)
	}
	hung.Signal(syscall.SIGCONT)
	if got := hog.Line(); got != fmt.Sprint(files, " all") {
		t.Errorf("after the device has come back the hog says %s", got)
	}
}

// fusectl mounts the filesystem by which FUSE mounts are controlled, which most systems
// have mounted, if it is not there.
func fusectl(t *testing.T) {
	t.Helper()
	const dir = "/sys/fs/fuse/connections"
	if !harness.IsMounted(t, dir) {
		harness.MountFor(t, dir, "-t", "fusectl", "fusectl", dir)
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

// clientWork does what people do with files, below each of two directories by turns, and
// prints each step's median time in nanoseconds in the one and the other.
func clientWork(args []string) error {
	const rounds = 60
	steps := []struct {
		name string
		do   func(dir string) error
	}{
		{"create", func(dir string) error { return os.WriteFile(dir+"/w", make([]byte, 4096), 0o600) }},
		{"read", func(dir string) error { _, err := os.ReadFile(dir + "/w"); return err }},
		{"stat", func(dir string) error { _, err := os.Stat(dir + "/w"); return err }},
		{"list", func(dir string) error { _, err := os.ReadDir(dir); return err }},
		{"truncate", func(dir string) error { return os.Truncate(dir+"/w", 100) }},
		{"rename", func(dir string) error { return os.Rename(dir+"/w", dir+"/moved") }},
		{"status", func(dir string) error { _, err := os.ReadFile(dir + "/../.mapfs/status"); return err }},
		{"remove", func(dir string) error { return os.Remove(dir + "/moved") }},
	}
	times := make([][2][]time.Duration, len(steps))
	for range rounds {
		for at, dir := range args[:2] {
			for i, step := range steps {
				start := time.Now()
				if err := step.do(dir); err != nil {
					return fmt.Errorf("%s: %w", step.name, err)
				}
				times[i][at] = append(times[i][at], time.Since(start))
			}
		}
	}
	for i, step := range steps {
		for at := range times[i] {
			slices.Sort(times[i][at])
		}
		fmt.Println(step.name, int64(times[i][0][rounds/2]), int64(times[i][1][rounds/2]))
	}
	return nil
}
