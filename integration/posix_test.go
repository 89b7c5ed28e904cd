package integration

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

// check is one row of the POSIX table. The same check runs on a plain directory
// and on the mount: that it passes on the plain one proves the check, so what
// fails on the mount alone is a fault of the mount.
type check struct {
	name string
	run  func(c *checkT)
	// mountOnly is for checks that need BACKING beside the mount.
	mountOnly bool
	// writeThrough is for checks of what the kernel itself does otherwise with a cache
	// that writes back.
	writeThrough bool
}

// posixChecks is the whole table, in the order in which it runs.
func posixChecks() []check {
	return slices.Concat(nameChecks, dataChecks, sizeChecks, spaceChecks, attrChecks, askChecks, timeChecks, atimeChecks,
		setidChecks, userChecks, specialChecks, linkChecks, renameChecks, dirChecks, xattrChecks,
		mmapChecks, execChecks, lockChecks, backingChecks, forbiddenChecks())
}

// TestPOSIX runs the table on a plain directory and on a mount of one, on ext4
// and on tmpfs.
func TestPOSIX(t *testing.T) {
	need.Root(t)
	eachFS(t, func(t *testing.T, top string) {
		t.Run("plain", func(t *testing.T) {
			dir := subDir(t, top, "plain")
			for _, c := range posixChecks() {
				if !c.mountOnly {
					t.Run(c.name, func(t *testing.T) { runCheck(t, dir, "", c.name) })
				}
			}
		})
		t.Run("mount", func(t *testing.T) {
			requireFUSE(t)
			backing := subDir(t, top, "backing")
			m := mountT(t, backing, "allow_other", "suid", "dev")
			for _, c := range posixChecks() {
				t.Run(c.name, func(t *testing.T) { runCheck(t, m.dir, backing, c.name) })
				m.lives(c.name)
			}
		})
		t.Run("exclusive", func(t *testing.T) {
			requireFUSE(t)
			backing := subDir(t, top, "exclusive")
			m := mountT(t, backing, "exclusive", "allow_other", "suid", "dev")
			for _, c := range posixChecks() {
				if c.mountOnly || c.writeThrough {
					continue // the former change BACKING
				}
				below := ""
				if strings.HasPrefix(c.name, "forbidden_") {
					below = backing // and so the directory is no plain one
				}
				t.Run(c.name, func(t *testing.T) { runCheck(t, m.dir, below, c.name) })
				m.lives(c.name)
			}
		})
	})
}

// lives fails the test if the daemon does not run any more after the named check.
func (m *mount) lives(check string) {
	m.t.Helper()
	select {
	case <-m.exited:
		m.t.Fatalf("the daemon died in the check %s: %v", check, m.err)
	default:
	}
}

