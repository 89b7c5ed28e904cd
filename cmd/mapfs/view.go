//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/internal/quote"
)

// The viewers (status, maps, events, pages, msync, ctl, watch) know a mount by
// its control tree alone, as any shell script could. What the files in the tree
// hold is described in mapfs-control(5).

// targetKind is what a viewer is asked about.
type targetKind int

const (
	targetMount   targetKind = iota // a mount point or a directory in it
	targetFile                      // a regular file
	targetMapping                   // a directory in .mapfs/mappings
)

// target is where the control tree tells of a path.
type target struct {
	kind       targetKind
	mountpoint string
	control    string // the control tree's root
	// dir is the directory with the status, the pages and the ctl of what was
	// asked for: control itself for a mount.
	dir string
	// name is the path in the mount of a targetFile, as events have it, or the
	// name of a targetMapping.
	name string
}

// errNoMapfs is for paths that lie on other filesystems.
var errNoMapfs = errors.New("is on no mapfs mount")

// findTarget finds the control tree of the mount that path is in.
func findTarget(sys system, path string) (target, error) {
	// The kernel's list of mounts needs no answer from any mount.
	mountpoints, err := sys.mountpoints()
	if err != nil {
		return target{}, err
	}
	return ctltree.Within(ctltree.Limit, path, func() (target, error) {
		return locate(sys, mountpoints, path)
	})
}

// locate is findTarget without its limit of time.
func locate(sys system, mountpoints []string, path string) (target, error) {
	absolute, err := absolutePath(path)
	if err != nil {
		return target{}, explainLookup(path, err)
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return target{}, explainLookup(path, err)
	}
	mountpoint, inside, found := longestPrefix(mountpoints, resolved)
	if !found {
		return target{}, fmt.Errorf("%s %w", quote.Path(path), errNoMapfs)
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return target{}, explainLookup(path, err)
	}
	if same, err := sameFilesystem(info, mountpoint); err != nil {
		return target{}, explainLookup(path, err)
	} else if !same {
		// Something else is mounted in the mapfs, and path is in that.
		return target{}, fmt.Errorf("%s %w", quote.Path(path), errNoMapfs)
	}
	name, err := sys.controlName(mountpoint)
	switch {
	case errors.Is(err, errNoMapfs):
		return target{}, fmt.Errorf("%s %w", quote.Path(path), errNoMapfs)
	case errors.Is(err, syscall.ENODATA), errors.Is(err, syscall.EOPNOTSUPP):
		return target{}, fmt.Errorf("%s: the mount on %s has no control tree (-o control=none)", quote.Path(path), quote.Path(mountpoint))
	case err != nil:
		return target{}, explainLookup(path, err)
	}
	t := target{mountpoint: mountpoint, control: filepath.Join(mountpoint, name)}
	first, rest, _ := strings.Cut(inside, "/")
	switch {
	case first == name:
		t.locateControl(rest)
	case info.IsDir():
		t.kind, t.dir = targetMount, t.control
	case info.Mode().IsRegular():
		t.locateFile(inside)
	default:
		return target{}, fmt.Errorf("%s is neither a regular file nor a directory", quote.Path(path))
	}
	return t, nil
}

// locateControl takes a path inside the control tree for what it tells of: all
// in files/PATH is about the file PATH.
func (t *target) locateControl(inside string) {
	first, rest, _ := strings.Cut(inside, "/")
	switch first {
	case "mappings":
		if name, _, _ := strings.Cut(rest, "/"); name != "" {
			t.kind, t.name, t.dir = targetMapping, name, filepath.Join(t.control, first, name)
			return
		}
	case "files":
		// A directory of BACKING can hold a file named "ctl" too; that has a
		// directory in the tree, so a regular ctl marks a file's directory.
		for name := rest; name != "" && name != "."; name = filepath.Dir(name) {
			if info, err := os.Lstat(filepath.Join(t.control, first, name, "ctl")); err == nil && info.Mode().IsRegular() {
				t.locateFile(name)
				return
			}
		}
	}
	t.kind, t.dir = targetMount, t.control
}

