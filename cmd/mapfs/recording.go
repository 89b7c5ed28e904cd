//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mapfs/cmd/mapfs/ctltree"
	"mapfs/fs/control"
	"mapfs/fs/crash"
	"mapfs/internal/quote"
)

// prepareRecording makes the directory of a recording, if there is to be one, and copies
// the tree into it as it is before the mount.
func prepareRecording(opts *control.Options) error {
	dir := opts.Record
	if dir == "" {
		return nil
	}
	for _, inside := range []string{opts.Backing, opts.Mountpoint} {
		if rel, err := filepath.Rel(inside, dir); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return fmt.Errorf("-o record=%s: a recording cannot be inside of what it records, %s", dir, inside)
		}
	}
	if err := makeEmpty(dir); err != nil {
		return fmt.Errorf("-o record: %w", err)
	}
	to := crash.InitialDir(dir)
	if err := copyTree(opts.Backing, to); err != nil {
		return fmt.Errorf("-o record: %w", err)
	}
	// What an earlier mount has left of removed files is no part of the tree.
	name := opts.Control
	if name == "" {
		name = control.DefaultName
	}
	return os.RemoveAll(filepath.Join(to, name))
}

// makeEmpty makes a directory, which may be there if it is empty.
func makeEmpty(dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty: it has %s", quote.Path(dir), quote.Path(entries[0].Name()))
	}
	return err
}

// isBroken reports whether the status of a mount says that its recording is not complete.
func isBroken(status ctltree.Status) bool { return strings.Contains(status["recording"], " broken: ") }

// copyTree copies a directory with all that is in it to one that is not there yet.
func copyTree(from, to string) error {
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	return copyInto(from, to)
}

// copyInto copies all that a directory has, and its own attributes, to another one.
func copyInto(from, to string) error {
	out, err := exec.Command("cp", "-a", "--reflink=auto", "--sparse=always", "--", from+"/.", to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", from, err, strings.TrimSpace(string(out)))
	}
	return nil
}
