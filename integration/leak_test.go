package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/internal/need"
)

// settleLimit is how long the daemon may take to let go of what is removed: the
// kernel says that it has forgotten a file when it pleases.
const settleLimit = 10 * time.Second

// TestLeakRemovedFiles checks that nothing of removed files stays: no mapping,
// no descriptor, and no space on the device.
func TestLeakRemovedFiles(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		run(t, "sh", "-c", `echo warm >"$1/warm"; cat "$1/warm"; ls "$1"; rm "$1/warm"`, "sh", m.dir)
		m.settles(m.fds(), 0, settleLimit)
		fds, free := m.fds(), freeBlocks(t, dir)

		for round := range 3 {
			run(t, "sh", "-c", `mkdir "$1/d" && cd "$1/d" && for i in $(seq 300); do echo $i >f$i; done && cat f* >all &&
				head -c 50000000 /dev/zero >big && cat big >/dev/null`, "sh", m.dir)
			if len(m.mappings()) == 0 {
				t.Errorf("round %d: nothing is mapped after 300 files were read", round)
			}
			run(t, "rm", "-r", m.path("d"))
			// A few more descriptors than at first are caches and pools.
			m.settles(fds+16, 0, settleLimit)
		}
		if fsType(t, dir) == unix.TMPFS_MAGIC {
			// Only this test uses the file system, so its free space is exact.
			for deadline := time.Now().Add(settleLimit); freeBlocks(t, dir)+64 < free; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Errorf("%d blocks are free after everything was removed, %d were at first", freeBlocks(t, dir), free)
					break
				}
			}
		}
		m.unmount()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != 0 {
			t.Errorf("left in BACKING: %v", entries)
		}
	})
}

func freeBlocks(t testing.TB, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree
}

// TestLeakPrivateFiles changes more private files than the daemon may have descriptors;
// each keeps what was written.
func TestLeakPrivateFiles(t *testing.T) {
	need.Tool(t, "prlimit")
	eachFS(t, func(t *testing.T, dir string) {
		const files = 600
		for i := range files {
			makeFile(t, filepath.Join(dir, fmt.Sprint(i)), "original")
		}
		m := mountWith(t, dir, mountConfig{
			opts: []string{"mode=private"},
			wrap: []string{"prlimit", "--nofile=256:256"},
		})
		run(t, "sh", "-ec", `cd "$1"; for i in $(seq 0 $2); do printf "$i" 1<>$i; printf more >>$i; done`, "sh", m.dir, fmt.Sprint(files-1))
		if got := m.fds(); got > 256 {
			t.Errorf("%d descriptors, but the limit is 256", got)
		}
		out := run(t, "sh", "-ec", `cd "$1"; for i in $(seq 0 $2); do cat $i; stat -c " %s" $i; done`, "sh", m.dir, fmt.Sprint(files-1))
		for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
			name := fmt.Sprint(i)
			want := name + "original"[len(name):] + "more 12"
			if line != want {
				t.Fatalf("file %d: %q, want %q", i, line, want)
			}
		}
		// The control tree tells of those that are closed as of the others.
		for _, name := range []string{"0", fmt.Sprint(files - 1)} {
			out := run(t, "sh", "-ec", `cd "$1/.mapfs/files/$2"; cat unsynced backing; grep -E "^(mode|size|backing_size|copied_pages) " status`, "sh", m.dir, name)
			expect(t, out, "0 12 write\noriginalmode private\nsize 12\nbacking_size 8\ncopied_pages 1\n", "control tree of "+name)
		}
		for i := range files {
			if got, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i))); err != nil || string(got) != "original" {
				t.Fatalf("BACKING has %q, %v", got, err)
			}
		}
	})
}

// TestLeakManyFiles walks more files than the daemon may have descriptors or
// mappings.
func TestLeakManyFiles(t *testing.T) {
	need.Tool(t, "prlimit")
	dir := tmpfsDir(t)
	const files, most = 3000, 100
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprint("d", i%50))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := mountWith(t, dir, mountConfig{
		opts: []string{fmt.Sprint("max_mappings=", most)},
		wrap: []string{"prlimit", "--nofile=256:256"},
	})
	out := run(t, "sh", "-c", `find "$1" -type f -print0 | xargs -0 cat | wc -c`, "sh", m.dir)
	if want := fmt.Sprintln(files); out != want {
		t.Errorf("bytes of all files: got %s, want %s", out, want)
	}
	if got := len(m.mappings()); got > most {
		t.Errorf("%d mappings, but max_mappings=%d", got, most)
	}
	if got := m.fds(); got > 256 {
		t.Errorf("%d descriptors, but the limit is 256", got)
	}
	// The same once more, when all nodes are known, and as changes.
	run(t, "sh", "-c", `find "$1" -type f -exec sh -c 'for f; do echo y >>"$f"; done' sh {} +`, "sh", m.dir)
	m.unmount()
	got, err := os.ReadFile(filepath.Join(dir, "d7", "f7"))
	if err != nil || string(got) != "xy\n" {
		t.Errorf("a changed file: got %q, %v", got, err)
	}
}
