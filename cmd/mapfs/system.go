//go:build linux

package main

import (
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"mapfs/fs/control"
	"mapfs/fs/mountpoint"
	"mapfs/fs/wire"
	"mapfs/mapping/sys"
)

// session is a mount that is being served: *fs.Session.
type session interface {
	Serve() error
	Sync() error
	MetricsHandler() http.Handler
}

// system is what the command does to the machine. A test hands in another one.
type system struct {
	mount       func(control.Options) (session, error)
	unmount     func(mountpoint string, lazy bool) error
	holders     func(mountpoint string) []mountpoint.Holder
	findDaemon  func(mountpoint string) (server, error)
	mountpoints func() ([]string, error)

	// controlName tells the name of a mount's control tree; command writes to
	// a ctl in it and returns the answer.
	controlName func(mountpoint string) (string, error)
	command     func(ctl, text string) (answer string, err error)

	// spawn starts the daemon with these arguments and returns when the mount
	// is ready; look then asks the mount for an answer.
	spawn func(args []string) error
	look  func(mountpoint string) error

	// notify tells the service manager, if there is one (sd_notify(3)).
	notify func(state string)
	// signals returns where the signals arrive that end the daemon, and a
	// function that gives them back to the system.
	signals func(foreground bool) (<-chan os.Signal, func())
}

func realSystem() system {
	return system{
		mount:   realMount,
		unmount: mountpoint.Unmount,
		holders: mountpoint.Holders,
		findDaemon: func(path string) (server, error) {
			d, err := mountpoint.FindDaemon(path)
			if d == nil || err != nil {
				return nil, err
			}
			return d, nil
		},
		mountpoints: mountpoint.List,
		controlName: realControlName,
		command:     realCommand,
		spawn:       spawnDaemon,
		look: func(mountpoint string) error {
			_, err := os.Stat(mountpoint)
			return err
		},
		notify: func(state string) {
			// A service manager that cannot be told is its own trouble;
			// without one this does nothing.
			_, _ = daemon.SdNotify(false, state)
		},
		signals: stopSignals,
	}
}

func realMount(opts control.Options) (session, error) {
	// The kernel has applied the client's umask already; ours must not be
	// applied too.
	syscall.Umask(0)
	leaveRoomForWorkers()
	raiseDescriptorLimit()
	fitAddressSpace()
	opts.Version = version
	s, err := control.Mount(opts)
	if err != nil {
		// Not return s, err: a nil *fs.Session in a session is not nil.
		return nil, err
	}
	return s, nil
}

// leaveRoomForWorkers gives the Go scheduler the slots that serving wants.
func leaveRoomForWorkers() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + wire.SpareSlots) }

// fitAddressSpace keeps the Go heap small where address space is limited (ulimit -v):
// it grows by 64 MiB of that at a time, and the process ends if it cannot.
func fitAddressSpace() {
	const heap = 48 << 20
	if free := sys.FreeAddressSpace(); free < 4<<30 {
		debug.SetMemoryLimit(max(heap, free/4))
	}
}

// mostDescriptors is as many as the daemon asks for: a mount of a million open files
// takes a gigabyte of the kernel's memory.
const mostDescriptors = 1 << 20

// raiseDescriptorLimit lets the process have as many descriptors as the system
// allows it (RLIMIT_NOFILE): all that clients open together are its own. The soft
// limit goes as far as the hard one; that too can be raised by who has
// CAP_SYS_RESOURCE, up to fs.nr_open. What it comes to is in the mount's status.
func raiseDescriptorLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	if most := min(openLimit(), mostDescriptors); most > limit.Max {
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: most}) == nil {
			return
		}
	}
	if most := min(limit.Max, mostDescriptors); most > limit.Cur {
		// What is refused stays as it was.
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: limit.Max})
	}
}

// openLimit returns fs.nr_open, the most descriptors that any process may have, or 0
// if it is not known.
func openLimit() uint64 {
	text, err := os.ReadFile("/proc/sys/fs/nr_open")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// stopSignals catches what asks the daemon to end.
func stopSignals(foreground bool) (<-chan os.Signal, func()) {
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	// nohup(1) runs programs with SIGHUP ignored; to catch it would undo that.
	// The daemon has no terminal that could hang up: there it is a request.
	if !foreground || !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	arrived := make(chan os.Signal, 4) // more than anybody needs to send
	signal.Notify(arrived, signals...)
	return arrived, func() { signal.Stop(arrived) }
}
