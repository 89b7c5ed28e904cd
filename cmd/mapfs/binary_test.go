//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBinary runs the built command where no mount comes about: usage errors,
// refusals, and what a daemon that fails leaves behind.
func TestBinary(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "mapfs")
	if output, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	for _, name := range []string{"data", "empty", "full/sub"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		args string
		want outcome
	}{
		{"", outcome{exitUsage, "", "mapfs: name the directories BACKING and MOUNTPOINT; see 'mapfs --help'\n"}},
		{"data empty -o frob", outcome{exitUsage, "", "mapfs: -o frob: unknown option \"frob\"; see 'mapfs --help'\n"}},
		{"no empty", outcome{exitFailed, "", "mapfs: backing directory DIR/no does not exist; create it, or check the path\n"}},
		{"-f no empty", outcome{exitFailed, "", "mapfs: backing directory DIR/no does not exist; create it, or check the path\n"}},
		{"data full", outcome{exitFailed, "", "mapfs: mountpoint DIR/full is not empty; choose an empty directory, or hide its files with '-o nonempty'\n"}},
		{"data data", outcome{exitFailed, "", "mapfs: backing directory and mountpoint are the same directory, DIR/data; mount on another one\n"}},
		{"data empty --log-file no/log", outcome{exitFailed, "", "mapfs: log file: open DIR/no/log: no such file or directory\n"}},
		{"umount empty", outcome{exitFailed, "", "mapfs: empty: not a mapfs mount\n"}},
		{"umount no", outcome{exitFailed, "", "mapfs: no: not a mapfs mount\n"}},
	}
	for _, test := range tests {
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), binary, strings.Fields(test.args)...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
		// A daemon that stays behind would keep the pipes of the output open.
		cmd.WaitDelay = 10 * time.Second
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Errorf("mapfs %s: %v", test.args, err)
		}
		got := outcome{cmd.ProcessState.ExitCode(), stdout.String(), strings.ReplaceAll(stderr.String(), dir, "DIR")}
		if got != test.want {
			t.Errorf("mapfs %s:\ngot  %+v\nwant %+v", test.args, got, test.want)
		}
	}
}