// runCheck runs one check in a client of its own: it may change its umask, its
// working directory and its user, and it can be killed.
func runCheck(t *testing.T, dir, backing, name string) {
	t.Helper()
	cmd := clientCmd("posix", dir, backing, name)
	// The checks call the system directly and do not repeat what a signal
	// interrupts, so the Go runtime shall send none.
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	out, err := runCmd(cmd, 2*clientTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if text, ok := strings.CutPrefix(out, "skip: "); ok {
		feature, why, _ := strings.Cut(strings.TrimSpace(text), ": ")
		need.Missing(t, feature, "%s", why)
	}
}

// clientPosix is `client posix DIR BACKING NAME`. The check gets a directory of
// its own in DIR, and in BACKING the same one unless that is "".
func clientPosix(args []string) (err error) {
	dir, backing, name := args[0], args[1], args[2]
	checks := slices.Concat(posixChecks(), controlChecks())
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if i < 0 {
		return fmt.Errorf("no check %q", name)
	}
	syscall.Umask(0o022)
	c := &checkT{dir: filepath.Join(dir, name)}
	if backing != "" {
		c.backing = filepath.Join(backing, name)
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
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
		top := c.dir
		if checks[i].mountOnly {
			top = c.backing
		}
		if rmErr := os.RemoveAll(top); rmErr != nil {
			err = errors.Join(err, rmErr)
		}
	}()
	checks[i].run(c)
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

// checkT is what a check works with. It reports as a testing.TB does.
type checkT struct {
	dir     string // empty at the start
	backing string // the same directory in BACKING; "" on a plain directory

	cleanups []func()
}

func (c *checkT) Helper() {}

func (c *checkT) Cleanup(f func()) { c.cleanups = append(c.cleanups, f) }

func (c *checkT) Fatal(args ...any) { c.fail(fmt.Sprint(args...)) }

func (c *checkT) Fatalf(format string, args ...any) { c.fail(fmt.Sprintf(format, args...)) }

// fail ends the check and says at which line of it.
func (c *checkT) fail(msg string) {
	where := ""
	pcs := make([]uintptr, 16)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		frame, more := frames.Next()
		base := filepath.Base(frame.File)
		if base != "posix_test.go" && strings.HasSuffix(base, "_test.go") {
			// The check's own line is the outermost; helpers of a file are called by it.
			where = fmt.Sprintf("%s:%d: ", base, frame.Line)
		}
		if !more || strings.HasSuffix(frame.Function, ".clientPosix") {
			break
		}
	}
	panic(checkFailed(where + msg))
}

// skip is for checks that the file system below cannot support at all. feature is what
// it lacks, as MAPFS_REQUIRE calls it.
func (c *checkT) skip(feature, format string, args ...any) {
	panic(checkSkipped(feature + ": " + fmt.Sprintf(format, args...)))
}

// native is a directory of the file system below the mount, or c.dir on a plain
// one: what the mount must agree with.
func (c *checkT) native() string {
	if c.backing != "" {
		return c.backing
	}
	return c.dir
}

func (c *checkT) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// ok fails the check unless err is nil.
func (c *checkT) ok(err error, format string, args ...any) {
	if err != nil {
		c.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}

// errno fails the check unless err is the errno want.
func (c *checkT) errno(err error, want syscall.Errno, format string, args ...any) {
	if got, ok := asErrno(err); !ok || got != want {
		c.Fatalf("%s: got %v, want %s (%v)", fmt.Sprintf(format, args...), err, unix.ErrnoName(want), want)
	}
}

func asErrno(err error) (syscall.Errno, bool) {
	var errno syscall.Errno
	ok := errors.As(err, &errno)
	return errno, ok
}

// equal fails the check unless got is want.
func equal[T comparable](c *checkT, got, want T, format string, args ...any) {
	if got != want {
		c.Fatalf("%s: got %v, want %v", fmt.Sprintf(format, args...), got, want)
	}
}

// open opens a file until the end of the check.
func (c *checkT) open(path string, flags int, mode uint32) int {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, mode)
	c.ok(err, "open %s", filepath.Base(path))
	c.Cleanup(func() { unix.Close(fd) })
	return fd
}

// write makes or replaces a file.
func (c *checkT) write(path, data string) {
	c.ok(os.WriteFile(path, []byte(data), 0o644), "write %s", filepath.Base(path))
}

func (c *checkT) mkdir(path string) {
	c.ok(unix.Mkdir(path, 0o755), "mkdir %s", filepath.Base(path))
}

// holds fails the check unless the file's content is want.
func (c *checkT) holds(path, want string) {
	got, err := os.ReadFile(path)
	c.ok(err, "read %s", filepath.Base(path))
	sameBytes(c, string(got), want, filepath.Base(path))
}

// fdHolds is holds for a descriptor.
func (c *checkT) fdHolds(fd int, want string) {
	got := make([]byte, len(want)+1)
	n, err := unix.Pread(fd, got, 0)
	c.ok(err, "pread")
	sameBytes(c, string(got[:n]), want, "descriptor")
}

// sameBytes compares contents that may be too long to print.
func sameBytes(c *checkT, got, want, what string) {
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

func (c *checkT) lstat(path string) unix.Stat_t {
	var st unix.Stat_t
	c.ok(unix.Lstat(path, &st), "lstat %s", filepath.Base(path))
	return st
}

func (c *checkT) fstat(fd int) unix.Stat_t {
	var st unix.Stat_t
	c.ok(unix.Fstat(fd, &st), "fstat")
	return st
}

// absent fails the check unless the name does not exist.
func (c *checkT) absent(path string) {
	var st unix.Stat_t
	c.errno(unix.Lstat(path, &st), unix.ENOENT, "lstat %s", filepath.Base(path))
}

// tick waits until a file's time stamps can differ from those of now: the
// kernel's clock for them advances by ticks.
func tick() { time.Sleep(20 * time.Millisecond) }

// Users that own nothing on the machine.
const (
	alice, aliceGroup = 12341, 22341
	bob, bobGroup     = 12342, 22342
)

// as runs f as another user without capabilities or further groups.
func (c *checkT) as(uid, gid int, f func()) { c.asGroups(uid, gid, nil, f) }

// asGroups runs f as another user, without capabilities. Only this thread becomes
// the user, by the bare system calls that C libraries wrap to hit all threads; so
// f must not start goroutines that touch files. Programs that f starts run as the
// user too.
func (c *checkT) asGroups(uid, gid int, groups []uint32, f func()) {
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
