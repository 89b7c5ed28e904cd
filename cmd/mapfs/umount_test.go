//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"mapfs/fs/mountpoint"
)

// fakeServer is a daemon that ends with an error.
type fakeServer struct {
	err              error
	waitedN, closedN int
}

func (s *fakeServer) Wait(context.Context) error {
	s.waitedN++
	return s.err
}

func (s *fakeServer) Close() error {
	s.closedN++
	return nil
}

func TestUmount(t *testing.T) {
	pathError := func(err error) error { return &os.PathError{Op: "umount", Path: "/m", Err: err} }
	tests := []struct {
		name    string
		args    []string
		daemon  *fakeServer
		findErr error
		err     error // of unmount
		holders []mountpoint.Holder
		want    outcome
		waitedN int
	}{
		{name: "waits for the daemon", args: []string{"/m"}, daemon: &fakeServer{}, waitedN: 1},
		{name: "other name", args: []string{"/m"}, daemon: &fakeServer{}, waitedN: 1},
		{name: "no daemon to see", args: []string{"/m"}},
		{name: "lazy does not wait", args: []string{"-l", "/m"}, daemon: &fakeServer{}},
		{name: "lazy by its long name", args: []string{"/m", "--lazy"}, daemon: &fakeServer{}},
		{name: "not a mapfs", args: []string{"/m"}, findErr: pathError(mountpoint.ErrNotMapfs),
			want: outcome{code: exitFailed, stderr: "mapfs: /m: not a mapfs mount\n"}},
		{name: "no way there", args: []string{"/m"}, findErr: pathError(syscall.EACCES),
			want: outcome{code: exitFailed, stderr: "mapfs: umount /m: permission denied\n"}},
		{name: "not permitted", args: []string{"/m"}, daemon: &fakeServer{}, err: pathError(syscall.EPERM),
			want: outcome{code: exitFailed, stderr: "mapfs: /m: only root and the user who mounted it may unmount it\n"}},
		{name: "busy", args: []string{"/m"}, daemon: &fakeServer{}, err: pathError(syscall.EBUSY),
			holders: []mountpoint.Holder{{PID: 1, Command: "sh", What: "working directory /m"}, {What: "the mount on /m/sub"}},
			want: outcome{code: exitFailed, stderr: "mapfs: /m is busy: sh (pid 1, working directory /m), the mount on /m/sub; " +
				"end that, or detach it with 'mapfs umount -l /m'\n"}},
		{name: "busy by nobody", args: []string{"/m"}, err: pathError(syscall.EBUSY),
			want: outcome{code: exitFailed, stderr: "mapfs: /m is busy: nobody that can be seen from here; " +
				"end that, or detach it with 'mapfs umount -l /m'\n"}},
		{name: "the daemon failed", args: []string{"/m"}, daemon: &fakeServer{err: errors.New("the daemon (pid 9) ended with exit code 1")}, waitedN: 1,
			want: outcome{code: exitFailed, stderr: "mapfs: /m is unmounted, but the daemon (pid 9) ended with exit code 1; " +
				"not everything may be written back, see its log\n"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakeSystem()
			f.findDaemon = func(string) (server, error) {
				if test.daemon == nil {
					return nil, test.findErr
				}
				return test.daemon, test.findErr
			}
			f.unmount = func(mountpoint string, _ bool) error {
				if mountpoint != "/m" {
					t.Errorf("unmounts %s, want /m", mountpoint)
				}
				return test.err
			}
			f.holders = func(string) []mountpoint.Holder { return test.holders }
			verb := "umount"
			if test.name == "other name" {
				verb = "unmount"
			}
			if got := f.run(append([]string{verb}, test.args...)...); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if d := test.daemon; d != nil && (d.waitedN != test.waitedN || d.closedN != 1) {
				t.Errorf("waited %d times and closed %d times, want %d and 1", d.waitedN, d.closedN, test.waitedN)
			}
		})
	}
}

func TestDescribeHolders(t *testing.T) {
	var many []mountpoint.Holder
	for pid := range 7 {
		many = append(many, mountpoint.Holder{PID: 1000000000 + pid, Command: fmt.Sprint("p", pid), What: "open file /m/f"})
	}
	const want = "p0 (pid 1000000000, open file /m/f), p1 (pid 1000000001, open file /m/f), p2 (pid 1000000002, open file /m/f), " +
		"p3 (pid 1000000003, open file /m/f), p4 (pid 1000000004, open file /m/f), and 2 more"
	if got := describeHolders(many); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	self := []mountpoint.Holder{{PID: os.Getpid(), Command: "mapfs", What: "working directory /m"}}
	if got, want := describeHolders(self), "nobody that can be seen from here"; got != want {
		t.Errorf("this process alone: got %q, want %q", got, want)
	}
}
