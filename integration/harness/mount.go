package harness

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
	// MountLimit bounds the time from the daemon's start to the first answer.
	MountLimit = 20 * time.Second
	// ExitLimit bounds the daemon's way out: it writes everything back first.
	ExitLimit = 30 * time.Second
)

// RequireFUSE skips or fails the test where nothing can be mounted.
func RequireFUSE(t testing.TB) {
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

// TempDir is t.TempDir for mounts: every user can reach it, and it is never
// removed while something is still mounted below it, because that would remove
// the backing directory's files instead.
func TempDir(t testing.TB) string {
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

// EachFS runs f as one subtest on a fresh directory of ext4 and one of tmpfs:
// the two differ in what they keep beyond the end of a file and in what the
// kernel tells of their pages.
func EachFS(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	t.Run("ext4", func(t *testing.T) { f(t, Ext4Dir(t)) })
	t.Run("tmpfs", func(t *testing.T) { f(t, TmpfsDir(t)) })
}

// Ext4Dir returns a fresh directory on ext4: in the temporary directory if that
// is one, else in the test's own image.
func Ext4Dir(t testing.TB) string {
	t.Helper()
	dir := TempDir(t)
	if FsType(t, dir) != unix.EXT4_SUPER_MAGIC {
		return MountImage(t, "ext4", 256<<20)
	}
	return SubDir(t, dir, "ext4")
}

// TmpfsDir returns a fresh directory on tmpfs.
func TmpfsDir(t testing.TB) string {
	t.Helper()
	if os.Geteuid() == 0 {
		dir := SubDir(t, TempDir(t), "tmpfs")
		MountFor(t, dir, "-t", "tmpfs", "-o", "size=1g,mode=755", "mapfs-test", dir)
		return dir
	}
	if _, err := os.Stat("/dev/shm"); err != nil || FsType(t, "/dev/shm") != unix.TMPFS_MAGIC {
		need.Missing(t, "tmpfs", "not root, and /dev/shm is no tmpfs")
	}
	return tempDirIn(t, "/dev/shm")
}

// MountImage makes a file system of size bytes in a sparse image, mounts it by a
// loop device and returns its root.
func MountImage(t testing.TB, fstype string, size int64) string {
	t.Helper()
	need.Root(t)
	need.Tool(t, "mkfs."+fstype)
	top := TempDir(t)
	image := filepath.Join(top, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	Run(t, "mkfs."+fstype, "-q", image)
	dir := SubDir(t, top, fstype)
	MountFor(t, dir, "-o", "loop", image, dir)
	return dir
}

// MountFor runs mount(8) for the time of the test.
func MountFor(t testing.TB, dir string, args ...string) {
	t.Helper()
	if out, err := RunErr("mount", args...); err != nil {
		need.Missing(t, "mount", "mount %q: %v %s", args, err, out)
	}
	t.Cleanup(func() {
		if _, err := RunErr("umount", dir); err != nil {
			t.Errorf("umount %s: %v", dir, err)
			_, _ = RunErr("umount", "-l", dir)
		}
	})
}

func SubDir(t testing.TB, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// FsType is the statfs magic number of the file system that dir is on.
func FsType(t testing.TB, dir string) int64 {
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
		points = append(points, MountinfoPath(strings.Fields(s.Text())[4]))
	}
	return points
}

var octalEscape = regexp.MustCompile(`\\[0-7]{3}`)

// MountinfoPath undoes proc(5)'s escaping of space, tab, newline and backslash.
func MountinfoPath(field string) string {
	return octalEscape.ReplaceAllStringFunc(field, func(esc string) string {
		n, _ := strconv.ParseUint(esc[1:], 8, 8)
		return string([]byte{byte(n)})
	})
}

func IsMounted(t testing.TB, dir string) bool {
	t.Helper()
	return slices.Contains(mountpoints(t), dir)
}

// Mounted is one mapfs daemon in the foreground and its mount.
type Mounted struct {
	Dir     string // the mount point: for children only, never for the test process
	Backing string
	Pid     int

	T      testing.TB
	cmd    *exec.Cmd
	log    lockedBuffer
	Exited chan struct{} // closed when the daemon has ended
	Err    error         // of Wait; read only after exited

	mu     sync.Mutex
	killed bool // the test killed the daemon: its exit status says nothing
	ended  bool // the unmounting was checked already
}

// MountConfig is what a test may want different from a plain foreground mount.
type MountConfig struct {
	Opts []string // each becomes part of -o
	Args []string // further arguments before BACKING
	env  []string // in addition to the test's own
	Wrap []string // program and arguments that run the daemon by exec, like prlimit
	Dir  string   // the mount point, if not a fresh directory
	User uint32   // who may look at it, if not root: the mount is of that user alone
}

// Mount mounts backing and returns when the mount answers. opts are mount
// options: mountT(t, dir, "ro", "allow_other"). At the end of the test it is
// unmounted, and the test fails if the daemon did not end with status 0, left
// its mount behind, or logged a panic or a data race.
func Mount(t testing.TB, backing string, opts ...string) *Mounted {
	t.Helper()
	return MountWith(t, backing, MountConfig{Opts: opts})
}

// MountWith is mountT for tests that need more than options.
func MountWith(t testing.TB, backing string, cfg MountConfig) *Mounted {
	t.Helper()
	RequireFUSE(t)
	if cfg.Dir == "" {
		cfg.Dir = SubDir(t, TempDir(t), "mnt")
	}
	args := append(slices.Clone(cfg.Wrap), Binary, "-f")
	if len(cfg.Opts) > 0 {
		args = append(args, "-o", strings.Join(cfg.Opts, ","))
	}
	args = append(args, cfg.Args...)
	args = append(args, backing, cfg.Dir)

	m := &Mounted{
		Dir: cfg.Dir, Backing: backing, T: t,
		cmd: exec.Command(args[0], args[1:]...), Exited: make(chan struct{}),
	}
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.Env = append(os.Environ(), cfg.env...)
	SetGroup(m.cmd)
	// SIGTERM and not SIGKILL: when the test process dies, of a timeout say, the
	// daemon shall still take its mount away.
	m.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.Pid = m.cmd.Process.Pid
	go func() {
		m.Err = m.cmd.Wait()
		close(m.Exited)
	}()
	t.Cleanup(m.cleanup)

	deadline := time.Now().Add(MountLimit)
	for !IsMounted(t, m.Dir) {
		select {
		case <-m.Exited:
			t.Fatalf("%q ended before the mount was there: %v", m.cmd.Args, m.Err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q: nothing mounted after %v", m.cmd.Args, MountLimit)
		}
	}
	if _, err := RunCmd(As(exec.Command("stat", m.Dir), cfg.User, cfg.User), time.Until(deadline)); err != nil {
		t.Fatalf("the mount does not answer: %v", err)
	}
	return m
}

// Path is a file's name below the mount point, for children.
func (m *Mounted) Path(elem ...string) string {
	return filepath.Join(append([]string{m.Dir}, elem...)...)
}

// Logged is what the daemon has written so far.
func (m *Mounted) Logged() string { return m.log.String() }

// Signal sends the daemon a signal.
func (m *Mounted) Signal(sig os.Signal) {
	m.T.Helper()
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.T.Fatalf("signal the daemon: %v", err)
	}
}

// Kill ends the daemon by SIGKILL, as a crash would, and leaves the dead mount
// in place.
func (m *Mounted) Kill() {
	m.T.Helper()
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	m.Signal(syscall.SIGKILL)
	m.WaitExit(ExitLimit)
}

// WaitExit waits until the daemon has ended and returns its exit status.
func (m *Mounted) WaitExit(limit time.Duration) int {
	m.T.Helper()
	select {
	case <-m.Exited:
		return ExitCode(m.Err)
	case <-time.After(limit):
		m.T.Fatalf("the daemon still runs after %v", limit)
		return -1
	}
}

// Unmount unmounts with `mapfs umount` and checks the end: exit status 0 and
// no mount left. Tests that look at BACKING afterwards call it; for all others
// the clean-up does.
func (m *Mounted) Unmount() {
	m.T.Helper()
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	if err := m.tryUnmount(); err != nil {
		m.T.Errorf("unmount: %v", err)
	}
}

// tryUnmount unmounts and, whatever happens, leaves no mount and no daemon.
func (m *Mounted) tryUnmount() error {
	var errs []error
	if IsMounted(m.T, m.Dir) {
		if out, err := RunErr(Binary, "umount", m.Dir); err != nil {
			errs = append(errs, fmt.Errorf("mapfs umount: %w %s", err, out))
		}
	}
	if IsMounted(m.T, m.Dir) {
		errs = append(errs, errors.New("still mounted after mapfs umount"))
		// fusermount3 works for root too, and for a mount whose daemon is dead.
		_, _ = RunErr("fusermount3", "-u", "-z", m.Dir)
	}
	select {
	case <-m.Exited:
	case <-time.After(ExitLimit):
		errs = append(errs, fmt.Errorf("the daemon still runs %v after the unmount; its goroutines:\n%s",
			ExitLimit, m.dump()))
		_ = syscall.Kill(-m.Pid, syscall.SIGKILL)
		<-m.Exited
	}
	m.mu.Lock()
	killed := m.killed
	m.mu.Unlock()
	if m.Err != nil && !killed {
		errs = append(errs, fmt.Errorf("the daemon ended with: %w", m.Err))
	}
	if IsMounted(m.T, m.Dir) {
		errs = append(errs, fmt.Errorf("%s is still mounted after the daemon's end", m.Dir))
	}
	return errors.Join(errs...)
}

// Dump ends the daemon by SIGQUIT, which makes it print its goroutines, and returns
// those.
func (m *Mounted) Dump() string {
	m.mu.Lock()
	m.killed = true
	m.mu.Unlock()
	return m.dump()
}

func (m *Mounted) dump() string {
	before := len(m.log.String())
	_ = m.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-m.Exited:
	case <-time.After(killGrace):
	}
	return m.log.String()[before:]
}

// daemonDied matches what no daemon may ever log.
var daemonDied = regexp.MustCompile(`(?m)^(panic:|fatal error:|unexpected fault address|WARNING: DATA RACE)|\[signal SIG`)

func (m *Mounted) cleanup() {
	m.mu.Lock()
	ended := m.ended
	m.mu.Unlock()
	if !ended {
		if err := m.tryUnmount(); err != nil {
			m.T.Errorf("unmount: %v", err)
		}
	}
	log := m.log.String()
	if bad := daemonDied.FindString(log); bad != "" {
		m.T.Errorf("the daemon's log has %q", bad)
	}
	if m.T.Failed() && log != "" {
		// Of a crash the beginning says why, of most else the end.
		const most = 32 << 10
		if len(log) > 2*most {
			log = log[:most] + "\n[...]\n" + log[len(log)-most:]
		}
		m.T.Logf("log of %q:\n%s", m.cmd.Args, log)
	}
}

// Fds is how many descriptors the daemon has open.
func (m *Mounted) Fds() int {
	m.T.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.Pid))
	if err != nil {
		m.T.Fatal(err)
	}
	return len(entries)
}

