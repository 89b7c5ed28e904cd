//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mapfs/fs/control"
	"mapfs/fs/crash"
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
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("-o record: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("-o record: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("-o record=%s: the directory is not empty: it has %s", dir, entries[0].Name())
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
