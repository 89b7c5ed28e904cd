package durability

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// ballastSize is what a test can free on a full file system by removing one file.
const ballastSize = 2 << 20

// eachSmallFS runs f on small file systems of their own, with a ballast file
// that can be removed when the rest is full and a file `old` of 64 KiB.
func eachSmallFS(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	need.Root(t)
	with := func(t *testing.T, dir string) {
		for name, size := range map[string]int{"ballast": ballastSize, "old": 64 << 10} {
			data := make([]byte, size)
			patternAt(data, 0)
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f(t, dir)
	}
	t.Run("ext4", func(t *testing.T) { with(t, harness.MountImage(t, "ext4", 32<<20)) })
	t.Run("tmpfs", func(t *testing.T) {
		dir := harness.SubDir(t, harness.TempDir(t), "tmpfs")
		harness.MountFor(t, dir, "-t", "tmpfs", "-o", "size=8m", "mapfs-test", dir)
		with(t, dir)
	})
}

// TestFull writes until the file system is full: the writer is told how much
// went in, the file has exactly that, and once there is room it goes on.
func TestFull(t *testing.T) {
	eachSmallFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := filepath.Join(dir, "f")
		a := startAppend(t, m.Path("f"), 65_549)
		a.finish("error: ENOSPC")
		if size := fileSize(t, file); size != a.acked {
			t.Errorf("size on the full file system: got %d, want the %d acknowledged", size, a.acked)
		}
		checkPattern(t, file, 0)
		m.Alive()

		// Reading and writing in place need no room.
		harness.Run(t, "cmp", m.Path("f"), file)
		old := harness.StartClient(t, "fd", m.Path("old"), "rw")
		old.Hear("open")
		for _, step := range []struct{ say, want string }{
			{"pwrite 5000 changed", "7"},
			{"pread 5000 7", `"changed"`},
			{"fsync", "ok"},
		} {
			if got := old.Ask("%s", step.say); got != step.want {
				t.Errorf("%s on the full file system: got %s, want %s", step.say, got, step.want)
			}
		}

		harness.Run(t, "rm", m.Path("ballast"))
		most := a.acked + ballastSize/2
		startAppend(t, m.Path("f"), 65_549, most).finish("done")
		old.Wait()
		m.Unmount()
		if size := fileSize(t, file); size != most {
			t.Errorf("size after going on: got %d, want %d", size, most)
		}
		checkPattern(t, file, 0)
	})
}

// TestFullHole stores into holes of a file that is mapped already, on a file
// system that has no room to fill them: by write(2), and through a client's own
// mapping, whose msync is told. Reading a hole takes no room.
func TestFullHole(t *testing.T) {
	const off = "8000000"
	eachSmallFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		harness.Run(t, "truncate", "-s", "16000000", m.Path("sparse"))
		f := harness.StartClient(t, "fd", m.Path("sparse"), "rw")
		f.Hear("open")
		wantHole := func(off string) {
			t.Helper()
			if got := f.Ask("pread %s 2", off); got != `"\x00\x00"` {
				t.Errorf("read of the hole at %s: got %s, want zeros", off, got)
			}
		}
		wantHole(off)
		startAppend(t, m.Path("filler"), 65_536).finish("error: ENOSPC")
		startAppend(t, m.Path("crumbs"), 1).finish("error: ENOSPC")

		if got := f.Ask("pwrite " + off + " lost"); got != "error: ENOSPC" {
			t.Errorf("write into the hole: got %s, want ENOSPC", got)
		}
		wantHole(off)
		wantHole("4000000")
		m.Alive()

		mem := harness.StartClient(t, "mmap", m.Path("sparse"), "shared", "16000000")
		mem.Hear("mapped")
		mem.Ask("store 12000000 lost")
		if got := mem.Ask("msync sync"); !strings.HasPrefix(got, "error: ") {
			t.Errorf("msync of a store into a hole: got %s, want an error", got)
		}
		m.Alive()

		harness.Run(t, "rm", m.Path("ballast"))
		// The kernel may still hold the page that it could not write back.
		mem.Kill()
		// Every descriptor learns of the lost store once.
		f.Ask("fsync")
		for _, step := range []struct{ say, want string }{
			{"pwrite " + off + " kept", "4"},
			{"pread " + off + " 4", `"kept"`},
			{"fsync", "ok"},
			{"size", "16000000"},
		} {
			if got := f.Ask("%s", step.say); got != step.want {
				t.Errorf("with room again, %s: got %s, want %s", step.say, got, step.want)
			}
		}
		f.Kill()
		m.Unmount()
		backing, err := os.Open(filepath.Join(dir, "sparse"))
		if err != nil {
			t.Fatal(err)
		}
		defer backing.Close()
		got := make([]byte, 4)
		if _, err := backing.ReadAt(got, 8_000_000); err != nil || string(got) != "kept" {
			t.Errorf("in BACKING: got %q, %v, want %q", got, err, "kept")
		}
	})
}

