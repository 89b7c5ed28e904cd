//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"mapfs/fs"
	"mapfs/fs/control"
	"mapfs/fs/mountpoint"
)

// fakeMount is a mount with a kernel that a test plays: it ends when it is
// unmounted and nobody uses it.
type fakeMount struct {
	mu       sync.Mutex
	busy     bool
	gone     bool // out of the mount table
	syncErr  error
	syncGate chan struct{} // if set, Sync waits for it
	steps    []string      // what was done, in order

	ended    chan struct{}
	serveErr error
}

func (m *fakeMount) Serve() error {
	<-m.ended
	return m.serveErr
}

func (m *fakeMount) Sync() error {
	if m.syncGate != nil {
		<-m.syncGate
	}
	m.step("sync")
	return m.syncErr
}

func (m *fakeMount) MetricsHandler() http.Handler { return http.NotFoundHandler() }

func (m *fakeMount) step(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps = append(m.steps, name)
}

func (m *fakeMount) unmount(_ string, lazy bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.gone:
		return &os.PathError{Op: "umount", Path: "/m", Err: mountpoint.ErrNotMapfs}
	case lazy:
		m.gone = true
		m.steps = append(m.steps, "detach")
		if !m.busy {
			close(m.ended)
		}
		return nil
	case m.busy:
		m.steps = append(m.steps, "busy")
		return &os.PathError{Op: "umount", Path: "/m", Err: syscall.EBUSY}
	}
	m.gone = true
	m.steps = append(m.steps, "unmount")
	close(m.ended)
	return nil
}

// TestSignals sends signals to a serving process; each must have had its
// effect before the next one, which synctest.Wait sees to.
func TestSignals(t *testing.T) {
	tests := []struct {
		name     string
		mount    *fakeMount // an idle one if nil
		signals  int
		lastUser bool // leaves at the end
		steps    []string
		want     error
		log      string // is in it
	}{
		{name: "unmounted by others", lastUser: true},
		{name: "one", signals: 1, steps: []string{"sync", "unmount"}},
		{name: "one, the last sync fails", signals: 1, mount: &fakeMount{serveErr: syscall.EIO},
			steps: []string{"sync", "unmount"}, want: syscall.EIO},
		{name: "one, the first sync fails", signals: 1, mount: &fakeMount{syncErr: syscall.ENOSPC},
			steps: []string{"sync", "unmount"}, log: "no space left on device"},
		{name: "one, busy", signals: 1, mount: &fakeMount{busy: true}, lastUser: true,
			steps: []string{"sync", "busy"}, log: `holders="vi (pid 7, open file /m/a)"`},
		{name: "two, busy", signals: 2, mount: &fakeMount{busy: true}, lastUser: true,
			steps: []string{"sync", "busy", "detach"}, log: "the daemon ends with the last user"},
		{name: "two, the sync hangs", signals: 2, mount: &fakeMount{syncGate: make(chan struct{})},
			steps: []string{"detach"}},
		{name: "three, busy", signals: 3, mount: &fakeMount{busy: true},
			steps: []string{"sync", "busy", "detach", "sync"}, want: errForced},
		{name: "four, busy and the sync hangs", signals: 4, mount: &fakeMount{busy: true, syncGate: make(chan struct{})},
			steps: []string{"detach"}, want: errForced},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := test.mount
				if m == nil {
					m = &fakeMount{}
				}
				m.ended = make(chan struct{})
				if m.syncGate != nil {
					m.syncGate = make(chan struct{}) // of this bubble
				}
				f := newFakeSystem()
				signals := make(chan os.Signal)
				gaveBack := false
				f.signals = func(bool) (<-chan os.Signal, func()) { return signals, func() { gaveBack = true } }
				f.mount = func(control.Options) (session, error) { return m, nil }
				f.unmount = m.unmount
				f.holders = func(string) []mountpoint.Holder {
					return []mountpoint.Holder{{PID: 7, Command: "vi", What: "open file /m/a"}}
				}
				var notesMu sync.Mutex
				f.notify = func(state string) {
					notesMu.Lock()
					defer notesMu.Unlock()
					f.notes = append(f.notes, state)
				}

				var log bytes.Buffer
				opts := control.Options{Options: fs.Options{Backing: "/b", Mountpoint: "/m", Log: slog.New(slog.NewTextHandler(&log, nil))}}
				result := make(chan error, 1)
				go func() { result <- mountAndServe(t.Context(), f.system, opts, true, &readiness{}, nil) }()
				synctest.Wait()
				for range test.signals {
					signals <- syscall.SIGTERM
					synctest.Wait()
				}
				if test.lastUser {
					select {
					case err := <-result:
						t.Fatalf("ended with %v before the last user left", err)
					default:
					}
					close(m.ended)
				}
				if err := <-result; !errors.Is(err, test.want) {
					t.Errorf("got error %v, want %v", err, test.want)
				}
				m.mu.Lock()
				steps := slices.Clone(m.steps)
				m.mu.Unlock()
				if !slices.Equal(steps, test.steps) {
					t.Errorf("did %q, want %q", steps, test.steps)
				}
				if !strings.Contains(log.String(), test.log) {
					t.Errorf("the log has no %q:\n%s", test.log, &log)
				}
				notesMu.Lock()
				if want := []string{"READY=1", "STOPPING=1"}; !slices.Equal(f.notes, want) {
					t.Errorf("told the service manager %q, want %q", f.notes, want)
				}
				notesMu.Unlock()
				if !gaveBack {
					t.Error("keeps the signals")
				}
				// Let what still waits go, as the end of the process would.
				if m.syncGate != nil {
					close(m.syncGate)
				}
				if errors.Is(test.want, errForced) {
					close(m.ended)
				}
				synctest.Wait()
			})
		})
	}
}

func TestCancelIsARequest(t *testing.T) {
	m := &fakeMount{ended: make(chan struct{})}
	f := newFakeSystem()
	f.unmount = m.unmount
	s := &stopper{sys: f.system, sess: m, mountpoint: "/m", log: slog.New(slog.DiscardHandler), stopping: func() {}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	served := make(chan error, 1)
	go func() { served <- m.Serve() }()
	if err := s.wait(ctx, nil, served); err != nil {
		t.Error(err)
	}
	if want := []string{"sync", "unmount"}; !slices.Equal(m.steps, want) {
		t.Errorf("did %q, want %q", m.steps, want)
	}
}

// TestReadiness is about the daemon's end of the pipe to its parent.
func TestReadiness(t *testing.T) {
	pipe := func() (*os.File, readiness) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r, readiness{pipe: w}
	}
	told := func(r *os.File) string {
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	reader, ready := pipe()
	if err := ready.ready(); err != nil {
		t.Error(err)
	}
	ready.fail(errors.New("too late"))
	if got := told(reader); got != readyLine {
		t.Errorf("ready: got %q, want %q", got, readyLine)
	}

	reader, ready = pipe()
	ready.fail(errors.New("one\ntwo"))
	if got, want := told(reader), "one; two\n"; got != want {
		t.Errorf("fail: got %q, want %q", got, want)
	}

	reader, ready = pipe()
	reader.Close()
	if err := ready.ready(); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("ready to nobody: got %v, want EPIPE", err)
	}

	var nobody readiness
	nobody.fail(errors.New("unheard"))
	if err := nobody.ready(); err != nil {
		t.Errorf("in the foreground: %v", err)
	}
}
