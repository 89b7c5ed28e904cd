//go:build linux

package memory

import (
	"bytes"
	"mapfs/internal/need"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDump holds the dump against hexdump(1), byte for byte.
func TestDump(t *testing.T) {
	need.Tool(t, "hexdump")
	repeats := bytes.Repeat([]byte("0123456789abcdef"), 5)
	mixed := append(append(append([]byte{}, repeats...), "different"...), make([]byte, 100)...)
	path := filepath.Join(t.TempDir(), "f")
	for _, data := range [][]byte{nil, []byte("x"), repeats, repeats[:79], repeats[:32], mixed, make([]byte, 4096)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want, err := exec.Command("hexdump", "-C", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, chunk := range []int{1, 7, 16, 17, 1000} {
			var got bytes.Buffer
			d := newDumper(&got, 0)
			for rest := data; len(rest) > 0; {
				n := min(chunk, len(rest))
				if _, err := d.Write(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("%q in chunks of %d:\ngot\n%s\nhexdump\n%s", data, chunk, got.String(), want)
			}
		}
	}
}
