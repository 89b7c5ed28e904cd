package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/internal/need"
)

// readOnlyContent is what the files of a read-only BACKING have.
var readOnlyContent = []byte(strings.Repeat("what was there\n", 1000))

// eachReadOnly runs f on directories with the files f, g and program that cannot be
// written to, for different reasons. sentence is what the system says of it.
func eachReadOnly(t *testing.T, f func(t *testing.T, dir, sentence string)) {
	t.Helper()
	need.Root(t)
	fill := func(t *testing.T, dir string) string {
		for _, name := range []string{"f", "g", "program"} {
			if err := os.WriteFile(filepath.Join(dir, name), readOnlyContent, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const readOnly = "Read-only file system"
	t.Run("ext4", func(t *testing.T) {
		dir := fill(t, mountImage(t, "ext4", 32<<20))
		run(t, "mount", "-o", "remount,ro", dir)
		f(t, dir, readOnly)
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := fill(t, tmpfsDir(t))
		run(t, "mount", "-o", "remount,ro", dir)
		f(t, dir, readOnly)
	})
	t.Run("bind", func(t *testing.T) {
		top := tempDir(t)
		dir := subDir(t, top, "bind")
		mountFor(t, dir, "--bind", "-o", "ro", fill(t, subDir(t, top, "writable")), dir)
		f(t, dir, readOnly)
	})
	t.Run("squashfs", func(t *testing.T) {
		need.Tool(t, "mksquashfs")
		top := tempDir(t)
		image, dir := filepath.Join(top, "image"), subDir(t, top, "squashfs")
		run(t, "mksquashfs", fill(t, subDir(t, top, "writable")), image, "-quiet", "-no-progress")
		mountFor(t, dir, "-t", "squashfs", "-o", "loop,ro", image, dir)
		f(t, dir, readOnly)
	})
	t.Run("immutable", func(t *testing.T) {
		need.Tool(t, "chattr")
		dir := fill(t, ext4Dir(t))
		names := []string{filepath.Join(dir, "f"), filepath.Join(dir, "g")}
		run(t, "chattr", append([]string{"+i"}, names...)...)
		t.Cleanup(func() { run(t, "chattr", append([]string{"-i"}, names...)...) })
		f(t, dir, "Operation not permitted")
	})
}

// TestPrivateOnReadOnly: what private files are for works where nothing can be written.
func TestPrivateOnReadOnly(t *testing.T) {
	eachReadOnly(t, func(t *testing.T, dir, sentence string) {
		for _, opts := range [][]string{{"mode=private"}, {"mode=private", "writeback"}} {
			m := mountT(t, dir, opts...)
			file := m.path("f")
			want := bytes.Clone(readOnlyContent)
			check := func(what string) {
				t.Helper()
				got := run(t, "cat", file)
				if got != string(want) {
					t.Errorf("after %s: %d bytes, want %d, or others", what, len(got), len(want))
				}
			}
			run(t, "sh", "-ec", `printf CHANGED | dd of="$1" bs=1 seek=5000 conv=notrunc status=none`, "sh", file)
			copy(want[5000:], "CHANGED")
			check("a write")
			run(t, "sh", "-ec", `printf more >>"$1"`, "sh", file)
			want = append(want, "more"...)
			check("an append")
			run(t, mapfsBin, "poke", file, "9000", "STORED")
			copy(want[9000:], "STORED")
			check("a store through a mapping")
			run(t, "truncate", "-s", "10000", file)
			want = want[:10000]
			check("a truncation")
			run(t, "truncate", "-s", "20000", file)
			want = append(want, make([]byte, 10000)...)
			check("a truncation to a larger size")
			run(t, "sync", file)
			run(t, "sh", "-ec", `echo new >"$1"`, "sh", m.path("g"))
			expect(t, run(t, "cat", m.path("g")), "new\n", "a file that was replaced by >")
			out := run(t, "sh", "-ec", `cd "$1/.mapfs"; cat files/f/backing | cmp - "$2/f"; grep -E '^(mode|size|backing_size)' files/f/status`, "sh", m.dir, dir)
			expect(t, out, "mode private\nsize 20000\nbacking_size 15000\n", "control tree")
			run(t, mapfsBin, "ctl", m.dir, "mmap name=m file=g")
			run(t, "sh", "-ec", `head -c 15000 "$1/.mapfs/mappings/m/memory" | cmp - "$2/g"`, "sh", m.dir, dir)

			// Names and everything else that is BACKING's stay so.
			refused := func(name string, args ...string) {
				t.Helper()
				if out, err := runErr(name, args...); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(sentence)) {
					t.Errorf("%s %q: %s %v, want %q", name, args, out, err, sentence)
				}
			}
			refused("chmod", "600", file)
			refused("rm", file)
			refused("mv", file, m.path("h"))
			refused("touch", "-d", "2000-01-01", file)
			if sentence == "Read-only file system" {
				refused("touch", m.path("new"))
				refused(mapfsBin, "mode", m.path("program"), "staged")
			}
			m.unmount()
			for _, name := range []string{"f", "g"} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, readOnlyContent) {
					t.Errorf("BACKING's %s has changed, %v", name, err)
				}
			}
		}
		for _, mode := range []string{"shared", "staged"} {
			m := mountT(t, dir, "mode="+mode)
			if _, err := runErr("sh", "-c", `echo x >>"$1"`, "sh", m.path("f")); err == nil || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: a write: %v, want %q", mode, err, sentence)
			}
			m.unmount()
		}
	})
}

// TestPrivateOfARunningProgram: a program that runs can be changed privately, and goes
// on to run.
func TestPrivateOfARunningProgram(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		program := filepath.Join(dir, "sleep")
		run(t, "sh", "-ec", `cp "$(command -v sleep)" "$1"`, "sh", program)
		m := mountT(t, dir, "mode=private")
		running := startProc(t, exec.Command(program, "60"))
		run(t, "sh", "-ec", `printf changed | dd of="$1" conv=notrunc status=none; head -c 7 "$1"`, "sh", m.path("sleep"))
		expect(t, run(t, "head", "-c", "7", m.path("sleep")), "changed", "the changed program")
		running.kill()
		run(t, program, "0") // in BACKING it is as before
		m.unmount()
	})
}
