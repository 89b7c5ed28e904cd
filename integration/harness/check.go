package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/internal/need"
)

// Check is something that a client does and looks at in a directory. The same check runs on a plain directory
// and on the mount: that it passes on the plain one proves the check, so what
// fails on the mount alone is a fault of the mount.
type Check struct {
	Name string
	Run  func(c *CheckT)
	// MountOnly is for checks that need BACKING beside the mount.
	MountOnly bool
	// WriteThrough is for checks of what the kernel itself does otherwise with a cache
	// that writes back.
	WriteThrough bool
	// NotPassed: with -o passthrough the kernel does it in a way of its own.
	NotPassed bool
}

// checks are those of the test binary.
var checks []Check

// AddChecks adds to them. It is for init functions.
func AddChecks(more []Check) { checks = append(checks, more...) }

// Lives fails the test if the daemon does not run any more after the named check.
func (m *Mounted) Lives(check string) {
	m.T.Helper()
	select {
	case <-m.Exited:
		m.T.Fatalf("the daemon died in the check %s: %v", check, m.Err)
	default:
	}
}

// RunCheck runs one check in a client of its own: it may change its umask, its
// working directory and its user, and it can be killed.
func RunCheck(t *testing.T, dir, backing, name string) {
	t.Helper()
	cmd := ClientCmd("check", dir, backing, name)
	// The checks call the system directly and do not repeat what a signal
	// interrupts, so the Go runtime shall send none.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	out, err := RunCmd(cmd, 2*ClientTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := strings.CutPrefix(out, "skip: "); ok {
		feature, why, _ := strings.Cut(strings.TrimSpace(text), ": ")
		need.Missing(t, feature, "%s", why)
	}
}

// clientCheck is `client check DIR BACKING NAME`. The check gets a directory of
// its own in DIR, and in BACKING the same one unless that is "".
func clientCheck(args []string) (err error) {
	dir, backing, name := args[0], args[1], args[2]
	i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("no check %q", name)
	}
	syscall.Umask(0o022)
	c := &CheckT{Dir: filepath.Join(dir, name)}
	if backing != "" {
		c.Backing = filepath.Join(backing, name)
	}
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		return err
	}
	defer func() {
		var failed checkFailed
		var skipped checkSkipped
		switch v := recover(); {
		case v == nil:
		case asPanic(v, &failed):
			err = errors.New(string(failed))
		case asPanic(v, &skipped):
			fmt.Println("skip: " + string(skipped))
		default:
			panic(v)
		}
		for _, f := range slices.Backward(c.cleanups) {
			f()
		}
		// Removing what the check made is one more check, but not where the check
		// has changed BACKING: a mount that is wrong about what lies where must
		// not be trusted with a recursive removal.
		top := c.Dir
		if checks[i].MountOnly {
			top = c.Backing
		}
		if rmErr := os.RemoveAll(top); rmErr != nil {
			err = errors.Join(err, rmErr)
		}
	}()
	checks[i].Run(c)
	return nil
}

// checkFailed and checkSkipped are what Fatalf and skip panic with.
type (
	checkFailed  string
	checkSkipped string
)

func asPanic[T any](v any, target *T) bool {
	t, ok := v.(T)
	if ok {
		*target = t
	}
	return ok
}

// CheckT is what a check works with. It reports as a testing.TB does.
type CheckT struct {
	Dir     string // empty at the start
	Backing string // the same directory in BACKING; "" on a plain directory

	cleanups []func()
}

func (c *CheckT) Helper() {}

func (c *CheckT) Cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

func (c *CheckT) Fatal(args ...any) { c.fail(fmt.Sprint(args...)) }

func (c *CheckT) Fatalf(format string, args ...any) { c.fail(fmt.Sprintf(format, args...)) }

// fail ends the check and says at which line of it.
func (c *CheckT) fail(msg string) {
	where := ""
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		base := filepath.Base(frame.File)
		if strings.HasSuffix(base, "_test.go") {
			// The check's own line is the outermost; helpers of a file are called by it.
			where = fmt.Sprintf("%s:%d: ", base, frame.Line)
		}
		if !more || strings.HasSuffix(frame.Function, ".clientCheck") {
			break
		}
	}
	panic(checkFailed(where + msg))
}

// Skip is for checks that the file system below cannot support at all. feature is what
// it lacks, as MAPFS_REQUIRE calls it.
func (c *CheckT) Skip(feature, format string, args ...any) {
	panic(checkSkipped(feature + ": " + fmt.Sprintf(format, args...)))
}

// Native is a directory of the file system below the mount, or c.dir on a plain
// one: what the mount must agree with.
func (c *CheckT) Native() string {
	if c.Backing != "" {
		return c.Backing
	}
	return c.Dir
}

