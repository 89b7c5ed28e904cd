//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"mapfs/cmd/mapfs/cli"
	"mapfs/fs/control"
	"mapfs/fs/mountpoint"
)

// fakeSystem records what the command does to the machine. Its methods are the
// fields of a system; a test replaces those that it wants otherwise.
type fakeSystem struct {
	system
	spawned [][]string // arguments of the daemons
	mounted []control.Options
	notes   []string // to the service manager
}

func newFakeSystem() *fakeSystem {
	f := &fakeSystem{}
	f.system = system{
		mount: func(opts control.Options) (session, error) {
			opts.Log = nil // so that options can be compared
			f.mounted = append(f.mounted, opts)
			return endedSession{}, nil
		},
		unmount:     func(string, bool) error { return nil },
		holders:     func(string) []mountpoint.Holder { return nil },
		findDaemon:  func(string) (server, error) { return nil, nil },
		mountpoints: func() ([]string, error) { return nil, nil },
		spawn:       func(args []string) error { f.spawned = append(f.spawned, args); return nil },
		look:        func(string) error { return nil },
		notify:      func(state string) { f.notes = append(f.notes, state) },
		signals:     func(bool) (<-chan os.Signal, func()) { return nil, func() {} },
	}
	return f
}

// endedSession is a mount that is unmounted at once.
type endedSession struct{ err error }

func (s endedSession) Serve() error                 { return s.err }
func (s endedSession) Sync() error                  { return nil }
func (s endedSession) MetricsHandler() http.Handler { return http.NotFoundHandler() }

// outcome is what a user sees of a command.
type outcome struct {
	code           int
	stdout, stderr string
}

