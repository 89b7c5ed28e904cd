package verbs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestVerbsHold lets two processes hold one mounted file. What one stores the
// other loads, the mount's read(2) gives it, and after msync BACKING has it.
func TestVerbsHold(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		p := os.Getpagesize()
		harness.MakeFile(t, filepath.Join(dir, "f"), strings.Repeat(".", 3*p+5))
		m := harness.Mount(t, dir)
		file := m.Path("f")
		one, two := harness.StartHold(t, file), harness.StartHold(t, file)
		private := harness.StartHold(t, "--private", file)
		// Each from one page to the next.
		across := fmt.Sprint(p - 2)
		harness.Expect(t, one.Ask("store %s from-one", across), "ok", "one stores")
		harness.Expect(t, two.Ask("load %s 8", across), `"from-one"`, "two loads")
		harness.Expect(t, private.Ask("load %s 8", across), `"from-one"`, "the private one loads")
		harness.Expect(t, private.Ask("store %s nobody.!", across), "ok", "the private one stores")
		harness.Expect(t, private.Ask("load %s 8", across), `"nobody.!"`, "the private one loads its copy")
		harness.Expect(t, one.Ask("load %s 8", across), `"from-one"`, "one loads")
		harness.Expect(t, two.Ask("store %d from-two", 2*p), "ok", "two stores")
		harness.Expect(t, one.Ask("load %d 8", 2*p), `"from-two"`, "one loads")

		harness.Expect(t, harness.Run(t, harness.Binary, "peek", "--raw", "--offset", across, "--length", "8", file), "from-one", "peek")
		harness.Expect(t, harness.Run(t, "sh", "-c", `tail -c +$2 "$1" | head -c 8`, "sh", file, fmt.Sprint(p-1)), "from-one", "read(2)")
		harness.Run(t, harness.Binary, "poke", file, fmt.Sprint(3*p), "poked")
		harness.Expect(t, two.Ask("load %d 5", 3*p), `"poked"`, "two loads what was poked")
		harness.Run(t, "sh", "-c", `printf written | dd of="$1" bs=1 seek=10 conv=notrunc status=none`, "sh", file)
		harness.Expect(t, one.Ask("load 9 9"), `".written."`, "one loads what was written")

		for _, hold := range []*harness.Process{one, two} {
			harness.Expect(t, hold.Ask("msync sync"), "ok", "msync")
		}
		want := []byte(strings.Repeat(".", 3*p+5))
		for off, text := range map[int]string{p - 2: "from-one", 2 * p: "from-two", 3 * p: "poked", 10: "written"} {
			copy(want[off:], text)
		}
		got, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		harness.Expect(t, string(got), string(want), "BACKING after msync")
		for _, hold := range []*harness.Process{one, two, private} {
			hold.Wait()
		}
	})
}

// TestVerbsFaults ends processes by what a mounted file cannot give: the status
// is that of the signal.
func TestVerbsFaults(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		p := os.Getpagesize()
		harness.MakeFile(t, filepath.Join(dir, "f"), strings.Repeat("x", p+10))
		m := harness.Mount(t, dir)
		file := m.Path("f")
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
			_, err := harness.RunErr(harness.Binary, test.args...)
			if harness.ExitCode(err) != test.code || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("mapfs %q: got %v, want status %d and %q", test.args, err, test.code, test.says)
			}
		}

		// A file that somebody else cuts under a mapping.
		hold := harness.StartHold(t, file)
		harness.Expect(t, hold.Ask("load %d 3", p), `"xxx"`, "before the cut")
		harness.Run(t, "truncate", "-s", "1", file)
		harness.Expect(t, hold.Ask("size"), "1", "size after the cut")
		harness.Expect(t, hold.Ask("load 0 3"), `"x\x00\x00"`, "the last page after the cut")
		hold.Say("load %d 3", p)
		err := hold.WaitErr()
		if harness.ExitCode(err) != 135 || !strings.Contains(err.Error(), fmt.Sprintf("which was cut from %d bytes since; the file has 1 byte in 1 page", p+10)) {
			t.Errorf("load past the cut: got %v", err)
		}
		harness.Expect(t, harness.Run(t, "cat", file), "x", "the file at the end")
	})
}

// TestVerbsPokeNoSpace stores to a hole of a full filesystem, which is SIGBUS on
// a page that the file has.
func TestVerbsPokeNoSpace(t *testing.T) {
	need.Root(t)
	dir := harness.SubDir(t, harness.TempDir(t), "full")
	harness.MountFor(t, dir, "-t", "tmpfs", "-o", "size=64k", "mapfs-test", dir)
	file := filepath.Join(dir, "holes")
	harness.Run(t, "truncate", "-s", "1M", file)
	_, err := harness.RunErr(harness.Binary, "poke", file, "0", strings.Repeat("x", 100<<10))
	if harness.ExitCode(err) != 135 || !strings.Contains(err.Error(), "its filesystem cannot give it: no space is left for it, or the device failed") {
		t.Errorf("got %v", err)
	}
}

// TestVerbsIPC moves messages through a mounted file.
func TestVerbsIPC(t *testing.T) {
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		out := harness.Run(t, harness.Binary, "ipc", "--via", "mapping,pipe", "--dir", m.Dir, "--count", "300")
		if !strings.Contains(out, " mapping ") || strings.Count(out, " 901") != 4 {
			t.Errorf("got\n%s\nwant 901 whole messages through both", out)
		}
		out = harness.Run(t, harness.Binary, "ipc", "--via", "mapping", "--no-sync", "--dir", m.Dir, "--count", "300")
		if !strings.Contains(out, " nothing ") {
			t.Errorf("--no-sync: got\n%s", out)
		}
		harness.Expect(t, harness.Run(t, "ls", "-A", m.Dir), "", "left in the mount")
		m.Unmount()
		harness.Expect(t, harness.Run(t, "ls", "-A", dir), "", "left in BACKING")
	})
}
