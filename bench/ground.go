package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A ground is a filesystem to measure on: one backing directory on it that every peer
// mirrors. All peers read its shared files, and each writes to a directory of its own.
type ground struct {
	name  string
	dir   string // holds the backing directory and what no mount shows
	peers []*peer
	size  *sizes
}

// What a job can ask for; see job.input.
const (
	inputData  = "data"
	inputFiles = "files"
	inputTree  = "tree"
)

func (g *ground) backing() string { return g.dir + "/backing" }

// path is that of a file beside the backing directory.
func (g *ground) path(name string) string { return g.dir + "/" + name }

func (g *ground) shared(name string) string { return g.backing() + "/shared/" + name }

func (g *ground) own(p *peer, name string) string { return g.backing() + "/" + p.slug() + "/" + name }

// prepare makes the directories and the inputs, before anything is mounted: what
// appears behind a mount's back may stay unseen for as long as its timeouts.
func (g *ground) prepare(ctx context.Context, inputs map[string]bool) error {
	if err := os.MkdirAll(g.shared(""), 0o755); err != nil {
		return err
	}
	for _, p := range g.peers {
		if err := os.MkdirAll(g.own(p, ""), 0o755); err != nil {
			return err
		}
		if inputs[inputData] {
			if err := makeData(g.own(p, "rw"), g.size.random); err != nil {
				return err
			}
		}
	}
	if inputs[inputData] {
		if err := makeData(g.shared("data"), max(g.size.read, g.size.random)); err != nil {
			return err
		}
	}
	if inputs[inputFiles] {
		if err := makeFiles(g.shared("files"), g.size.files); err != nil {
			return err
		}
	}
	if inputs[inputTree] {
		return makeTree(ctx, g.size.trees, g.shared("tree"), g.path("tree.tar"))
	}
	return nil
}

// A workspace is the directory that everything of a run lives in.
type workspace struct {
	dir    string
	mounts *mounter
	tmpfs  string
}

// newWorkspace makes a directory in parent, with a tmpfs in it.
func newWorkspace(parent string) (*workspace, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("run as root: the benchmark mounts a tmpfs, and bindfs and the kernel's passthrough are at their best as root")
	}
	dir, err := os.MkdirTemp(parent, "mapfs-bench-")
	if err != nil {
		return nil, err
	}
	w := &workspace{dir: dir, tmpfs: filepath.Join(dir, "tmpfs"), mounts: newMounter(filepath.Join(dir, "mnt"))}
	if err := os.Mkdir(w.tmpfs, 0o755); err != nil {
		return nil, errors.Join(err, w.close())
	}
	// Its own, so that the machine's limits on inodes do not matter.
	if err := unix.Mount("mapfs-bench", w.tmpfs, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=75%,nr_inodes=0,mode=755"); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting a tmpfs: %w", err), w.close())
	}
	return w, nil
}

// onExt4 reports whether the workspace itself lies on ext4.
func (w *workspace) onExt4() bool {
	var st unix.Statfs_t
	return unix.Statfs(w.dir, &st) == nil && st.Type == unix.EXT4_SUPER_MAGIC
}

// close removes everything, whatever state it is in.
func (w *workspace) close() error {
	err := w.mounts.stopAll()
	if mounted(w.tmpfs) {
		if umountErr := unix.Unmount(w.tmpfs, unix.MNT_DETACH); umountErr != nil {
			err = errors.Join(err, fmt.Errorf("unmounting the tmpfs: %w", umountErr))
		}
	}
	// RemoveAll must not walk into a mount that could not be undone: it would remove
	// the backing files through it.
	for _, dir := range []string{w.mounts.dir, w.tmpfs} {
		if mountedBelow(dir) {
			return errors.Join(err, fmt.Errorf("%s is still mounted", dir))
		}
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// raiseFileLimit lets this process, and so the daemons, open all they are allowed to:
// bindfs and passthrough_hp hold a descriptor for every file that is open or known.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	// Package syscall's, not unix's: after it the runtime hands the limit on to
	// children instead of the one this process was started with.
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
