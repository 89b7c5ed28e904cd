//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"mapfs/cmd/mapfs/cli"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A mount in the background takes two processes. The one that the user started
// runs the binary again, in a session of its own, and reads a pipe. The daemon
// writes one line to it: readyLine when the mount answers, otherwise its error,
// and the first process then ends with the daemon's exit code. Go cannot fork
// without an exec, because of the runtime's threads.
const (
	readyFlag  = "ready-fd" // hidden; the pipe's descriptor in the daemon
	readyLine  = "OK\n"
	pipeFD     = 3                // the first of exec.Cmd.ExtraFiles
	answerTime = 10 * time.Second // bounds the look at the new mount
)

// startDaemon returns when the mount answers.
func startDaemon(sys system, flags *mountFlags, backing, mountpoint string) error {
	if err := sys.spawn(daemonArgs(flags, pipeFD, backing, mountpoint)); err != nil {
		return err
	}
	// The daemon says that the mount is in the table and served. That it
	// answers is best seen from outside: the daemon must not look at its own
	// mount.
	answered := make(chan error, 1)
	go func() { answered <- sys.look(mountpoint) }()
	select {
	case err := <-answered:
		if err != nil {
			return fmt.Errorf("the mount does not answer: %w", err)
		}
		return nil
	case <-time.After(answerTime):
		return fmt.Errorf("%s is mounted but does not answer; see the daemon's log, or detach it with 'mapfs umount -l %s'", mountpoint, mountpoint)
	}
}

// spawnDaemon runs this binary with args and returns when it says that it is
// ready.
func spawnDaemon(args []string) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := keepDescriptors(); err != nil {
		return err
	}
	// By this link, and not by name, it is the same binary even when the file
	// has been replaced meanwhile. Without Stdin, Stdout and Stderr exec.Cmd
	// opens /dev/null for them.
	daemon := exec.Command("/proc/self/exe", args...)
	daemon.Args[0] = "mapfs"
	daemon.Dir = "/" // keep no other filesystem busy
	daemon.ExtraFiles = []*os.File{writer}
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = daemon.Start()
	writer.Close() // or the read below would never see the end
	if err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	message, err := io.ReadAll(reader)
	if err != nil {
		return fmt.Errorf("wait for the daemon: %w", err)
	}
	if string(message) == readyLine {
		return daemon.Process.Release()
	}
	err = daemon.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() && len(message) > 0 {
		return cli.Coded{Err: errors.New(strings.TrimSuffix(string(message), "\n")), Code: exit.ExitCode()} // the daemon's own
	}
	return fmt.Errorf("the daemon ended before the mount was ready: %w", err)
}

// keepDescriptors lets the daemon inherit none of what this process was started
// with, such as the pipe of a make(1) that waits for its end.
func keepDescriptors() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		// 0 to 2 are replaced by exec.Cmd.
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// readiness is the daemon's end of the pipe. The zero value, for -f, tells
// nobody.
type readiness struct{ pipe *os.File }

func newReadiness(fd int) readiness {
	if fd == noReadyFD {
		return readiness{}
	}
	// An inherited descriptor has no close-on-exec flag; a mount helper that
	// got it would keep the parent waiting.
	syscall.CloseOnExec(fd)
	return readiness{pipe: os.NewFile(uintptr(fd), "ready")}
}

// ready says that the mount answers. It fails if the parent is gone, which is
// how a Ctrl-C during the start looks here.
func (r *readiness) ready() error { return r.tell(readyLine) }

// fail says why there will be no mount; after ready it does nothing.
func (r *readiness) fail(err error) {
	// If nobody listens there is nobody to tell; the exit code remains.
	_ = r.tell(strings.ReplaceAll(err.Error(), "\n", "; ") + "\n")
}

func (r *readiness) tell(line string) error {
	if r.pipe == nil {
		return nil
	}
	_, err := r.pipe.WriteString(line)
	if closeErr := r.pipe.Close(); err == nil {
		err = closeErr
	}
	r.pipe = nil
	return err
}
