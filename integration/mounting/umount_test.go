package mounting

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestUmountHasWritten: when umount(8) or fusermount3 returns, BACKING has what was
// written, and stored through mappings that nobody synced.
func TestUmountHasWritten(t *testing.T) {
	need.Root(t)
	harness.EachFS(t, func(t *testing.T, dir string) {
		for round := range 10 {
			for i, unmount := range [][]string{{"umount", "-i"}, {"fusermount3", "-u"}} {
				m := harness.Mount(t, dir)
				file := fmt.Sprintf("f%d-%d", round, i)
				harness.Run(t, "sh", "-c", `yes written | head -c 100000 >"$1"`, "sh", m.Path(file))
				harness.Run(t, harness.Binary, "poke", "--msync", "none", m.Path(file), "50000", "stored")
				m.UnmountedBy(unmount[0], unmount[1], m.Dir)
				got, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil || len(got) != 100000 || string(got[50000:50006]) != "stored" {
					t.Errorf("%s: %d bytes in BACKING, %q, %v", unmount[0], len(got), got[50000:50006], err)
				}
				m.EndsWell()
			}
		}
	})
}
