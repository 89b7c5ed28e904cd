//go:build linux

package main

import (
	"errors"
	"syscall"
	"testing"
)

func TestWithHelperWords(t *testing.T) {
	failed := errors.New("mount on /m: fusermount: exit status 1")
	tests := []struct{ words, want string }{
		{"", "mount on /m: fusermount: exit status 1"},
		{"mount helper error: fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf\n",
			"mount on /m: fusermount: exit status 1: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf"},
		{"mount helper error: fusermount3: one\nother talk\nmount helper error: fusermount3: two\n",
			"mount on /m: fusermount: exit status 1: one; two"},
	}
	for _, test := range tests {
		got := withHelperWords(failed, test.words)
		if got.Error() != test.want || !errors.Is(got, failed) {
			t.Errorf("%q:\ngot  %q\nwant %q", test.words, got, test.want)
		}
	}
}

func TestRaiseDescriptorLimit(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lower := before
	lower.Cur = min(before.Max/2, 100)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lower); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Who has raised the hard limit may lower it again.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	raiseDescriptorLimit()
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if want := min(before.Max, mostDescriptors); after.Cur < want || after.Max < before.Max {
		t.Errorf("the limit was %d of %d and is %d of %d, want %d or more", lower.Cur, before.Max, after.Cur, after.Max, want)
	}
}
