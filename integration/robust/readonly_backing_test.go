package robust

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
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
		dir := fill(t, harness.MountImage(t, "ext4", 32<<20))
		harness.Run(t, "mount", "-o", "remount,ro", dir)
		f(t, dir, readOnly)
	})
	t.Run("tmpfs", func(t *testing.T) {
		dir := fill(t, harness.TmpfsDir(t))
		harness.Run(t, "mount", "-o", "remount,ro", dir)
		f(t, dir, readOnly)
	})
	t.Run("bind", func(t *testing.T) {
		top := harness.TempDir(t)
		dir := harness.SubDir(t, top, "bind")
		harness.MountFor(t, dir, "--bind", "-o", "ro", fill(t, harness.SubDir(t, top, "writable")), dir)
		f(t, dir, readOnly)
	})
	t.Run("squashfs", func(t *testing.T) {
		need.Tool(t, "mksquashfs")
		top := harness.TempDir(t)
		image, dir := filepath.Join(top, "image"), harness.SubDir(t, top, "squashfs")
		harness.Run(t, "mksquashfs", fill(t, harness.SubDir(t, top, "writable")), image, "-quiet", "-no-progress")
		harness.MountFor(t, dir, "-t", "squashfs", "-o", "loop,ro", image, dir)
		f(t, dir, readOnly)
	})
	t.Run("immutable", func(t *testing.T) {
		need.Tool(t, "chattr")
		dir := fill(t, harness.Ext4Dir(t))
		names := []string{filepath.Join(dir, "f"), filepath.Join(dir, "g")}
		harness.Run(t, "chattr", append([]string{"+i"}, names...)...)
		t.Cleanup(func() { harness.Run(t, "chattr", append([]string{"-i"}, names...)...) })
		f(t, dir, "Operation not permitted")
	})
}

// TestPrivateOnReadOnly: what private files are for works where nothing can be written.
func TestPrivateOnReadOnly(t *testing.T) {
	eachReadOnly(t, func(t *testing.T, dir, sentence string) {
		for _, opts := range [][]string{{"mode=private"}, {"mode=private", "writeback"}} {
			m := harness.Mount(t, dir, opts...)
			file := m.Path("f")
			want := bytes.Clone(readOnlyContent)
			check := func(what string) {
				t.Helper()
				got := harness.Run(t, "cat", file)
				if got != string(want) {
					t.Errorf("after %s: %d bytes, want %d, or others", what, len(got), len(want))
				}
			}
			harness.Run(t, "sh", "-ec", `printf CHANGED | dd of="$1" bs=1 seek=5000 conv=notrunc status=none`, "sh", file)
			copy(want[5000:], "CHANGED")
			check("a write")
			harness.Run(t, "sh", "-ec", `printf more >>"$1"`, "sh", file)
			want = append(want, "more"...)
			check("an append")
			harness.Run(t, harness.Binary, "poke", file, "9000", "STORED")
			copy(want[9000:], "STORED")
			check("a store through a mapping")
			harness.Run(t, "truncate", "-s", "10000", file)
			want = want[:10000]
			check("a truncation")
			harness.Run(t, "truncate", "-s", "20000", file)
			want = append(want, make([]byte, 10000)...)
			check("a truncation to a larger size")
			harness.Run(t, "sync", file)
			harness.Run(t, "sh", "-ec", `echo new >"$1"`, "sh", m.Path("g"))
			harness.Expect(t, harness.Run(t, "cat", m.Path("g")), "new\n", "a file that was replaced by >")
			out := harness.Run(t, "sh", "-ec", `cd "$1/.mapfs"; cat files/f/backing | cmp - "$2/f"; grep -E '^(mode|size|backing_size)' files/f/status`, "sh", m.Dir, dir)
			harness.Expect(t, out, "mode private\nsize 20000\nbacking_size 15000\n", "control tree")
			harness.Run(t, harness.Binary, "ctl", m.Dir, "mmap name=m file=g")
			harness.Run(t, "sh", "-ec", `head -c 15000 "$1/.mapfs/mappings/m/memory" | cmp - "$2/g"`, "sh", m.Dir, dir)

			// Names and everything else that is BACKING's stay so.
			refused := func(name string, args ...string) {
				t.Helper()
				if out, err := harness.RunErr(name, args...); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(sentence)) {
					t.Errorf("%s %q: %s %v, want %q", name, args, out, err, sentence)
				}
			}
			refused("chmod", "600", file)
			refused("rm", file)
			refused("mv", file, m.Path("h"))
			refused("touch", "-d", "2000-01-01", file)
			if sentence == "Read-only file system" {
				refused("touch", m.Path("new"))
				refused(harness.Binary, "mode", m.Path("program"), "staged")
			}
			m.Unmount()
			for _, name := range []string{"f", "g"} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, readOnlyContent) {
					t.Errorf("BACKING's %s has changed, %v", name, err)
				}
			}
		}
		for _, mode := range []string{"shared", "staged"} {
			m := harness.Mount(t, dir, "mode="+mode)
			if _, err := harness.RunErr("sh", "-c", `echo x >>"$1"`, "sh", m.Path("f")); err == nil || !strings.Contains(err.Error(), sentence) {
				t.Errorf("%s: a write: %v, want %q", mode, err, sentence)
			}
			m.Unmount()
		}
	})
}

// TestPrivateOfARunningProgram: a program that runs can be changed privately, and goes
// on to run.
func TestPrivateOfARunningProgram(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		program := filepath.Join(dir, "sleep")
		harness.Run(t, "sh", "-ec", `cp "$(command -v sleep)" "$1"`, "sh", program)
		m := harness.Mount(t, dir, "mode=private")
		running := harness.StartProc(t, exec.Command(program, "60"))
		harness.Run(t, "sh", "-ec", `printf changed | dd of="$1" conv=notrunc status=none; head -c 7 "$1"`, "sh", m.Path("sleep"))
		harness.Expect(t, harness.Run(t, "head", "-c", "7", m.Path("sleep")), "changed", "the changed program")
		running.Kill()
		harness.Run(t, program, "0") // in BACKING it is as before
		m.Unmount()
	})
}
