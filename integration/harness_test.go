package integration

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

const (
	// mountLimit bounds the time from the daemon's start to the first answer.
	mountLimit = 20 * time.Second
	// exitLimit bounds the daemon's way out: it writes everything back first.
	exitLimit = 30 * time.Second
)

// requireFUSE skips or fails the test where nothing can be mounted.
func requireFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		need.Missing(t, "fuse", "%v", err)
	}
	f.Close()
	if _, err := exec.LookPath("fusermount3"); err != nil {
		need.Missing(t, "fuse", "%v (install the package fuse3)", err)
	}
}

// tempDir is t.TempDir for mounts: every user can reach it, and it is never
// removed while something is still mounted below it, because that would remove
// the backing directory's files instead.
func tempDir(t testing.TB) string {
	t.Helper()
	return tempDirIn(t, os.TempDir())
}

func tempDirIn(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "mapfs-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountpoints(t) {
			if strings.HasPrefix(m, dir+"/") {
				t.Errorf("%s is still mounted; %s is left behind", m, dir)
				return
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// eachFS runs f as one subtest on a fresh directory of ext4 and one of tmpfs:
// the two differ in what they keep beyond the end of a file and in what the
// kernel tells of their pages.
func eachFS(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	t.Run("ext4", func(t *testing.T) { f(t, ext4Dir(t)) })
	t.Run("tmpfs", func(t *testing.T) { f(t, tmpfsDir(t)) })
}

// ext4Dir returns a fresh directory on ext4: in the temporary directory if that
// is one, else in the test's own image.
func ext4Dir(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	if fsType(t, dir) != unix.EXT4_SUPER_MAGIC {
		return mountImage(t, "ext4", 256<<20)
	}
	return subDir(t, dir, "ext4")
}

// tmpfsDir returns a fresh directory on tmpfs.
func tmpfsDir(t testing.TB) string {
	t.Helper()
	if os.Geteuid() == 0 {
		dir := subDir(t, tempDir(t), "tmpfs")
		mountFor(t, dir, "-t", "tmpfs", "-o", "size=1g,mode=755", "mapfs-test", dir)
		return dir
	}
	if _, err := os.Stat("/dev/shm"); err != nil || fsType(t, "/dev/shm") != unix.TMPFS_MAGIC {
		need.Missing(t, "tmpfs", "not root, and /dev/shm is no tmpfs")
	}
	return tempDirIn(t, "/dev/shm")
}

// mountImage makes a file system of size bytes in a sparse image, mounts it by a
// loop device and returns its root.
func mountImage(t testing.TB, fstype string, size int64) string {
	t.Helper()
	need.Root(t)
	need.Tool(t, "mkfs."+fstype)
	top := tempDir(t)
	image := filepath.Join(top, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs."+fstype, "-q", image)
	dir := subDir(t, top, fstype)
	mountFor(t, dir, "-o", "loop", image, dir)
	return dir
}

// mountFor runs mount(8) for the time of the test.
func mountFor(t testing.TB, dir string, args ...string) {
	t.Helper()
	if out, err := runErr("mount", args...); err != nil {
		need.Missing(t, "mount", "mount %q: %v %s", args, err, out)
	}
	t.Cleanup(func() {
		if _, err := runErr("umount", dir); err != nil {
			t.Errorf("umount %s: %v", dir, err)
			_, _ = runErr("umount", "-l", dir)
		}
	})
}

func subDir(t testing.TB, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fsType is the statfs magic number of the file system that dir is on.
func fsType(t testing.TB, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatalf("statfs %s: %v", dir, err)
	}
	return int64(st.Type)
}

// mountpoints lists what is mounted, without touching any of it.
func mountpoints(t testing.TB) []string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var points []string
	for s := bufio.NewScanner(f); s.Scan(); {
		points = append(points, mountinfoPath(strings.Fields(s.Text())[4]))
	}
	return points
}

var octalEscape = regexp.MustCompile(`\\[0-7]{3}`)

// mountinfoPath undoes proc(5)'s escaping of space, tab, newline and backslash.
func mountinfoPath(field string) string {
	return octalEscape.ReplaceAllStringFunc(field, func(esc string) string {
		n, _ := strconv.ParseUint(esc[1:], 8, 8)
		return string([]byte{byte(n)})
	})
}

func isMounted(t testing.TB, dir string) bool {
	t.Helper()
	return slices.Contains(mountpoints(t), dir)
}

// mount is one mapfs daemon in the foreground and its mount.
type mount struct {
	dir     string // the mount point: for children only, never for the test process
	backing string
	pid     int

	t      testing.TB
	cmd    *exec.Cmd
	log    lockedBuffer
	exited chan struct{} // closed when the daemon has ended
	err    error         // of Wait; read only after exited

	mu     sync.Mutex
	killed bool // the test killed the daemon: its exit status says nothing
	ended  bool // the unmounting was checked already
}

// mountConfig is what a test may want different from a plain foreground mount.
type mountConfig struct {
	opts []string // each becomes part of -o
	args []string // further arguments before BACKING
	env  []string // in addition to the test's own
	wrap []string // program and arguments that run the daemon by exec, like prlimit
	dir  string   // the mount point, if not a fresh directory
	user uint32   // who may look at it, if not root: the mount is of that user alone
}

// mountT mounts backing and returns when the mount answers. opts are mount
// options: mountT(t, dir, "ro", "allow_other"). At the end of the test it is
// unmounted, and the test fails if the daemon did not end with status 0, left
// its mount behind, or logged a panic or a data race.
func mountT(t testing.TB, backing string, opts ...string) *mount {
	t.Helper()
	return mountWith(t, backing, mountConfig{opts: opts})
}

// mountWith is mountT for tests that need more than options.
func mountWith(t testing.TB, backing string, cfg mountConfig) *mount {
	t.Helper()
	requireFUSE(t)
	if cfg.dir == "" {
		cfg.dir = subDir(t, tempDir(t), "mnt")
	}
	args := append(slices.Clone(cfg.wrap), mapfsBin, "-f")
	if len(cfg.opts) > 0 {
		args = append(args, "-o", strings.Join(cfg.opts, ","))
	}
	args = append(args, cfg.args...)
	args = append(args, backing, cfg.dir)

	m := &mount{
		dir: cfg.dir, backing: backing, t: t,
		cmd: exec.Command(args[0], args[1:]...), exited: make(chan struct{}),
	}
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.Env = append(os.Environ(), cfg.env...)
	setGroup(m.cmd)
	// SIGTERM and not SIGKILL: when the test process dies, of a timeout say, the
	// daemon shall still take its mount away.
	m.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.pid = m.cmd.Process.Pid
	go func() {
		m.err = m.cmd.Wait()
		close(m.exited)
	}()
	t.Cleanup(m.cleanup)

	deadline := time.Now().Add(mountLimit)
	for !isMounted(t, m.dir) {
		select {
		case <-m.exited:
			t.Fatalf("%q ended before the mount was there: %v", m.cmd.Args, m.err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q: nothing mounted after %v", m.cmd.Args, mountLimit)
		}
	}
	if _, err := runCmd(as(exec.Command("stat", m.dir), cfg.user, cfg.user), time.Until(deadline)); err != nil {
		t.Fatalf("the mount does not answer: %v", err)
	}
	return m
}

// path is a file's name below the mount point, for children.
func (m *mount) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

// logged is what the daemon has written so far.
func (m *mount) logged() string { return m.log.String() }

// signal sends the daemon a signal.
func (m *mount) signal(sig os.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.t.Fatalf("signal the daemon: %v", err)
	}
}

// kill ends the daemon by SIGKILL, as a crash would, and leaves the dead mount
// in place.
func (m *mount) kill() {
	m.t.Helper()
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.signal(syscall.SIGKILL)
	m.waitExit(exitLimit)
}

// waitExit waits until the daemon has ended and returns its exit status.
func (m *mount) waitExit(limit time.Duration) int {
	m.t.Helper()
	select {
	case <-m.exited:
		return exitCode(m.err)
	case <-time.After(limit):
		m.t.Fatalf("the daemon still runs after %v", limit)
		return -1
	}
}

// unmount unmounts with `mapfs umount` and checks the end: exit status 0 and
// no mount left. Tests that look at BACKING afterwards call it; for all others
// the clean-up does.
func (m *mount) unmount() {
	m.t.Helper()
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	if err := m.tryUnmount(); err != nil {
		m.t.Errorf("unmount: %v", err)
	}
}

// tryUnmount unmounts and, whatever happens, leaves no mount and no daemon.
func (m *mount) tryUnmount() error {
	var errs []error
	if isMounted(m.t, m.dir) {
		if out, err := runErr(mapfsBin, "umount", m.dir); err != nil {
			errs = append(errs, fmt.Errorf("mapfs umount: %w %s", err, out))
		}
	}
	if isMounted(m.t, m.dir) {
		errs = append(errs, errors.New("still mounted after mapfs umount"))
		// fusermount3 works for root too, and for a mount whose daemon is dead.
		_, _ = runErr("fusermount3", "-u", "-z", m.dir)
	}
	select {
	case <-m.exited:
	case <-time.After(exitLimit):
		errs = append(errs, fmt.Errorf("the daemon still runs %v after the unmount; its goroutines:\n%s",
			exitLimit, m.dump()))
		_ = syscall.Kill(-m.pid, syscall.SIGKILL)
		<-m.exited
	}
	m.mu.Lock()
	killed := m.killed
	m.mu.Unlock()
	if m.err != nil && !killed {
		errs = append(errs, fmt.Errorf("the daemon ended with: %w", m.err))
	}
	if isMounted(m.t, m.dir) {
		errs = append(errs, fmt.Errorf("%s is still mounted after the daemon's end", m.dir))
	}
	return errors.Join(errs...)
}

// dump makes a stuck daemon print its goroutines and end.
func (m *mount) dump() string {
	before := len(m.log.String())
	_ = m.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-m.exited:
	case <-time.After(killGrace):
	}
	return m.log.String()[before:]
}

// daemonDied matches what no daemon may ever log.
var daemonDied = regexp.MustCompile(`(?m)^(panic:|fatal error:|unexpected fault address|WARNING: DATA RACE)|\[signal SIG`)

func (m *mount) cleanup() {
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	if !ended {
		if err := m.tryUnmount(); err != nil {
			m.t.Errorf("unmount: %v", err)
		}
	}
	log := m.log.String()
	if bad := daemonDied.FindString(log); bad != "" {
		m.t.Errorf("the daemon's log has %q", bad)
	}
	if m.t.Failed() && log != "" {
		// Of a crash the beginning says why, of most else the end.
		const most = 32 << 10
		if len(log) > 2*most {
			log = log[:most] + "\n[...]\n" + log[len(log)-most:]
		}
		m.t.Logf("log of %q:\n%s", m.cmd.Args, log)
	}
}

// fds is how many descriptors the daemon has open.
func (m *mount) fds() int {
	m.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.pid))
	if err != nil {
		m.t.Fatal(err)
	}
	return len(entries)
}

// mappings lists the lines of the daemon's /proc/PID/maps that map files of
// BACKING. Deleted files are among them.
func (m *mount) mappings() []string {
	m.t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", m.pid))
	if err != nil {
		m.t.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(maps), "\n") {
		if strings.Contains(line, " "+m.backing+"/") {
			lines = append(lines, line)
		}
	}
	return lines
}

// settles fails the test unless the daemon gets down to at most so many
// descriptors and mappings of BACKING within limit.
func (m *mount) settles(fdN, mappingN int, limit time.Duration) {
	m.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		fds, mappings := m.fds(), m.mappings()
		if fds <= fdN && len(mappings) <= mappingN {
			return
		}
		if time.Now().After(deadline) {
			m.t.Errorf("after %v the daemon has %d descriptors and %d mappings, want at most %d and %d\n%s",
				limit, fds, len(mappings), fdN, mappingN, strings.Join(mappings, "\n"))
			return
		}
	}
}