func (t *target) locateFile(name string) {
	t.kind, t.name, t.dir = targetFile, name, filepath.Join(t.control, "files", name)
}

// path is the path of one of the target's files in the control tree.
func (t target) path(name string) string { return filepath.Join(t.dir, name) }

// longestPrefix returns the mount point that path is in, of nested ones the
// inner, and the rest of path.
func longestPrefix(mountpoints []string, path string) (mountpoint, inside string, found bool) {
	for _, m := range mountpoints {
		rest, ok := strings.CutPrefix(path, m)
		if ok && (rest == "" || rest[0] == '/' || m == "/") && (!found || len(m) > len(mountpoint)) {
			mountpoint, inside, found = m, strings.TrimPrefix(rest, "/"), true
		}
	}
	return mountpoint, inside, found
}

func sameFilesystem(info os.FileInfo, mountpoint string) (bool, error) {
	root, err := os.Stat(mountpoint)
	if err != nil {
		return false, err
	}
	a, aOK := info.Sys().(*syscall.Stat_t)
	b, bOK := root.Sys().(*syscall.Stat_t)
	return aOK && bOK && a.Dev == b.Dev, nil
}

// explainLookup says why path cannot be looked at.
func explainLookup(path string, err error) error {
	path = quote.Path(path)
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		// A step into a dead mount fails at its mount point.
		mountpoint := "MOUNTPOINT"
		if failed := (*os.PathError)(nil); errors.As(err, &failed) {
			mountpoint = quote.Path(failed.Path)
		}
		return fmt.Errorf("%s: the mount is dead, its daemon has ended; clear it away with 'mapfs umount %s'", path, mountpoint)
	case errors.As(err, &errno):
		// The path in err can be one that the user never wrote.
		return fmt.Errorf("%s: %w", path, errno)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// findFile is findTarget for the viewers of regular files.
func findFile(sys system, path string) (target, error) {
	t, err := findTarget(sys, path)
	if err == nil && t.kind == targetMount {
		return target{}, fmt.Errorf("%s is a directory; name a regular file", quote.Path(path))
	}
	return t, err
}

// optionalPath is for the viewers of a mount: PATH, or the working directory.
func optionalPath(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return cli.Usagef("unexpected argument %q after PATH", args[1])
	}
	return cli.NotEmpty("PATH", args)
}

// oneFile is for the viewers of a file.
func oneFile(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return cli.Usagef("name a FILE in a mapfs mount")
	case len(args) > 1:
		return cli.Usagef("unexpected argument %q after FILE", args[1])
	}
	return cli.NotEmpty("FILE", args)
}

// pathOrHere is the argument that optionalPath lets through.
func pathOrHere(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// viewers are the commands that read and write control trees.
func viewers(sys system) []*cobra.Command {
	return []*cobra.Command{
		newStatusCommand(sys), newMapsCommand(sys), newEventsCommand(sys), newPagesCommand(sys),
		newWatchCommand(sys), newModeCommand(sys), newMsyncCommand(sys), newPendingCommand(sys), newCtlCommand(sys),
	}
}

// controlAttr is the extended attribute that names the control tree of a mount.
const controlAttr = "user.mapfs.control"

// realControlName asks a mount for the name of its control tree. ENODATA says
// that it has none.
func realControlName(mountpoint string) (string, error) {
	// Something else can be mounted over a mapfs.
	var st unix.Statfs_t
	if err := unix.Statfs(mountpoint, &st); err != nil {
		return "", err
	}
	if st.Type != unix.FUSE_SUPER_MAGIC {
		return "", errNoMapfs
	}
	name := make([]byte, unix.NAME_MAX)
	n, err := unix.Getxattr(mountpoint, controlAttr, name)
	if err != nil {
		return "", err
	}
	return string(name[:n]), nil
}
