package explore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"mapfs/fs/crash/image"
)

// ImageName is what a recording of a device calls its image.
const ImageName = "image"

// Image is a checker of states that have the image of a device: the filesystem is mounted,
// which replays its journal, and another checker looks at what is there then.
type Image struct {
	FS image.FS
	// Then looks at the mounted filesystem; nil for nobody.
	Then Checker
}

// Check mounts the image. One that does not mount, or that the filesystem's own program
// finds damaged, is not good.
func (c Image) Check(ctx context.Context, dir string, promises []string) (v Verdict, err error) {
	at := filepath.Join(filepath.Dir(dir), "mounted")
	if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return v, err
	}
	path := filepath.Join(dir, ImageName)
	unmount, err := c.FS.Mount(path, at)
	if err != nil {
		return Verdict{Status: notMounted, Output: fmt.Sprintf("it cannot be mounted: %v\n", err)}, nil
	}
	v.Good = true
	if c.Then != nil {
		v, err = c.Then.Check(ctx, at, promises)
	}
	if err := errors.Join(err, unmount()); err != nil {
		return v, err
	}
	wrong, err := c.FS.Check(path)
	if wrong != "" {
		v.Good = false
		v.Output += wrong
	}
	return v, err
}

// notMounted is the status of an image that cannot be mounted: that of mount(8).
const notMounted = 32
