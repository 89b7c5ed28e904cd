package durability

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mapfs/integration/harness"
)

// attrTimeout is a little more than the kernel believes what it was told of a
// file: from then on it sees what happened behind its back.
const attrTimeout = 1200 * time.Millisecond

// TestTruncatedBehind shrinks a file in BACKING that is open and mapped in the
// mount: loads beyond its new end fault in the daemon, which must turn that
// into an end of file.
func TestTruncatedBehind(t *testing.T) {
	const size = 64 * 4096
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := filepath.Join(dir, "f")
		startAppend(t, m.Path("f"), size, size).finish("done")
		// Direct, so that the answers are the daemon's and not the kernel's cache's.
		direct := harness.StartClient(t, "fd", m.Path("f"), "rw|direct")
		direct.Hear("open")
		cached := harness.StartClient(t, "fd", m.Path("f"), "rw")
		cached.Hear("open")
		direct.Ask("pread 200000 100")

		if err := os.Truncate(file, 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		for _, c := range []struct {
			name string
			p    *harness.Process
		}{{"direct", direct}, {"cached", cached}} {
			// Twice: an error must not stick to the file.
			for range 2 {
				if got := c.p.Ask("pread 200000 100"); got != `""` {
					t.Errorf("%s read beyond the new end: got %.60s, want an end of file", c.name, got)
				}
			}
			if got := c.p.Ask("size"); got != "100" {
				t.Errorf("%s size: got %s, want 100", c.name, got)
			}
		}
		if got := direct.Ask("pread 0 200"); strings.HasPrefix(got, "error") {
			t.Errorf("read across the new end: %s", got)
		}
		if got := len(harness.Run(t, "cat", m.Path("f"))); got != 100 {
			t.Errorf("cat: got %d bytes, want 100", got)
		}
		m.Alive()

		// Growing again: zeros between the old end and the new bytes.
		if got := cached.Ask("pwrite 9000 new"); got != "3" {
			t.Errorf("write beyond the new end: got %s, want 3", got)
		}
		want := make([]byte, 9003)
		patternAt(want[:100], 0)
		copy(want[9000:], "new")
		if got := harness.Run(t, "cat", m.Path("f")); got != string(want) {
			t.Errorf("after growing again: got %d bytes that differ at %d", len(got),
				firstDifference([]byte(got[:min(len(got), len(want))]), want[:min(len(got), len(want))]))
		}
		m.UnmountAfter(direct, cached)
		if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
			t.Errorf("BACKING: got %d bytes, %v, want %d", len(got), err, len(want))
		}
	})
}

// TestDeletedBehind removes, in BACKING, a file that is open in the mount: the
// open descriptor keeps working and the name goes.
func TestDeletedBehind(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := filepath.Join(dir, "f")
		startAppend(t, m.Path("f"), 100_000, 100_000).finish("done")
		f := harness.StartClient(t, "fd", m.Path("f"), "rw|direct")
		f.Hear("open")
		f.Ask("pread 0 10")

		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		for _, step := range []struct{ say, want string }{
			{"pwrite 99998 tail", "4"},
			{"pread 99998 10", `"tail"`},
			{"fsync", "ok"},
			{"truncate 3", "ok"},
			{"size", "3"},
		} {
			if got := f.Ask("%s", step.say); got != step.want {
				t.Errorf("%s: got %s, want %s", step.say, got, step.want)
			}
		}
		if _, err := harness.RunErr("stat", m.Path("f")); err == nil {
			t.Error("the deleted name is still there")
		}
		m.Alive()

		// The name is free for another file, whose bytes are its own.
		if err := os.WriteFile(file, []byte("another"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		if got := harness.Run(t, "cat", m.Path("f")); got != "another" {
			t.Errorf("the new file: got %q, want %q", got, "another")
		}
		if got := f.Ask("size"); got != "3" {
			t.Errorf("the deleted file: got size %s, want 3", got)
		}
		m.UnmountAfter(f)
	})
}

// TestReplacedBehind writes a new file over an old name, as editors do, while
// the old one is open: each descriptor keeps its file.
func TestReplacedBehind(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte("old bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
		old := harness.StartClient(t, "fd", m.Path("f"), "rw|direct")
		old.Hear("open")
		if got := old.Ask("pread 0 20"); got != `"old bytes"` {
			t.Fatalf("read: got %s", got)
		}
		if err := os.WriteFile(file+".new", []byte("NEW"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		if got := harness.Run(t, "cat", m.Path("f")); got != "NEW" {
			t.Errorf("the new file: got %q, want %q", got, "NEW")
		}
		if got := old.Ask("pread 0 20"); got != `"old bytes"` {
			t.Errorf("the replaced file: got %s", got)
		}
		m.UnmountAfter(old)
	})
}
