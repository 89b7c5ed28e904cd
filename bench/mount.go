package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemons that neither serve nor end within this time are broken.
const daemonTimeout = 20 * time.Second

// A mount is one running peer on one backing directory. A native mount has no
// daemon, and its root is the backing directory.
//
// This process never touches a path below root: a daemon that hangs would hang the
// very process that has to kill it. Clients are subprocesses.
type mount struct {
	peer *peer
	root string
	cmd  *exec.Cmd
	log  strings.Builder
	done chan struct{} // closed when the daemon has ended
}

// startMount mounts backing at mountpoint, which it makes, and returns when the
// mount is there.
func startMount(ctx context.Context, p *peer, backing, mountpoint string) (*mount, error) {
	if p.argv == nil {
		return &mount{peer: p, root: backing}, nil
	}
	if err := os.MkdirAll(mountpoint, 0o755); err != nil {
		return nil, err
	}
	argv := p.argv(backing, mountpoint)
	m := &mount{peer: p, root: mountpoint, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A Ctrl-C of the terminal is this process's to handle, in its own order.
		Setpgid: true,
		// And should it be killed, its daemons unmount and go.
		Pdeathsig: syscall.SIGTERM,
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		m.cmd.Wait() // how it ends is seen in the log
		close(m.done)
	}()
	for deadline := time.Now().Add(daemonTimeout); ; {
		if mounted(mountpoint) {
			return m, nil
		}
		var err error
		select {
		case <-m.done:
			err = errors.New("the daemon ended")
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(2 * time.Millisecond):
			if time.Now().After(deadline) {
				err = errors.New("no mount appears")
			}
		}
		if err != nil {
			m.stop()
			return nil, fmt.Errorf("mounting %s: %w: %s", p.name, err, strings.TrimSpace(m.log.String()))
		}
	}
}

// mounted reports whether something is mounted at path, without touching it.
func mounted(path string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && strings.Contains(string(mounts), " "+path+" ")
}

// mountedBelow reports whether anything is mounted at dir or below.
func mountedBelow(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return err != nil || strings.Contains(string(mounts), " "+dir+" ") || strings.Contains(string(mounts), " "+dir+"/")
}

// pid is the daemon's, or 0 for native.
func (m *mount) pid() int {
	if m.cmd == nil {
		return 0
	}
	return m.cmd.Process.Pid
}

// stop unmounts and waits for the daemon to end, by force if need be: when it
// returns nothing of the mount is left.
func (m *mount) stop() error {
	if m.cmd == nil {
		return nil
	}
	var err error
	// A client that was just killed may hold the mount for a moment.
	for try := 0; mounted(m.root) && try < 50; try++ {
		if err = unix.Unmount(m.root, 0); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if mounted(m.root) {
		unix.Unmount(m.root, unix.MNT_DETACH) // what else is there
	}
	if !m.wait(daemonTimeout) {
		err = fmt.Errorf("%s did not end after its unmount", m.peer.name)
		m.kill()
		m.wait(daemonTimeout)
	}
	if rmErr := os.Remove(m.root); err == nil {
		err = rmErr
	}
	return err
}

// kill ends the daemon's process group; what waits for its answers then gets ENOTCONN.
func (m *mount) kill() {
	if m.cmd != nil {
		syscall.Kill(-m.pid(), syscall.SIGKILL) // it may be gone already
	}
}

// killIfStuck kills the daemon when ctx has ended and the work that it stands for has
// not, a second later: a client whose request the daemon holds cannot be killed, only
// the daemon can. The caller calls done when the work is over.
func (m *mount) killIfStuck(ctx context.Context) (done func()) {
	over := make(chan struct{})
	context.AfterFunc(ctx, func() {
		select {
		case <-over:
		case <-time.After(time.Second):
			m.kill()
		}
	})
	return func() { close(over) }
}

func (m *mount) wait(timeout time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(timeout):
		return false
	}
}

// A mounter keeps at most one mount for every peer and backing directory, and knows
// those that run, so that nothing can be left behind however the run ends.
type mounter struct {
	dir     string
	running map[string]*mount
}

func newMounter(dir string) *mounter {
	return &mounter{dir: dir, running: make(map[string]*mount)}
}

// get returns the peer's mount of the ground, and a new one if it is to be fresh.
func (ms *mounter) get(ctx context.Context, p *peer, g *ground, fresh bool) (*mount, error) {
	at := filepath.Join(ms.dir, g.name, p.slug())
	if m := ms.running[at]; m != nil {
		if !fresh {
			return m, nil
		}
		if err := ms.stop(p, g); err != nil {
			return nil, err
		}
	}
	m, err := startMount(ctx, p, g.backing(), at)
	if err == nil {
		ms.running[at] = m
	}
	return m, err
}

// stop ends the peer's mount of the ground, if there is one.
func (ms *mounter) stop(p *peer, g *ground) error {
	at := filepath.Join(ms.dir, g.name, p.slug())
	m := ms.running[at]
	if m == nil {
		return nil
	}
	delete(ms.running, at)
	return m.stop()
}

// giveUp ends a mount that something went wrong on, by force, as its daemon may answer
// no more. If the daemon had ended by itself it says how, and returns what it logged.
func (ms *mounter) giveUp(p *peer, g *ground) (how, log string) {
	m := ms.running[filepath.Join(ms.dir, g.name, p.slug())]
	if m == nil || m.cmd == nil {
		return "", ""
	}
	// The kernel tells the clients before the parent.
	ended := m.wait(100 * time.Millisecond)
	m.kill()
	ms.stop(p, g) // what went wrong is reported already
	if !ended {
		return "", m.log.String()
	}
	return "its daemon ended: " + m.cmd.ProcessState.String(), m.log.String()
}

// stopAll stops what runs still.
func (ms *mounter) stopAll() error {
	var all error
	for at, m := range ms.running {
		delete(ms.running, at)
		all = errors.Join(all, m.stop())
	}
	return all
}
