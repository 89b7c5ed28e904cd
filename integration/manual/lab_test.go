package manual

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/docs/lab"
	"mapfs/integration/harness"
)

// string, a line; or *step

// TestLab follows every exercise as a person would, in one shell session, and
// compares what is printed with what the text says. -update corrects the text.
func TestLab(t *testing.T) {
	harness.RequireFUSE(t)
	for _, e := range lab.Exercises() {
		t.Run(e.Name, func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				here := e
				if harness.FsType(t, dir) == unix.TMPFS_MAGIC {
					if *harness.Update {
						return
					}
					here = harness.WithoutDirty(e)
				}
				harness.FollowExercise(t, harness.StartLabShell(t, dir), here)
			})
		})
	}
}

// TestDemo runs what "make demo" runs, which leaves nothing behind.
func TestDemo(t *testing.T) {
	harness.RequireFUSE(t)
	top := harness.TempDir(t)
	cmd := exec.Command(harness.Repo("docs", "demo.sh"), harness.Binary)
	cmd.Env = append(os.Environ(), "TMPDIR="+top, harness.QuickRace)
	t.Cleanup(func() { harness.ClearMounts(t, top) })
	out, err := harness.RunCmd(cmd, harness.ClientTimeout)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range lab.Exercises()[:3] {
		if title := fmt.Sprintf("\n# Exercise %02d %s\n$ ", e.Number, e.Title); !strings.Contains(out, title) {
			t.Errorf("no %q:\n%s", title, out)
		}
	}
	harness.Expect(t, harness.Run(t, "ls", "-A", top), "", "left behind")
	if left := harness.ClearMounts(t, top); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestLabMatches is the test of the tests' one wildcard.
func TestLabMatches(t *testing.T) {
	for _, c := range []struct {
		documented, line string
		want             bool
	}{
		{"a...z", "a to z", true},
		{"a...z", "az", true},
		{"a...z", "a to zz top", false},
		{"...", "", true},
		{"a.z", "abz", false},
		{"pid=...", "pid=17 x", true},
		{"", "x", false},
	} {
		if got := harness.Matches(c.documented, c.line); got != c.want {
			t.Errorf("matches(%q, %q) = %v, want %v", c.documented, c.line, got, c.want)
		}
	}
}
