package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOtherSystems: a build for another system says in one line why there is none.
func TestOtherSystems(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", os.DevNull, ".")
	cmd.Env = append(os.Environ(), "GOOS=darwin", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	// The first line names the package.
	if err == nil || len(lines) != 2 || !strings.Contains(lines[1], "mapfs_is_for_Linux_only") {
		t.Errorf("%v: %s", err, out)
	}
}
