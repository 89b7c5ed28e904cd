package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/internal/need"
)

// startHold starts `mapfs hold` and reads its first line.
func startHold(t *testing.T, args ...string) *proc {
	t.Helper()
	p := startProc(t, exec.Command(mapfsBin, append([]string{"hold"}, args...)...))
	if first := p.line(); !strings.HasSuffix(first, " "+args[len(args)-1]) {
		t.Fatalf("hold %q: the first line is %q", args, first)
	}
	return p
}

func expect(t *testing.T, got, want, what string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %.200q, want %.200q", what, got, want)
	}
}

func makeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestVerbsHold lets two processes hold one mounted file. What one stores the
// other loads, the mount's read(2) gives it, and after msync BACKING has it.
func TestVerbsHold(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		p := os.Getpagesize()
		makeFile(t, filepath.Join(dir, "f"), strings.Repeat(".", 3*p+5))
		m := mountT(t, dir)
		file := m.path("f")
		one, two := startHold(t, file), startHold(t, file)
		private := startHold(t, "--private", file)
		// Each from one page to the next.
		across := fmt.Sprint(p - 2)
		expect(t, one.ask("store %s from-one", across), "ok", "one stores")
		expect(t, two.ask("load %s 8", across), `"from-one"`, "two loads")
		expect(t, private.ask("load %s 8", across), `"from-one"`, "the private one loads")
		expect(t, private.ask("store %s nobody.!", across), "ok", "the private one stores")
		expect(t, private.ask("load %s 8", across), `"nobody.!"`, "the private one loads its copy")
		expect(t, one.ask("load %s 8", across), `"from-one"`, "one loads")
		expect(t, two.ask("store %d from-two", 2*p), "ok", "two stores")
		expect(t, one.ask("load %d 8", 2*p), `"from-two"`, "one loads")

		expect(t, run(t, mapfsBin, "peek", "--raw", "--offset", across, "--length", "8", file), "from-one", "peek")
		expect(t, run(t, "sh", "-c", `tail -c +$2 "$1" | head -c 8`, "sh", file, fmt.Sprint(p-1)), "from-one", "read(2)")
		run(t, mapfsBin, "poke", file, fmt.Sprint(3*p), "poked")
		expect(t, two.ask("load %d 5", 3*p), `"poked"`, "two loads what was poked")
		run(t, "sh", "-c", `printf written | dd of="$1" bs=1 seek=10 conv=notrunc status=none`, "sh", file)
		expect(t, one.ask("load 9 9"), `".written."`, "one loads what was written")

		for _, hold := range []*proc{one, two} {
			expect(t, hold.ask("msync sync"), "ok", "msync")
		}
		want := []byte(strings.Repeat(".", 3*p+5))
		for off, text := range map[int]string{p - 2: "from-one", 2 * p: "from-two", 3 * p: "poked", 10: "written"} {
			copy(want[off:], text)
		}
		got, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		expect(t, string(got), string(want), "BACKING after msync")
		for _, hold := range []*proc{one, two, private} {
			hold.wait()
		}
	})
}

