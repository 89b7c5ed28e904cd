package mountpoint

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