// Mappings lists the lines of the daemon's /proc/PID/maps that map files of
// BACKING. Deleted files are among them.
func (m *Mounted) Mappings() []string {
	m.T.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", m.Pid))
	if err != nil {
		m.T.Fatal(err)
	}
	var lines []string
	for _, line := range strings.Split(string(maps), "\n") {
		if strings.Contains(line, " "+m.Backing+"/") {
			lines = append(lines, line)
		}
	}
	return lines
}

// Settles fails the test unless the daemon gets down to at most so many
// descriptors and mappings of BACKING within limit.
func (m *Mounted) Settles(fdN, mappingN int, limit time.Duration) {
	m.T.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		fds, mappings := m.Fds(), m.Mappings()
		if fds <= fdN && len(mappings) <= mappingN {
			return
		}
		if time.Now().After(deadline) {
			m.T.Errorf("after %v the daemon has %d descriptors and %d mappings, want at most %d and %d\n%s",
				limit, fds, len(mappings), fdN, mappingN, strings.Join(mappings, "\n"))
			return
		}
	}
}

// ClearMounts detaches every mount below dir, ends every daemon that serves one,
// and tells what it found.
func ClearMounts(t testing.TB, dir string) (found []string) {
	for _, m := range mountpoints(t) {
		if strings.HasPrefix(m, dir+"/") {
			found = append(found, "the mount "+m)
			_, _ = RunErr("fusermount3", "-u", "-z", m)
		}
	}
	for _, pid := range Servers(dir + "/") {
		found = append(found, fmt.Sprintf("the daemon %d", pid))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return found
}

// Servers lists the mapfs processes whose mount point, their last argument,
// starts with prefix.
func Servers(prefix string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe != Binary {
			continue
		}
		if strings.HasPrefix(args[len(args)-1], prefix) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Alive fails the test unless the daemon answers and has logged no way to die.
func (m *Mounted) Alive() {
	m.T.Helper()
	select {
	case <-m.Exited:
		m.T.Fatalf("the daemon has ended: %v", m.Err)
	default:
	}
	Run(m.T, "stat", m.Dir)
	// An I/O error that repeats itself would fill the disk.
	if n := strings.Count(m.Logged(), "\n"); n > 1000 {
		m.T.Errorf("the daemon has logged %d lines", n)
	}
}

// UnmountAfter unmounts once these clients, which hold files open, are gone.
func (m *Mounted) UnmountAfter(clients ...*Process) {
	m.T.Helper()
	for _, c := range clients {
		c.Wait()
	}
	m.Unmount()
}

// UnmountedBy marks the mount as ended by another unmount than m.unmount, and checks
// that the daemon ends.
func (m *Mounted) UnmountedBy(name string, args ...string) {
	m.T.Helper()
	Run(m.T, name, args...)
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
}

// EndsWell waits for the daemon and checks its exit status.
func (m *Mounted) EndsWell() {
	m.T.Helper()
	if code := m.WaitExit(ExitLimit); code != 0 {
		m.T.Errorf("the daemon ended with status %d", code)
	}
}

// OpenDevice lets every user mount for the time of the test, as udev does for good.
func OpenDevice(t testing.TB) {
	t.Helper()
	before, err := os.Stat("/dev/fuse")
	if err != nil {
		need.Missing(t, "fuse", "%v", err)
	}
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod("/dev/fuse", before.Mode().Perm()); err != nil {
			t.Error(err)
		}
	})
}
