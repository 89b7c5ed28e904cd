package robust

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// TestAddressSpace runs a daemon in 768 MiB of address space, of which the Go runtime
// takes nearly all for itself: files are read and changed, those too that do not fit,
// and what cannot be had is an errno.
func TestAddressSpace(t *testing.T) {
	need.Tool(t, "prlimit")
	harness.EachFS(t, func(t *testing.T, top string) {
		for _, mode := range []string{"shared", "staged", "private"} {
			t.Run(mode, func(t *testing.T) {
				const files, size = 40, 1 << 20
				dir := harness.SubDir(t, top, mode)
				content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
				for i := range files {
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, "huge"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(filepath.Join(dir, "huge"), 10<<30); err != nil {
					t.Fatal(err)
				}
				m := harness.MountWith(t, dir, harness.MountConfig{Opts: []string{"mode=" + mode}, Wrap: []string{"prlimit", "--as=805306368"}})
				status := harness.Run(t, "cat", m.Path(".mapfs", "status"))
				if !strings.Contains(status, "\nmapped_bytes_limit ") || strings.Contains(status, "\nmapped_bytes_limit 0\n") {
					t.Errorf("status does not tell how much can be mapped:\n%s", status)
				}
				// Eight clients at a time read all files; more is mapped than there is room for.
				out := harness.Run(t, "sh", "-ec", `cd "$1"; seq 0 39 | xargs -P 8 -n 5 cat | md5sum; (for i in $(seq 0 39); do cat "$2/$i"; done) | md5sum`,
					"sh", m.Dir, dir)
				if sums := strings.Fields(out); len(sums) < 3 || sums[0] != sums[2] {
					t.Errorf("checksums of what was read and of what is there: %q", out)
				}
				// Some files are changed in the middle, at the end and in size.
				harness.Run(t, "sh", "-ec", `cd "$1"; for i in 0 1 2; do printf CHANGED | dd of=$i bs=1 seek=5000 conv=notrunc status=none; printf more >>$i; sync $i; done
					truncate -s 5 3; printf '!' >>3; truncate -s 2000000 4`, "sh", m.Dir)
				for i := range 3 {
					got := harness.Run(t, "sh", "-ec", `tail -c +5001 "$1" | head -c 7; tail -c 4 "$1"`, "sh", m.Path(fmt.Sprint(i)))
					harness.Expect(t, got, "CHANGEDmore", fmt.Sprint("file ", i))
				}
				harness.Expect(t, harness.Run(t, "cat", m.Path("3")), "01234!", "the file that was cut")
				harness.Expect(t, harness.Run(t, "sh", "-c", `stat -c %s "$1"; tail -c 1 "$1" | od -An -c`, "sh", m.Path("4")), "2000000\n  \\0\n", "the file that grew")
				// What does not fit can be read, and changed where bytes go to the file.
				harness.Expect(t, harness.Run(t, "sh", "-c", `tail -c 2 "$1" | od -An -c`, "sh", m.Path("huge")), "  \\0  \\0\n", "the end of a file that does not fit")
				_, err := harness.RunErr("sh", "-ec", `printf x | dd of="$1" bs=1 seek=9000000000 conv=notrunc status=none`, "sh", m.Path("huge"))
				if mode == "shared" && err != nil || mode != "shared" && !strings.Contains(fmt.Sprint(err), "Cannot allocate memory") {
					t.Errorf("a write to a file that does not fit: %v", err)
				}
				if _, err := harness.RunErr(harness.Binary, "ctl", m.Dir, "mmap name=small file=5"); err != nil {
					t.Errorf("an explicit mapping: %v", err)
				}
				if _, err := harness.RunErr(harness.Binary, "ctl", m.Dir, "mmap name=huge file=huge"); err == nil || !strings.Contains(err.Error(), "arena") {
					t.Errorf("an explicit mapping that does not fit: %v", err)
				}
				m.Unmount()
				got, err := os.ReadFile(filepath.Join(dir, "0"))
				if err != nil || bytes.HasSuffix(got, []byte("more")) != (mode != "private") {
					t.Errorf("BACKING after the unmount: %d bytes, %v", len(got), err)
				}
			})
		}
	})
}
