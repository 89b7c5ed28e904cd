// Package need is for tests that cannot run everywhere.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Missing skips the test because feature is not here, or fails it if MAPFS_REQUIRE, a
// comma list, names the feature. The rest says why.
func Missing(t testing.TB, feature, format string, args ...any) {
	t.Helper()
	why := feature + " is not available: " + fmt.Sprintf(format, args...)
	if slices.Contains(strings.Split(os.Getenv("MAPFS_REQUIRE"), ","), feature) {
		t.Fatalf("%s (required by MAPFS_REQUIRE)", why)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", why)
}

// FUSE needs /dev/fuse, and root to mount with it.
func FUSE(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		Missing(t, "fuse", "%v, user %d", err, os.Geteuid())
	}
}

// Root needs a user who can mount file systems and become others.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "the tests run as user %d", os.Geteuid())
	}
}

// Tool needs an installed program.
func Tool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Missing(t, name, "%v", err)
	}
}
