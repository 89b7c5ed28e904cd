package main

import (
	"errors"
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
