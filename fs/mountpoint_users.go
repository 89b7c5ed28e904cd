package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is somebody who may keep a mount busy.
type Holder struct {
	PID     int    // 0 for what is no process
	Command string // as ps(1) shows it
	What    string // what it holds, as "open file /mnt/a"
}

func (h Holder) String() string {
	if h.PID == 0 {
		return h.What
	}
	return fmt.Sprintf("%s (pid %d, %s)", h.Command, h.PID, h.What)
}

// Holders lists who may keep the mount at mountpoint busy, one Holder for each
// process, then the mounts below it. It sees what the caller may see: a user
// sees the user's own processes. It only reads the kernel's links, so that a
// stuck mount cannot stop it.
func Holders(mountpoint string) []Holder {
	table, err := readMountTable(mountInfo)
	if err != nil {
		return nil
	}
	path, err := resolveMountpoint(mountpoint, table)
	if err != nil {
		return nil
	}
	holders := holdersIn("/proc", path)
	for _, entry := range table {
		if entry.path != path && pathWithin(path, entry.path) {
			holders = append(holders, Holder{What: "the mount on " + entry.path})
		}
	}
	return holders
}

// holdersIn looks through the processes of a proc(5) directory.
func holdersIn(proc, mountpoint string) []Holder {
	var holders []Holder
	for _, pid := range processes(proc) {
		dir := filepath.Join(proc, strconv.Itoa(pid))
		if what := heldBy(dir, mountpoint); what != "" {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			holders = append(holders, Holder{PID: pid, Command: strings.TrimSpace(string(comm)), What: what})
		}
	}
	return holders
}

// heldBy says what the process of dir holds below mountpoint, or "". Errors are
// passed over: processes end, and those of others cannot be read.
func heldBy(dir, mountpoint string) string {
	for _, link := range []struct{ name, what string }{
		{"cwd", "working directory"},
		{"root", "root directory"},
		{"exe", "runs"},
	} {
		target, err := os.Readlink(filepath.Join(dir, link.name))
		if err == nil && pathWithin(mountpoint, target) {
			return link.what + " " + target
		}
	}
	for _, fd := range entryNames(filepath.Join(dir, "fd")) {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err == nil && pathWithin(mountpoint, target) {
			return "open file " + target
		}
	}
	maps, _ := os.ReadFile(filepath.Join(dir, "maps"))
	for line := range strings.Lines(string(maps)) {
		// 7f00-7f10 rw-s 00000000 00:26 12   /mount/point/a file
		if i := strings.IndexByte(line, '/'); i >= 0 {
			target := unescapeMount(strings.TrimSuffix(line[i:], "\n"))
			if pathWithin(mountpoint, target) {
				return "mapped file " + target
			}
		}
	}
	return ""
}

// pathWithin tells whether path is dir or lies below it; both are clean.
func pathWithin(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// processes lists the process numbers in a proc(5) directory.
func processes(proc string) []int {
	var pids []int
	for _, name := range entryNames(proc) {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func entryNames(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

// Daemon is the process that serves a mount.
type Daemon struct {
	PID   int
	pidfd *os.File
}

// FindDaemon returns the process that serves the mapfs at mountpoint. It
// returns nil when there is none that can be seen: the daemon is dead, belongs
// to another user or another container, or the kernel is too old to tell.
// The error is ErrNotMapfs if no mapfs is mounted there.
func FindDaemon(mountpoint string) (*Daemon, error) {
	entry, err := findMount(mountpoint)
	if err != nil {
		return nil, err
	}
	pid := serverOf("/proc", entry.minor)
	if pid == 0 {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, nil
	}
	daemon := &Daemon{PID: pid, pidfd: os.NewFile(uintptr(fd), "pidfd")}
	// The number may have gone to another process just before it was held.
	if !serves("/proc", pid, entry.minor) {
		daemon.Close()
		return nil, nil
	}
	return daemon, nil
}

// serverOf returns the process that holds the FUSE connection, or 0.
func serverOf(proc string, connection uint32) int {
	for _, pid := range processes(proc) {
		if serves(proc, pid, connection) {
			return pid
		}
	}
	return 0
}

// serves tells whether a process has /dev/fuse open for the connection. Newer
// kernels say so in fdinfo (6.18 does, 6.1 does not); the number is the minor of the mount's st_dev.
func serves(proc string, pid int, connection uint32) bool {
	dir := filepath.Join(proc, strconv.Itoa(pid))
	want := fmt.Appendf(nil, "\nfuse_connection:\t%d\n", connection)
	for _, fd := range entryNames(filepath.Join(dir, "fd")) {
		target, err := os.Readlink(filepath.Join(dir, "fd", fd))
		if err != nil || filepath.Base(target) != "fuse" {
			continue
		}
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd))
		if err == nil && bytes.Contains(info, want) {
			return true
		}
	}
	return false
}

// Close lets the daemon go; it keeps running.
func (d *Daemon) Close() error { return d.pidfd.Close() }

// Wait returns when the daemon has ended, or with ctx's error. A daemon that
// ended otherwise than with success is an error too, as far as the kernel
// tells: it may not have written everything back.
func (d *Daemon) Wait(ctx context.Context) error {
	for {
		// A short sleep, because poll(2) knows nothing of ctx.
		const step = 100 * time.Millisecond
		poll := []unix.PollFd{{Fd: int32(d.pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(step.Milliseconds()))
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return d.result()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// result tells how the daemon has ended, although it is no child of ours.
func (d *Daemon) result() error {
	status, known := d.exitStatus()
	switch {
	case !known:
		return nil
	case status.Signaled():
		return fmt.Errorf("the daemon (pid %d) was ended by a signal (%v)", d.PID, status.Signal())
	case status.ExitStatus() != 0:
		return fmt.Errorf("the daemon (pid %d) ended with exit code %d", d.PID, status.ExitStatus())
	}
	return nil
}

// exitStatus finds the ended daemon's status: as long as its parent has not
// asked for it, in proc(5), where the process is a zombie; afterwards at the
// pidfd, where Linux has it since 6.15.
func (d *Daemon) exitStatus() (syscall.WaitStatus, bool) {
	if status, ok := zombieStatus("/proc", d.PID); ok {
		return status, true
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(int(d.pidfd.Fd()), &info)
	if err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return syscall.WaitStatus(info.Exit_code), true
}

// zombieStatus returns the wait status of a process that has ended and that
// its parent has not waited for.
func zombieStatus(proc string, pid int) (syscall.WaitStatus, bool) {
	stat, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// The second field is the name in parentheses, which may hold anything.
	const stateField, exitField = 3, 52
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) <= exitField-stateField || fields[0] != "Z" {
		return 0, false
	}
	status, err := strconv.ParseUint(fields[exitField-stateField], 10, 32)
	return syscall.WaitStatus(status), err == nil
}
