package mapping

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mapfs/internal/filetest"
)

func TestOpenFile(t *testing.T) {
	filetest.OnEachFS(t, func(t *testing.T, dir string) {
		table := newTestTable(t, Config{}, nil)
		path := filepath.Join(dir, "f")
		for _, bad := range []struct {
			path string
			flag int
			want syscall.Errno
		}{
			{path, os.O_RDWR, syscall.ENOENT},
			{path, os.O_WRONLY | os.O_CREATE, syscall.EINVAL},
			{path, os.O_RDWR | os.O_CREATE | os.O_APPEND, syscall.EINVAL},
			{path, os.O_RDWR | os.O_CREATE | os.O_TRUNC, syscall.EINVAL},
			{dir, os.O_RDONLY, syscall.EINVAL},
		} {
			if _, err := table.OpenFile(bad.path, bad.flag, 0o600); !errors.Is(err, bad.want) {
				t.Errorf("OpenFile(%s, %#x): %v, want %v", bad.path, bad.flag, err, bad.want)
			}
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused OpenFile has made the file: %v", err)
		}
		f, err := table.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Release(false)
		if f.Name() != path || !f.Writable() || !f.Readable() {
			t.Errorf("opened as %q, writable %v, readable %v", f.Name(), f.Writable(), f.Readable())
		}
		again, err := table.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if again != f {
			t.Error("one inode is two files")
		}
		again.Release(true)
	})
}