// TestVerbsFaults ends processes by what a mounted file cannot give: the status
// is that of the signal.
func TestVerbsFaults(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		p := os.Getpagesize()
		makeFile(t, filepath.Join(dir, "f"), strings.Repeat("x", p+10))
		m := mountT(t, dir)
		file := m.path("f")
		size := fmt.Sprintf("; the file has %d bytes in 2 pages", p+10)
		page2, past := fmt.Sprint(2*p), "the page lies wholly past the end of the file"
		tests := []struct {
			args []string
			code int
			says string
		}{
			{[]string{"peek", "--raw", "--length", page2, file}, 0, ""},
			{[]string{"peek", "--offset", page2, "--length", "1", file}, 135, "SIGBUS: load at address 0x"},
			{[]string{"peek", "--offset", page2, "--length", "1", file}, 135, fmt.Sprintf("page 2 of %s (offset %d): %s%s", file, 2*p, past, size)},
			{[]string{"poke", file, page2, "x"}, 135, past + size},
			{[]string{"peek", "--prot", "none", file}, 139, "its protection, ---, forbids a load" + size},
			{[]string{"poke", "--prot", "r", file, "0", "x"}, 139, "its protection, r--, forbids a store" + size},
			{[]string{"hold", "--offset", "1", file}, 1, "invalid argument (EINVAL): offset 1 is not a multiple of the page size"},
		}
		for _, test := range tests {
			_, err := runErr(mapfsBin, test.args...)
			if exitCode(err) != test.code || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("mapfs %q: got %v, want status %d and %q", test.args, err, test.code, test.says)
			}
		}

		// A file that somebody else cuts under a mapping.
		hold := startHold(t, file)
		expect(t, hold.ask("load %d 3", p), `"xxx"`, "before the cut")
		run(t, "truncate", "-s", "1", file)
		expect(t, hold.ask("size"), "1", "size after the cut")
		expect(t, hold.ask("load 0 3"), `"x\x00\x00"`, "the last page after the cut")
		hold.say("load %d 3", p)
		err := hold.waitErr()
		if exitCode(err) != 135 || !strings.Contains(err.Error(), fmt.Sprintf("which was cut from %d bytes since; the file has 1 byte in 1 page", p+10)) {
			t.Errorf("load past the cut: got %v", err)
		}
		expect(t, run(t, "cat", file), "x", "the file at the end")
	})
}

// TestVerbsPokeNoSpace stores to a hole of a full filesystem, which is SIGBUS on
// a page that the file has.
func TestVerbsPokeNoSpace(t *testing.T) {
	need.Root(t)
	dir := subDir(t, tempDir(t), "full")
	mountFor(t, dir, "-t", "tmpfs", "-o", "size=64k", "mapfs-test", dir)
	file := filepath.Join(dir, "holes")
	run(t, "truncate", "-s", "1M", file)
	_, err := runErr(mapfsBin, "poke", file, "0", strings.Repeat("x", 100<<10))
	if exitCode(err) != 135 || !strings.Contains(err.Error(), "its filesystem cannot give it: no space is left for it, or the device failed") {
		t.Errorf("got %v", err)
	}
}

// TestVerbsIPC moves messages through a mounted file.
func TestVerbsIPC(t *testing.T) {
	eachFS(t, func(t *testing.T, dir string) {
		m := mountT(t, dir)
		out := run(t, mapfsBin, "ipc", "--via", "mapping,pipe", "--dir", m.dir, "--count", "300")
		if !strings.Contains(out, " mapping ") || strings.Count(out, " 901") != 4 {
			t.Errorf("got\n%s\nwant 901 whole messages through both", out)
		}
		out = run(t, mapfsBin, "ipc", "--via", "mapping", "--no-sync", "--dir", m.dir, "--count", "300")
		if !strings.Contains(out, " nothing ") {
			t.Errorf("--no-sync: got\n%s", out)
		}
		expect(t, run(t, "ls", "-A", m.dir), "", "left in the mount")
		m.unmount()
		expect(t, run(t, "ls", "-A", dir), "", "left in BACKING")
	})
}

// TestVerbsManual holds the man page's lists of the commands of hold and of the
// media of ipc to the program.
func TestVerbsManual(t *testing.T) {
	page := readManual(t, "mapfs.1")
	file := filepath.Join(tempDir(t), "f")
	makeFile(t, file, "x")
	hold := startHold(t, file)
	hold.say("help")
	hold.say("quit")
	var commands []string
	for line := range hold.lines {
		if name, found := strings.CutPrefix(line, "  "); found && !strings.HasPrefix(name, " ") {
			commands = append(commands, strings.Fields(name)[0])
		}
	}
	hold.wait()
	sameNames(t, "commands of hold", page.first(t, "hold"), commands)

	_, err := runErr(mapfsBin, "ipc", "--via", "nosuch")
	if err == nil {
		t.Fatal("ipc knows a medium nosuch")
	}
	_, list, _ := strings.Cut(err.Error(), "choose ")
	list, _, _ = strings.Cut(list, ";")
	sameNames(t, "media of ipc", page.first(t, "media"), strings.Split(list, ", "))
}
