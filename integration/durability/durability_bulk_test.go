package durability

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

var walkFiles = flag.Int("files", 20_000, "how many files the walk of TestWalk goes through")

// bulkLimit bounds what moves a gigabyte or visits many files, with the race
// detector and on a busy machine too.
const bulkLimit = 5 * time.Minute

// TestGigabyte writes a file much larger than a mapping's first span.
func TestGigabyte(t *testing.T) {
	megabytes := 1024
	if os.Getenv("MAPFS_RACE") == "1" {
		megabytes = 128
	}
	dir := harness.Ext4Dir(t)
	random := filepath.Join(harness.TempDir(t), "random")
	harness.RunFor(t, bulkLimit, "dd", "if=/dev/urandom", "of="+random, "bs=1M", fmt.Sprintf("count=%d", megabytes), "status=none")

	m := harness.Mount(t, dir)
	harness.RunFor(t, bulkLimit, "dd", "if="+random, "of="+m.Path("f"), "bs=1M", "status=none")
	harness.RunFor(t, bulkLimit, "cmp", random, m.Path("f"))
	harness.RunFor(t, bulkLimit, "sync", m.Path("f"))
	harness.RunFor(t, bulkLimit, "cmp", random, filepath.Join(dir, "f"))
	m.Unmount()
}

// TestBlockSizes writes the same bytes by blocks around the page size, at an
// odd offset, and compares them with what a plain directory got.
func TestBlockSizes(t *testing.T) {
	page := os.Getpagesize()
	harness.EachFS(t, func(t *testing.T, dir string) {
		top := harness.TempDir(t)
		random := filepath.Join(top, "random")
		harness.Run(t, "dd", "if=/dev/urandom", "of="+random, "bs=1M", "count=4", "status=none")
		m := harness.Mount(t, dir)
		for _, c := range []struct{ block, total int }{
			{1, 10_000}, {page - 1, 4 << 20}, {page, 4 << 20}, {page + 1, 4 << 20}, {1 << 20, 4 << 20},
		} {
			for _, seek := range []int{0, 1, page - 1, 3*page + 5} {
				name := fmt.Sprintf("f-%d-%d", c.block, seek)
				plain := filepath.Join(top, "plain")
				for _, of := range []string{plain, m.Path(name)} {
					// notrunc: dd would cut the file to seek first.
					harness.Run(t, "dd", "if="+random, "of="+of, fmt.Sprintf("bs=%d", c.block),
						fmt.Sprintf("count=%d", c.total), "iflag=count_bytes",
						fmt.Sprintf("seek=%d", seek), "oflag=seek_bytes", "conv=notrunc", "status=none")
				}
				harness.Run(t, "cmp", plain, m.Path(name))
				// And read back by the same blocks.
				harness.Run(t, "sh", "-c", fmt.Sprintf("dd if=%s bs=%d status=none | cmp - %s", m.Path(name), c.block, plain))
				harness.Run(t, "sync", m.Path(name))
				harness.Run(t, "cmp", plain, filepath.Join(dir, name))
				harness.Run(t, "rm", m.Path(name), plain)
			}
		}
		m.Unmount()
	})
}

// TestWalk visits many more files than the daemon may have descriptors.
func TestWalk(t *testing.T) {
	need.Tool(t, "prlimit")
	const limit, perDir = 1024, 500
	dir := harness.Ext4Dir(t)
	for i := range *walkFiles {
		sub := filepath.Join(dir, fmt.Sprint("d", i/perDir))
		if i%perDir == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("f", i)), fmt.Appendf(nil, "file %d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := harness.MountWith(t, dir, harness.MountConfig{Wrap: []string{"prlimit", fmt.Sprintf("--nofile=%d:%d", limit, limit)}})

	walkLimit := bulkLimit * time.Duration(1+*walkFiles/50_000)
	start := time.Now()
	count := func(script string) int {
		t.Helper()
		out, err := harness.RunCmd(exec.Command("sh", "-c", "cd "+m.Dir+" && "+script), walkLimit)
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return n
	}
	if n := count("find . -type f -size -2 | wc -l"); n != *walkFiles {
		t.Errorf("find: got %d files, want %d", n, *walkFiles)
	}
	t.Logf("find of %d files: %v", *walkFiles, time.Since(start))
	start = time.Now()
	// Sorted and without repeats: each file has its own line.
	if n := count("find . -type f -exec cat {} + | sort -u | wc -l"); n != *walkFiles {
		t.Errorf("cat: got %d different lines, want %d", n, *walkFiles)
	}
	t.Logf("cat of %d files: %v", *walkFiles, time.Since(start))
	if n := m.Fds(); n > limit {
		t.Errorf("the daemon has %d descriptors, want at most %d", n, limit)
	}
	// Changing them needs descriptors and mappings too.
	harness.Run(t, "sh", "-c", "cd "+m.Dir+" && for f in d0/*; do echo more >>$f || exit; done")
	if got := harness.Run(t, "cat", m.Path("d0", "f7")); got != "file 7\nmore\n" {
		t.Errorf("d0/f7: got %q", got)
	}
	m.Unmount()
}

// TestFarOffsets uses offsets beyond 32 bits, beyond what one mapping should
// take, and beyond what the file system can hold: each answer is the one that a
// plain file gives.
func TestFarOffsets(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, harness.SubDir(t, dir, "backing"))
		plain := harness.SubDir(t, dir, "plain")
		offsets := []int64{1<<31 - 3, 1 << 31, 1<<32 - 3, 1<<32 + 1, 1<<40 + 4095, 1<<43 - 1,
			1<<44 - 5000, 1<<44 - 2, 1<<46 + 1, 1<<47 - 2, 1 << 50, 1<<63 - 2}
		type answer struct{ write, read, size string }
		answers := func(dir string, off int64) (a answer) {
			name := filepath.Join(dir, "far")
			f := harness.StartClient(t, "fd", name, "rw|creat")
			f.Hear("open")
			a.write = f.Ask("pwrite %d far", off)
			a.read = f.Ask("pread %d 10", off-2)
			a.size = f.Ask("size")
			f.Wait()
			harness.Run(t, "rm", name)
			return a
		}
		for _, off := range offsets {
			if got, want := answers(m.Dir, off), answers(plain, off); got != want {
				t.Errorf("offset %#x: got %+v, want %+v", off, got, want)
			}
		}

		// A sparse file stays sparse: nothing is filled that nobody wrote.
		f := harness.StartClient(t, "fd", m.Path("sparse"), "rw|creat")
		f.Hear("open")
		f.Ask("pwrite 0 a")
		f.Ask("pwrite %d b", int64(5)<<30)
		f.Ask("fsync")
		m.UnmountAfter(f)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "backing", "sparse"), &st); err != nil {
			t.Fatal(err)
		}
		if st.Size != 5<<30+1 || st.Blocks > 1024 {
			t.Errorf("sparse: got size %d and %d blocks of 512 bytes, want %d and few", st.Size, st.Blocks, int64(5)<<30+1)
		}
	})
}
