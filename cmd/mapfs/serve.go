//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"mapfs/fs/control"
	"mapfs/fs/mountpoint"
)

// serveMount mounts and answers until the mount is gone: the process of -f, and
// the daemon.
func serveMount(ctx context.Context, sys system, flags *mountFlags, opts control.Options, level slog.Level, stderr io.Writer) error {
	ready := newReadiness(flags.readyFD)
	log, err := openLog(flags.logFile, flags.foreground, level, stderr)
	if err != nil {
		ready.fail(err)
		return err
	}
	defer log.Close()
	if !flags.foreground {
		// The kernel named the daemon "exe", after /proc/self/exe; ps and
		// pgrep should find it. It is no more than a name.
		_ = os.WriteFile("/proc/self/comm", []byte("mapfs"), 0)
	}
	opts.Log = log.Logger
	metrics, err := listenMetrics(flags.metricsAddr)
	if err == nil {
		err = mountAndServe(ctx, sys, opts, flags.foreground, &ready, metrics)
	}
	if err != nil && !log.toStderr {
		log.Error("mapfs ends", "err", err)
	}
	ready.fail(errOr(err, "ended before it was ready"))
	return err
}

// errOr is err, or an error with this text if there is none.
func errOr(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return err
}

// mountAndServe takes metrics over, which is nil if they are not to be served.
func mountAndServe(ctx context.Context, sys system, opts control.Options, foreground bool, ready *readiness, metrics net.Listener) error {
	if metrics != nil {
		defer metrics.Close()
	}
	// From here on signals are ours: one that arrives while mounting must not
	// leave a dead mount behind.
	signals, giveBack := sys.signals(foreground)
	defer giveBack()
	if err := prepareRecording(&opts); err != nil {
		return err
	}
	sess, err := sys.mount(opts)
	if err != nil {
		return err
	}
	if metrics != nil {
		defer serveMetrics(metrics, sess.MetricsHandler(), opts.Log)()
	}
	stopping := sync.OnceFunc(func() { sys.notify(daemon.SdNotifyStopping) })
	s := &stopper{sys: sys, sess: sess, mountpoint: opts.Mountpoint, log: opts.Log, stopping: stopping}
	served := make(chan error, 1)
	go func() { served <- sess.Serve() }()
	opts.Log.Info("mounted", "backing", opts.Backing, "mountpoint", opts.Mountpoint)
	sys.notify(daemon.SdNotifyReady)
	if err := ready.ready(); err != nil {
		// Nobody waits for this mount any more; undo it.
		go s.stop(1)
	}
	err = s.wait(ctx, signals, served)
	stopping()
	if err == nil {
		opts.Log.Info("unmounted", "mountpoint", opts.Mountpoint)
	}
	return err
}

// stopper ends a mount on request.
type stopper struct {
	sys        system
	sess       session
	mountpoint string
	log        *slog.Logger
	stopping   func() // tells the service manager
}

// errForced says that the daemon left a mount behind.
var errForced = errors.New("ended while still mounted, on a third signal")

// wait returns Serve's error when the mount is gone. Each signal is a request
// to end, more urgent than the one before: unmount, detach, end at once.
func (s *stopper) wait(ctx context.Context, signals <-chan os.Signal, served <-chan error) error {
	requests := 0
	forced := make(chan struct{})
	cancelled := ctx.Done()
	for {
		select {
		case err := <-served:
			return err
		case <-forced:
			return errForced
		case sig := <-signals:
			requests++
			s.log.Info("asked to end", "signal", sig)
		case <-cancelled:
			requests++
			cancelled = nil
		}
		switch requests {
		case 1, 2:
			// Not here: to sync can take long, and the next request
			// must be heard meanwhile.
			go s.stop(requests)
		case 3:
			go func() {
				s.sync()
				close(forced)
			}()
		default:
			return errForced // no patience for the sync either
		}
	}
}

// stop does what the n-th request asks for. Serve returns when it worked.
func (s *stopper) stop(n int) {
	lazy := n > 1
	s.stopping()
	if !lazy {
		s.sync()
	}
	err := s.sys.unmount(s.mountpoint, lazy)
	switch {
	case err == nil && lazy:
		s.log.Info("detached; the daemon ends with the last user", "mountpoint", s.mountpoint)
	case err == nil:
	case errors.Is(err, mountpoint.ErrNotMapfs):
		s.log.Info("no longer mounted; the daemon ends with the last user", "mountpoint", s.mountpoint)
	case errors.Is(err, syscall.EBUSY):
		s.log.Warn("still mounted, because it is busy; a second signal detaches it",
			"mountpoint", s.mountpoint, "holders", describeHolders(s.sys.holders(s.mountpoint)))
	default:
		s.log.Error("cannot unmount", "mountpoint", s.mountpoint, "err", err)
	}
}

func (s *stopper) sync() {
	if err := s.sess.Sync(); err != nil {
		s.log.Error("cannot write everything back", "mountpoint", s.mountpoint, "err", err)
	}
}

// describeHolders says in one line who keeps a mount busy.
func describeHolders(holders []mountpoint.Holder) string {
	const most = 5
	// "mapfs umount" itself may have been started inside the mount.
	holders = slices.DeleteFunc(holders, func(h mountpoint.Holder) bool { return h.PID == os.Getpid() })
	if len(holders) == 0 {
		return "nobody that can be seen from here"
	}
	var names []string
	for _, holder := range holders[:min(most, len(holders))] {
		names = append(names, holder.String())
	}
	if rest := len(holders) - most; rest > 0 {
		names = append(names, fmt.Sprintf("and %d more", rest))
	}
	return strings.Join(names, ", ")
}
