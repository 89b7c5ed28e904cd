package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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
	t.Run("ext4", func(t *testing.T) { with(t, mountImage(t, "ext4", 32<<20)) })
	t.Run("tmpfs", func(t *testing.T) {
		dir := subDir(t, tempDir(t), "tmpfs")
		mountFor(t, dir, "-t", "tmpfs", "-o", "size=8m", "mapfs-test", dir)
		with(t, dir)
	})
}

// TestFull writes until the file system is full: the writer is told how much
// went in, the file has exactly that, and once there is room it goes on.
func TestFull(t *testing.T) {
	eachSmallFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		file := filepath.Join(dir, "f")
		a := startAppend(t, m.path("f"), 65_549)
		a.finish("error: ENOSPC")
		if size := fileSize(t, file); size != a.acked {
			t.Errorf("size on the full file system: got %d, want the %d acknowledged", size, a.acked)
		}
		checkPattern(t, file, 0)
		m.alive()

		// Reading and writing in place need no room.
		run(t, "cmp", m.path("f"), file)
		old := startClient(t, "fd", m.path("old"), "rw")
		old.hear("open")
		for _, step := range []struct{ say, want string }{
			{"pwrite 5000 changed", "7"},
			{"pread 5000 7", `"changed"`},
			{"fsync", "ok"},
		} {
			if got := old.ask("%s", step.say); got != step.want {
				t.Errorf("%s on the full file system: got %s, want %s", step.say, got, step.want)
			}
		}

		run(t, "rm", m.path("ballast"))
		most := a.acked + ballastSize/2
		startAppend(t, m.path("f"), 65_549, most).finish("done")
		old.wait()
		m.unmount()
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
		m := mountT(t, dir)
		run(t, "truncate", "-s", "16000000", m.path("sparse"))
		f := startClient(t, "fd", m.path("sparse"), "rw")
		f.hear("open")
		wantHole := func(off string) {
			t.Helper()
			if got := f.ask("pread %s 2", off); got != `"\x00\x00"` {
				t.Errorf("read of the hole at %s: got %s, want zeros", off, got)
			}
		}
		wantHole(off)
		startAppend(t, m.path("filler"), 65_536).finish("error: ENOSPC")
		startAppend(t, m.path("crumbs"), 1).finish("error: ENOSPC")

		if got := f.ask("pwrite " + off + " lost"); got != "error: ENOSPC" {
			t.Errorf("write into the hole: got %s, want ENOSPC", got)
		}
		wantHole(off)
		wantHole("4000000")
		m.alive()

		mem := startClient(t, "mmap", m.path("sparse"), "shared", "16000000")
		mem.hear("mapped")
		mem.ask("store 12000000 lost")
		if got := mem.ask("msync sync"); !strings.HasPrefix(got, "error: ") {
			t.Errorf("msync of a store into a hole: got %s, want an error", got)
		}
		m.alive()

		run(t, "rm", m.path("ballast"))
		// The kernel may still hold the page that it could not write back.
		mem.kill()
		// Every descriptor learns of the lost store once.
		f.ask("fsync")
		for _, step := range []struct{ say, want string }{
			{"pwrite " + off + " kept", "4"},
			{"pread " + off + " 4", `"kept"`},
			{"fsync", "ok"},
			{"size", "16000000"},
		} {
			if got := f.ask("%s", step.say); got != step.want {
				t.Errorf("with room again, %s: got %s, want %s", step.say, got, step.want)
			}
		}
		f.kill()
		m.unmount()
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
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		run(t, "truncate", "-s", "20000000", m.path("sparse"))
		run(t, "cmp", "-n", "20000000", m.path("sparse"), "/dev/zero")
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
		run(t, "sh", "-c", `cat /dev/zero >"$1/filler" 2>/dev/null; cat /dev/zero >"$1/crumbs" 2>/dev/null; true`, "sh", dir)
		for _, mode := range []string{"private", "staged"} {
			m := mountT(t, dir, "mode="+mode)
			f := startClient(t, "fd", m.path(mode), "rw")
			f.hear("open")
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
				if got, want := f.ask("pwrite %d %s", s.off, s.text), strconv.Itoa(len(s.text)); got != want {
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
				if out, err := runCmd(cmd, clientTimeout); err != nil {
					t.Errorf("%s, %s: %v %s", mode, what, err, out)
				}
			}
			same(m.path(mode), "after the stores")
			// Larger than what is mapped: the memory moves.
			if got := f.ask("truncate 9000000"); got != "ok" {
				t.Errorf("%s: truncate: %s", mode, got)
			}
			model = append(model, make([]byte, 9_000_000-len(model))...)
			same(m.path(mode), "after it grew")
			switch mode {
			case "private":
				run(t, mapfsBin, "msync", "--invalidate", m.path(mode))
				model = make([]byte, 3_000_100)
				copy(model, "begin")
				same(m.path(mode), "after the copies were given up")
			case "staged":
				if got := f.ask("fsync"); got != "error: ENOSPC" {
					t.Errorf("staged: fsync on the full file system: %s, want ENOSPC", got)
				}
				same(m.path(mode), "after the fsync that failed")
				if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
					t.Fatal(err)
				}
				f.ask("fsync") // may tell of the failure once more
				if got := f.ask("fsync"); got != "ok" {
					t.Errorf("staged: fsync with room again: %s", got)
				}
				same(filepath.Join(dir, mode), "BACKING after the fsync")
				same(m.path(mode), "after the fsync")
			}
			f.kill()
			m.alive()
			m.unmount()
		}
	})
}