func (f *fakeSystem) run(args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := runOn(context.Background(), f.system, args, strings.NewReader(""), &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// TestMountForms has every way to write the same mount.
func TestMountForms(t *testing.T) {
	t.Chdir("/")
	daemon := func(more ...string) []string {
		return append([]string{"mount", "--ready-fd=3", "--log-level=info"}, more...)
	}
	tests := []struct {
		args string // split at blanks
		want []string
	}{
		{"/b /m", daemon("--", "/b", "/m")},
		{"mount /b /m", daemon("--", "/b", "/m")},
		{"b m", daemon("--", "/b", "/m")},
		{"-- /b /m", daemon("--", "/b", "/m")},
		{"-- -b -m", daemon("--", "/-b", "/-m")},
		{"-o ro /b /m", daemon("-o", "ro", "--", "/b", "/m")},
		{"-oro /b /m", daemon("-o", "ro", "--", "/b", "/m")},
		{"/b -o ro /m", daemon("-o", "ro", "--", "/b", "/m")},
		{"/b /m -o rw,dev,suid", daemon("-o", "rw,dev,suid", "--", "/b", "/m")},
		{"/b /m -o ro --options nodev,noexec", daemon("-o", "ro,nodev,noexec", "--", "/b", "/m")},
		{"mount -o ro /b /m", daemon("-o", "ro", "--", "/b", "/m")},
		{"-o ro mount /b /m", daemon("-o", "ro", "--", "/b", "/m")},
		{`/b /m -o fsname=a\,b`, daemon("-o", `fsname=a\,b`, "--", "/b", "/m")},
		{"/b /m --metrics-addr localhost:0", []string{"mount", "--ready-fd=3", "--log-level=info", "--metrics-addr=localhost:0", "--", "/b", "/m"}},
		{"/b /m --log-file l --log-level debug",
			[]string{"mount", "--ready-fd=3", "--log-file=/l", "--log-level=debug", "--", "/b", "/m"}},
		// Directories that are named like commands.
		{"mount umount /mnt", daemon("--", "/umount", "/mnt")},
		{"mount mount mount", daemon("--", "/mount", "/mount")},
		{"mount version completion", daemon("--", "/version", "/completion")},
		{"-- umount /mnt", daemon("--", "/umount", "/mnt")},
		{"./umount /mnt", daemon("--", "/./umount", "/mnt")},
		{"/b umount", daemon("--", "/b", "/umount")},
		{"-o ro -- help /mnt", daemon("-o", "ro", "--", "/help", "/mnt")},
	}
	for _, test := range tests {
		f := newFakeSystem()
		got := f.run(strings.Fields(test.args)...)
		if got != (outcome{}) {
			t.Errorf("mapfs %s: got %+v, want silent success", test.args, got)
		}
		if len(f.spawned) != 1 || !slices.Equal(f.spawned[0], test.want) {
			t.Errorf("mapfs %s: started\n%q, want\n%q", test.args, f.spawned, test.want)
			continue
		}
		// The daemon must understand what it is given.
		before := newFakeSystem()
		if got := before.run(append([]string{"mount", "-f"}, test.want[2:]...)...); got.code != exitDone {
			t.Errorf("mapfs %q: got %+v", test.want, got)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	tests := []struct{ args, want string }{
		{"", "name the directories BACKING and MOUNTPOINT"},
		{"-f", "name the directories BACKING and MOUNTPOINT"},
		{"mount", "name the directories BACKING and MOUNTPOINT"},
		{"/b", `name the directory MOUNTPOINT after BACKING, which is "/b"`},
		{"/b /m /x", `unexpected argument "/x" after BACKING and MOUNTPOINT`},
		{"-x /b /m", "unknown shorthand flag: 'x' in -x"},
		{"--frob /b /m", "unknown flag: --frob"},
		{"/b /m -o", "flag needs an argument: 'o' in -o"},
		{"/b /m -o frob", `-o frob: unknown option "frob"`},
		{"/b /m -o ro -o attr_timeout=x", "-o attr_timeout=x: not a number of seconds"},
		{"/b /m --log-level loud", "--log-level loud: choose debug, info, warn or error"},
		{"umount", "name the MOUNTPOINT to unmount"},
		{"umount /m /n", `unexpected argument "/n" after MOUNTPOINT`},
		{"umount -f /m", "unknown shorthand flag: 'f' in -f"},
		{"version now", `unexpected argument "now" after version`},
		{"completion", "name one shell: bash, zsh, fish"},
		{"completion tcsh", `no completion for "tcsh"; choose bash, zsh, fish`},
	}
	for _, test := range tests {
		f := newFakeSystem()
		want := outcome{code: exitUsage, stderr: "mapfs: " + test.want + "; see 'mapfs --help'\n"}
		if got := f.run(strings.Fields(test.args)...); got != want {
			t.Errorf("mapfs %s:\ngot  %+v\nwant %+v", test.args, got, want)
		}
		if len(f.spawned)+len(f.mounted) > 0 {
			t.Errorf("mapfs %s: mounted all the same", test.args)
		}
	}
	for _, args := range [][]string{{"", "/m"}, {"/b", ""}} {
		want := outcome{code: exitUsage, stderr: "mapfs: BACKING and MOUNTPOINT must not be empty; see 'mapfs --help'\n"}
		if got := newFakeSystem().run(args...); got != want {
			t.Errorf("mapfs %q:\ngot  %+v\nwant %+v", args, got, want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range []string{"--help", "-h", "help", "mount --help", "umount --help", "help umount", "completion --help",
		"status --help", "maps --help", "events --help", "pages --help", "watch --help", "mode --help", "msync --help", "ctl --help"} {
		got := newFakeSystem().run(strings.Fields(args)...)
		if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "Usage:") {
			t.Errorf("mapfs %s: got %+v, want a help text", args, got)
		}
		if strings.Contains(got.stdout, readyFlag) {
			t.Errorf("mapfs %s: shows --%s, which is not for users", args, readyFlag)
		}
	}
	help := newFakeSystem().run("--help").stdout
	for _, code := range []int{exitDone, exitFailed, exitUsage, exitSignal + int(syscall.SIGBUS), exitSignal + int(syscall.SIGSEGV)} {
		if _, codes, _ := strings.Cut(help, "Exit codes"); !strings.Contains(codes, fmt.Sprint(code)) {
			t.Errorf("--help does not have the exit code %d", code)
		}
	}
	for _, option := range mountOptions {
		if option.set == nil || strings.Contains(help, strings.TrimPrefix(option.name, "no")) {
			continue
		}
		t.Errorf("mapfs --help: nothing about -o %s", option.name)
	}
	for _, args := range []string{"version", "--version"} {
		got := newFakeSystem().run(args)
		if got.code != exitDone || got.stderr != "" || !strings.HasPrefix(got.stdout, "mapfs dev") || strings.Count(got.stdout, "\n") != 1 {
			t.Errorf("mapfs %s: got %+v", args, got)
		}
	}
}

func TestForegroundOptions(t *testing.T) {
	f := newFakeSystem()
	got := f.run("-f", "/b", "/m", "-o", "ro,fsname=x", "--log-level", "error")
	if got != (outcome{}) {
		t.Errorf("got %+v, want silent success", got)
	}
	want := defaultOptions()
	want.Backing, want.Mountpoint, want.ReadOnly, want.FSName = "/b", "/m", true, "x"
	if !slices.Equal(f.mounted, []control.Options{want}) {
		t.Errorf("mounted %+v, want %+v", f.mounted, want)
	}
	if len(f.spawned) > 0 {
		t.Errorf("started a daemon: %q", f.spawned)
	}
}

// TestMountFails checks that an error takes its own way in the foreground and
// from the daemon, and arrives the same.
func TestMountFails(t *testing.T) {
	want := outcome{code: exitFailed, stderr: "mapfs: mountpoint /m does not exist\n"}

	f := newFakeSystem()
	f.mount = func(control.Options) (session, error) { return nil, errors.New("mountpoint /m does not exist") }
	if got := f.run("-f", "/b", "/m"); got != want {
		t.Errorf("-f: got %+v, want %+v", got, want)
	}

	f = newFakeSystem()
	f.spawn = func([]string) error {
		return cli.Coded{Err: errors.New("mountpoint /m does not exist"), Code: exitFailed}
	}
	if got := f.run("/b", "/m"); got != want {
		t.Errorf("background: got %+v, want %+v", got, want)
	}

	f = newFakeSystem()
	f.spawn = func([]string) error { return cli.Coded{Err: errors.New("wrong"), Code: 7} }
	if got := f.run("/b", "/m"); got != (outcome{code: 7, stderr: "mapfs: wrong\n"}) {
		t.Errorf("the daemon's exit code: got %+v", got)
	}

	f = newFakeSystem()
	f.look = func(string) error {
		return &os.PathError{Op: "stat", Path: "/m", Err: syscall.ENOTCONN}
	}
	want = outcome{code: exitFailed, stderr: "mapfs: the mount does not answer: stat /m: transport endpoint is not connected\n"}
	if got := f.run("/b", "/m"); got != want {
		t.Errorf("dead at once: got %+v, want %+v", got, want)
	}

	f = newFakeSystem()
	f.mount = func(control.Options) (session, error) {
		return endedSession{errors.New("fsync a: no space left on device")}, nil
	}
	want = outcome{code: exitFailed, stderr: "mapfs: fsync a: no space left on device\n"}
	if got := f.run("-f", "/b", "/m", "--log-level=error"); got != want {
		t.Errorf("last sync failed: got %+v, want %+v", got, want)
	}
}
