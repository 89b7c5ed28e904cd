package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mapfs/internal/need"
)

// unmountedBy marks the mount as ended by another unmount than m.unmount, and checks
// that the daemon ends.
func (m *mount) unmountedBy(name string, args ...string) {
	m.t.Helper()
	run(m.t, name, args...)
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
}

// endsWell waits for the daemon and checks its exit status.
func (m *mount) endsWell() {
	m.t.Helper()
	if code := m.waitExit(exitLimit); code != 0 {
		m.t.Errorf("the daemon ended with status %d", code)
	}
}

// TestUmountHasWritten: when umount(8) or fusermount3 returns, BACKING has what was
// written, and stored through mappings that nobody synced.
func TestUmountHasWritten(t *testing.T) {
	need.Root(t)
	eachFS(t, func(t *testing.T, dir string) {
		for round := range 10 {
			for i, unmount := range [][]string{{"umount", "-i"}, {"fusermount3", "-u"}} {
				m := mountT(t, dir)
				file := fmt.Sprintf("f%d-%d", round, i)
				run(t, "sh", "-c", `yes written | head -c 100000 >"$1"`, "sh", m.path(file))
				run(t, mapfsBin, "poke", "--msync", "none", m.path(file), "50000", "stored")
				m.unmountedBy(unmount[0], unmount[1], m.dir)
				got, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil || len(got) != 100000 || string(got[50000:50006]) != "stored" {
					t.Errorf("%s: %d bytes in BACKING, %q, %v", unmount[0], len(got), got[50000:50006], err)
				}
				m.endsWell()
			}
		}
	})
}