func (c *CheckT) Path(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// Ok fails the check unless err is nil.
func (c *CheckT) Ok(err error, format string, args ...any) {
	if err != nil {
		c.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// Errno fails the check unless err is the errno want.
func (c *CheckT) Errno(err error, want syscall.Errno, format string, args ...any) {
	if got, ok := asErrno(err); !ok || got != want {
		c.Fatalf("%s: got %v, want %s (%v)", fmt.Sprintf(format, args...), err, unix.ErrnoName(want), want)
	}
}

func asErrno(err error) (syscall.Errno, bool) {
	var errno syscall.Errno
	ok := errors.As(err, &errno)
	return errno, ok
}

// Equal fails the check unless got is want.
func Equal[V comparable](c reporter, got, want V, format string, args ...any) {
	if got != want {
		c.Fatalf("%s: got %v, want %v", fmt.Sprintf(format, args...), got, want)
	}
}

// Open opens a file until the end of the check.
func (c *CheckT) Open(path string, flags int, mode uint32) int {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	c.Ok(err, "open %s", filepath.Base(path))
	c.Cleanup(func() { unix.Close(fd) })
	return fd
}

// Write makes or replaces a file.
func (c *CheckT) Write(path, data string) {
	c.Ok(os.WriteFile(path, []byte(data), 0o644), "write %s", filepath.Base(path))
}

func (c *CheckT) Mkdir(path string) {
	c.Ok(unix.Mkdir(path, 0o755), "mkdir %s", filepath.Base(path))
}

// Holds fails the check unless the file's content is want.
func (c *CheckT) Holds(path, want string) {
	got, err := os.ReadFile(path)
	c.Ok(err, "read %s", filepath.Base(path))
	SameBytes(c, string(got), want, filepath.Base(path))
}

// FdHolds is holds for a descriptor.
func (c *CheckT) FdHolds(fd int, want string) {
	got := make([]byte, len(want)+1)
	n, err := unix.Pread(fd, got, 0)
	c.Ok(err, "pread")
	SameBytes(c, string(got[:n]), want, "descriptor")
}

// SameBytes compares contents that may be too long to print.
func SameBytes(c reporter, got, want, what string) {
	if got == want {
		return
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	c.Fatalf("%s: got %d bytes, want %d; the first difference is at %d: got %.20q, want %.20q",
		what, len(got), len(want), i, got[i:], want[i:])
}

func (c *CheckT) Lstat(path string) unix.Stat_t {
	var st unix.Stat_t
	c.Ok(unix.Lstat(path, &st), "lstat %s", filepath.Base(path))
	return st
}

func (c *CheckT) Fstat(fd int) unix.Stat_t {
	var st unix.Stat_t
	c.Ok(unix.Fstat(fd, &st), "fstat")
	return st
}

// Absent fails the check unless the name does not exist.
func (c *CheckT) Absent(path string) {
	var st unix.Stat_t
	c.Errno(unix.Lstat(path, &st), unix.ENOENT, "lstat %s", filepath.Base(path))
}

// Tick waits until a file's time stamps can differ from those of now: the
// kernel's clock for them advances by ticks.
func Tick() { time.Sleep(20 * time.Millisecond) }

// Users that own nothing on the machine.
const (
	Alice, AliceGroup = 12341, 22341
	Bob, BobGroup     = 12342, 22342
)

// As runs f as another user without capabilities or further groups.
func (c *CheckT) As(uid, gid int, f func()) { c.AsGroups(uid, gid, nil, f) }

// AsGroups runs f as another user, without capabilities. Only this thread becomes
// the user, by the bare system calls that C libraries wrap to hit all threads; so
// f must not start goroutines that touch files. Programs that f starts run as the
// user too.
func (c *CheckT) AsGroups(uid, gid int, groups []uint32, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setGroups := func(groups []uint32) {
		_, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)),
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
		if errno != 0 {
			panic(fmt.Sprintf("setgroups: %v", errno))
		}
	}
	setIDs := func(nr uintptr, id int) {
		// The saved id stays 0: that is the way back.
		if _, _, errno := syscall.RawSyscall(nr, uintptr(id), uintptr(id), 0); errno != 0 {
			panic(fmt.Sprintf("become user %d: %v", uid, errno))
		}
	}
	setGroups(groups)
	setIDs(unix.SYS_SETRESGID, gid)
	setIDs(unix.SYS_SETRESUID, uid)
	defer func() {
		setIDs(unix.SYS_SETRESUID, 0)
		setIDs(unix.SYS_SETRESGID, 0)
		setGroups(nil)
	}()
	f()
}

// Expired waits until the kernel must ask for names and attributes again.
func Expired() { time.Sleep(1200 * time.Millisecond) }

// Below is a name in BACKING.
func (c *CheckT) Below(name string) string { return c.Backing + "/" + name }

// LongAgo is an access time that the next read changes, because it is before that of
// the last change.
var LongAgo = unix.Timespec{Sec: 1000}

// MakeOneOfEach makes one thing of each kind in dir, and returns their names.
func (c *CheckT) MakeOneOfEach(dir string) []string {
	in := func(name string) string { return filepath.Join(dir, name) }
	fd, err := unix.Open(in("file"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	c.Ok(err, "create")
	unix.Close(fd)
	c.Ok(unix.Mkdir(in("dir"), 0o755), "mkdir")
	c.Ok(unix.Symlink("x", in("symlink")), "symlink")
	c.Ok(unix.Mkfifo(in("fifo"), 0o644), "mkfifo")
	c.Ok(unix.Mknod(in("socket"), unix.S_IFSOCK|0o644, 0), "mknod of a socket")
	c.Ok(unix.Mknod(in("regular"), unix.S_IFREG|0o644, 0), "mknod of a regular file")
	return []string{"file", "dir", "symlink", "fifo", "socket", "regular"}
}
