package durability

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
)

// TestKilledAppending kills the daemon while a client writes. What write(2)
// acknowledged is in the page cache of BACKING and outlives the daemon; what it
// had in hand may be there too, whole or in part; and nothing else is, zeros
// least of all.
func TestKilledAppending(t *testing.T) {
	for _, block := range []int{1000, 4096, 100_003} {
		t.Run(fmt.Sprint(block), func(t *testing.T) {
			harness.EachFS(t, func(t *testing.T, dir string) {
				m := harness.Mount(t, dir)
				a := startAppend(t, m.Path("f"), block)
				a.follow(max(300_000, int64(20*block)))
				m.Kill()
				// EIO: the daemon died with the request half read.
				a.finish("error: ENOTCONN", "error: ECONNABORTED", "error: ENODEV", "error: EIO")

				file := filepath.Join(dir, "f")
				if size := fileSize(t, file); size < a.acked || size > a.acked+int64(block) {
					t.Errorf("size: got %d, want %d or at most %d more", size, a.acked, block)
				}
				checkPattern(t, file, 0)

				// The dead mount goes, and the next one serves the same bytes.
				m.Unmount()
				m = harness.Mount(t, dir)
				harness.Run(t, "cmp", m.Path("f"), file)
			})
		})
	}
}

// TestKilledAfterChanges is the same for changes in place, holes and sizes.
func TestKilledAfterChanges(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		startAppend(t, m.Path("f"), 1<<16, 1<<20).finish("done")
		f := harness.StartClient(t, "fd", m.Path("f"), "rw")
		f.Hear("open")
		for _, step := range []struct{ say, want string }{
			{"pwrite 5000 changed", "7"},
			{"truncate 900001", "ok"},
			{"truncate 2000000", "ok"},
			{"pwrite 1999999 xyz", "3"},
			{"fsync", "ok"},
			{"pwrite 4095 ab", "2"},
			{"truncate 3000000", "ok"},
		} {
			if got := f.Ask("%s", step.say); got != step.want {
				t.Fatalf("%s: got %s, want %s", step.say, got, step.want)
			}
		}
		m.Kill()

		want := make([]byte, 3_000_000)
		patternAt(want[:900001], 0)
		copy(want[5000:], "changed")
		copy(want[1999999:], "xyz")
		copy(want[4095:], "ab")
		got, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("size: got %d, want %d", len(got), len(want))
		}
		if i := firstDifference(got, want); i >= 0 {
			t.Errorf("at %d: got %x, want %x", i, got[i], want[i])
		}
	})
}

// TestKilledMountIsCleanedUp: after a crash the mount point answers ENOTCONN to
// everybody. mapfs umount takes it away, and so does mounting anew on it.
func TestKilledMountIsCleanedUp(t *testing.T) {
	dir := harness.Ext4Dir(t)
	m := harness.Mount(t, dir)
	m.Kill()
	// A stat could still be answered from the kernel's memory.
	if out, err := harness.RunErr("ls", m.Dir); err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Errorf("ls of the dead mount: got %q, %v, want ENOTCONN", out, err)
	}
	if !harness.IsMounted(t, m.Dir) {
		t.Fatal("the dead mount is gone by itself: this test shows nothing")
	}
	harness.Run(t, harness.Binary, "umount", m.Dir)
	if harness.IsMounted(t, m.Dir) {
		t.Error("still mounted after mapfs umount")
	}
	if out, err := harness.RunErr(harness.Binary, "umount", m.Dir); harness.ExitCode(err) != 1 {
		t.Errorf("mapfs umount of what is not mounted: got %q, %v, want exit status 1", out, err)
	}
}
