package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attrTimeout is a little more than the kernel believes what it was told of a
// file: from then on it sees what happened behind its back.
const attrTimeout = 1200 * time.Millisecond

// TestTruncatedBehind shrinks a file in BACKING that is open and mapped in the
// mount: loads beyond its new end fault in the daemon, which must turn that
// into an end of file.
func TestTruncatedBehind(t *testing.T) {
	const size = 64 * 4096
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		file := filepath.Join(dir, "f")
		startAppend(t, m.path("f"), size, size).finish("done")
		// Direct, so that the answers are the daemon's and not the kernel's cache's.
		direct := startClient(t, "fd", m.path("f"), "rw|direct")
		direct.hear("open")
		cached := startClient(t, "fd", m.path("f"), "rw")
		cached.hear("open")
		direct.ask("pread 200000 100")

		if err := os.Truncate(file, 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		for _, c := range []struct {
			name string
			p    *proc
		}{{"direct", direct}, {"cached", cached}} {
			// Twice: an error must not stick to the file.
			for range 2 {
				if got := c.p.ask("pread 200000 100"); got != `""` {
					t.Errorf("%s read beyond the new end: got %.60s, want an end of file", c.name, got)
				}
			}
			if got := c.p.ask("size"); got != "100" {
				t.Errorf("%s size: got %s, want 100", c.name, got)
			}
		}
		if got := direct.ask("pread 0 200"); strings.HasPrefix(got, "error") {
			t.Errorf("read across the new end: %s", got)
		}
		if got := len(run(t, "cat", m.path("f"))); got != 100 {
			t.Errorf("cat: got %d bytes, want 100", got)
		}
		m.alive()

		// Growing again: zeros between the old end and the new bytes.
		if got := cached.ask("pwrite 9000 new"); got != "3" {
			t.Errorf("write beyond the new end: got %s, want 3", got)
		}
		want := make([]byte, 9003)
		patternAt(want[:100], 0)
		copy(want[9000:], "new")
		if got := run(t, "cat", m.path("f")); got != string(want) {
			t.Errorf("after growing again: got %d bytes that differ at %d", len(got),
				firstDifference([]byte(got[:min(len(got), len(want))]), want[:min(len(got), len(want))]))
		}
		m.unmountAfter(direct, cached)
		if got, err := os.ReadFile(file); err != nil || string(got) != string(want) {
			t.Errorf("BACKING: got %d bytes, %v, want %d", len(got), err, len(want))
		}
	})
}

// TestDeletedBehind removes, in BACKING, a file that is open in the mount: the
// open descriptor keeps working and the name goes.
func TestDeletedBehind(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		file := filepath.Join(dir, "f")
		startAppend(t, m.path("f"), 100_000, 100_000).finish("done")
		f := startClient(t, "fd", m.path("f"), "rw|direct")
		f.hear("open")
		f.ask("pread 0 10")

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
			if got := f.ask("%s", step.say); got != step.want {
				t.Errorf("%s: got %s, want %s", step.say, got, step.want)
			}
		}
		if _, err := runErr("stat", m.path("f")); err == nil {
			t.Error("the deleted name is still there")
		}
		m.alive()

		// The name is free for another file, whose bytes are its own.
		if err := os.WriteFile(file, []byte("another"), 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		if got := run(t, "cat", m.path("f")); got != "another" {
			t.Errorf("the new file: got %q, want %q", got, "another")
		}
		if got := f.ask("size"); got != "3" {
			t.Errorf("the deleted file: got size %s, want 3", got)
		}
		m.unmountAfter(f)
	})
}

// TestReplacedBehind writes a new file over an old name, as editors do, while
// the old one is open: each descriptor keeps its file.
func TestReplacedBehind(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, []byte("old bytes"), 0o644); err != nil {
			t.Fatal(err)
		}
		old := startClient(t, "fd", m.path("f"), "rw|direct")
		old.hear("open")
		if got := old.ask("pread 0 20"); got != `"old bytes"` {
			t.Fatalf("read: got %s", got)
		}
		if err := os.WriteFile(file+".new", []byte("NEW"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(attrTimeout)
		if got := run(t, "cat", m.path("f")); got != "NEW" {
			t.Errorf("the new file: got %q, want %q", got, "NEW")
		}
		if got := old.ask("pread 0 20"); got != `"old bytes"` {
			t.Errorf("the replaced file: got %s", got)
		}
		m.unmountAfter(old)
	})
}

// unmountAfter unmounts once these clients, which hold files open, are gone.
func (m *mount) unmountAfter(clients ...*proc) {
	m.t.Helper()
	for _, c := range clients {
		c.wait()
	}
	m.unmount()
}
