package wire

import (
	"errors"
	"testing"
)

// TestHelperError: a failed mount says what fusermount3 said, and how it ended if it said
// nothing.
func TestHelperError(t *testing.T) {
	exit := errors.New("exit status 1")
	for _, test := range []struct{ words, want string }{
		{"", "fusermount3: exit status 1"},
		{"fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf\n",
			"fusermount3: too many FUSE filesystems mounted; mount_max=N can be set in /etc/fuse.conf"},
		{"fusermount3: one\nfusermount3: two\n", "fusermount3: one; two"},
	} {
		if got := helperError(exit, test.words).Error(); got != test.want {
			t.Errorf("%q: got %q, want %q", test.words, got, test.want)
		}
	}
}
