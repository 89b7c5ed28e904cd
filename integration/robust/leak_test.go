package robust

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestLeakRemovedFiles checks that nothing of removed files stays: no mapping,
// no descriptor, and no space on the device.
func TestLeakRemovedFiles(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		harness.Run(t, "sh", "-c", `echo warm >"$1/warm"; cat "$1/warm"; ls "$1"; rm "$1/warm"`, "sh", m.Dir)
		m.Settles(m.Fds(), 0, harness.SettleLimit)
		fds, free := m.Fds(), freeBlocks(t, dir)

		for round := range 3 {
			harness.Run(t, "sh", "-c", `mkdir "$1/d" && cd "$1/d" && for i in $(seq 300); do echo $i >f$i; done && cat f* >all &&
				head -c 50000000 /dev/zero >big && cat big >/dev/null`, "sh", m.Dir)
			if len(m.Mappings()) == 0 {
				t.Errorf("round %d: nothing is mapped after 300 files were read", round)
			}
			harness.Run(t, "rm", "-r", m.Path("d"))
			// A few more descriptors than at first are caches and pools.
			m.Settles(fds+16, 0, harness.SettleLimit)
		}
		if harness.FsType(t, dir) == unix.TMPFS_MAGIC {
			// Only this test uses the file system, so its free space is exact.
			for deadline := time.Now().Add(harness.SettleLimit); freeBlocks(t, dir)+64 < free; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Errorf("%d blocks are free after everything was removed, %d were at first", freeBlocks(t, dir), free)
					break
				}
			}
		}
		m.Unmount()
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
	harness.EachFS(t, func(t *testing.T, dir string) {
		const files = 600
		for i := range files {
			harness.MakeFile(t, filepath.Join(dir, fmt.Sprint(i)), "original")
		}
		m := harness.MountWith(t, dir, harness.MountConfig{
			Opts: []string{"mode=private"},
			Wrap: []string{"prlimit", "--nofile=256:256"},
		})
		harness.Run(t, "sh", "-ec", `cd "$1"; for i in $(seq 0 $2); do printf "$i" 1<>$i; printf more >>$i; done`, "sh", m.Dir, fmt.Sprint(files-1))
		if got := m.Fds(); got > 256 {
			t.Errorf("%d descriptors, but the limit is 256", got)
		}
		out := harness.Run(t, "sh", "-ec", `cd "$1"; for i in $(seq 0 $2); do cat $i; stat -c " %s" $i; done`, "sh", m.Dir, fmt.Sprint(files-1))
		for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
			name := fmt.Sprint(i)
			want := name + "original"[len(name):] + "more 12"
			if line != want {
				t.Fatalf("file %d: %q, want %q", i, line, want)
			}
		}
		// The control tree tells of those that are closed as of the others.
		for _, name := range []string{"0", fmt.Sprint(files - 1)} {
			out := harness.Run(t, "sh", "-ec", `cd "$1/.mapfs/files/$2"; cat unsynced backing; grep -E "^(mode|size|backing_size|copied_pages) " status`, "sh", m.Dir, name)
			harness.Expect(t, out, "0 12 write\noriginalmode private\nsize 12\nbacking_size 8\ncopied_pages 1\n", "control tree of "+name)
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
	dir := harness.TmpfsDir(t)
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
	m := harness.MountWith(t, dir, harness.MountConfig{
		Opts: []string{fmt.Sprint("max_mappings=", most)},
		Wrap: []string{"prlimit", "--nofile=256:256"},
	})
	out := harness.Run(t, "sh", "-c", `find "$1" -type f -print0 | xargs -0 cat | wc -c`, "sh", m.Dir)
	if want := fmt.Sprintln(files); out != want {
		t.Errorf("bytes of all files: got %s, want %s", out, want)
	}
	if got := len(m.Mappings()); got > most {
		t.Errorf("%d mappings, but max_mappings=%d", got, most)
	}
	if got := m.Fds(); got > 256 {
		t.Errorf("%d descriptors, but the limit is 256", got)
	}
	// The same once more, when all nodes are known, and as changes.
	harness.Run(t, "sh", "-c", `find "$1" -type f -exec sh -c 'for f; do echo y >>"$f"; done' sh {} +`, "sh", m.Dir)
	m.Unmount()
	got, err := os.ReadFile(filepath.Join(dir, "d7", "f7"))
	if err != nil || string(got) != "xy\n" {
		t.Errorf("a changed file: got %q, %v", got, err)
	}
}