// TestReadKeepsHoles: reading a sparse file must not make it less sparse. On
// tmpfs a load from a hole by a shared mapping takes a page for good.
func TestReadKeepsHoles(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		harness.Run(t, "truncate", "-s", "20000000", m.Path("sparse"))
		harness.Run(t, "cmp", "-n", "20000000", m.Path("sparse"), "/dev/zero")
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "sparse"), &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks != 0 {
			t.Errorf("after a read of 20 MB of holes BACKING has %d blocks of 512 bytes, want 0", st.Blocks)
		}
	})
}

// TestFullHolesOfCopies: a store to a hole of a private or staged file needs no room on
// the file system, however full that is; only the write-back of a staged one does.
func TestFullHolesOfCopies(t *testing.T) {
	eachSmallFS(t, func(t *testing.T, dir string) {
		for _, mode := range []string{"private", "staged"} {
			sparse := filepath.Join(dir, mode)
			if err := os.WriteFile(sparse, []byte("begin"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(sparse, 3_000_100); err != nil {
				t.Fatal(err)
			}
		}
		harness.Run(t, "sh", "-c", `cat /dev/zero >"$1/filler" 2>/dev/null; cat /dev/zero >"$1/crumbs" 2>/dev/null; true`, "sh", dir)
		for _, mode := range []string{"private", "staged"} {
			m := harness.Mount(t, dir, "mode="+mode)
			f := harness.StartClient(t, "fd", m.Path(mode), "rw")
			f.Hear("open")
			model := make([]byte, 3_000_100)
			copy(model, "begin")
			// Scattered, adjacent, unaligned and large; in the last page, and past it.
			stores := []struct {
				off  int
				text string
			}{
				{1_000_000, "one"}, {1_004_096, "two"}, {999_999, "before"}, {2_000_000, strings.Repeat("long_", 2_000)},
				{1_000_001, "again"}, {3_000_050, "tail"}, {3_000_090, "beyond-the-end"},
			}
			for _, s := range stores {
				if got, want := f.Ask("pwrite %d %s", s.off, s.text), strconv.Itoa(len(s.text)); got != want {
					t.Fatalf("%s: pwrite at %d: %s, want %s", mode, s.off, got, want)
				}
				if grown := s.off + len(s.text) - len(model); grown > 0 {
					model = append(model, make([]byte, grown)...)
				}
				copy(model[s.off:], s.text)
			}
			same := func(path, what string) {
				t.Helper()
				cmd := exec.Command("cmp", "-", path)
				cmd.Stdin = bytes.NewReader(model)
				if out, err := harness.RunCmd(cmd, harness.ClientTimeout); err != nil {
					t.Errorf("%s, %s: %v %s", mode, what, err, out)
				}
			}
			same(m.Path(mode), "after the stores")
			// Larger than what is mapped: the memory moves.
			if got := f.Ask("truncate 9000000"); got != "ok" {
				t.Errorf("%s: truncate: %s", mode, got)
			}
			model = append(model, make([]byte, 9_000_000-len(model))...)
			same(m.Path(mode), "after it grew")
			switch mode {
			case "private":
				harness.Run(t, harness.Binary, "msync", "--invalidate", m.Path(mode))
				model = make([]byte, 3_000_100)
				copy(model, "begin")
				same(m.Path(mode), "after the copies were given up")
			case "staged":
				if got := f.Ask("fsync"); got != "error: ENOSPC" {
					t.Errorf("staged: fsync on the full file system: %s, want ENOSPC", got)
				}
				same(m.Path(mode), "after the fsync that failed")
				if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
					t.Fatal(err)
				}
				f.Ask("fsync") // may tell of the failure once more
				if got := f.Ask("fsync"); got != "ok" {
					t.Errorf("staged: fsync with room again: %s", got)
				}
				same(filepath.Join(dir, mode), "BACKING after the fsync")
				same(m.Path(mode), "after the fsync")
			}
			f.Kill()
			m.Alive()
			m.Unmount()
		}
	})
}
