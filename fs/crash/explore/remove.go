package explore

import (
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveAll is os.RemoveAll, also of directories whose owner may not write to them: states have
// the modes that the program gave.
func RemoveAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) // before it is read; what fails here, fails below
		}
		return nil
	})
	return os.RemoveAll(dir)
}
