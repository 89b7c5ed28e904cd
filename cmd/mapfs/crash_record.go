//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"mapfs/cmd/mapfs/ctltree"
	"mapfs/fs/crash"
)

// recordingDir is where a report directory has its recording.
func recordingDir(dir string) string { return filepath.Join(dir, "recording") }

// recorder runs a command in a mount with a history that is recorded.
type recorder struct {
	runner
	from  string // the tree to begin with; "" for an empty one
	model crash.Model
	lines io.Writer // gets the promises
}

// record runs the command and leaves its recording in dir, which must be empty. status is
// the command's exit status.
func (r *recorder) record(ctx context.Context, dir string, command []string) (status int, err error) {
	path, err := findCommand(command[0])
	if err != nil {
		return 0, err
	}
	backing, mountpoint := filepath.Join(dir, "backing"), filepath.Join(dir, "mount")
	if r.from == "" {
		err = os.Mkdir(backing, 0o755)
	} else {
		err = copyTree(strings.TrimSuffix(r.from, "/"), backing)
	}
	if err == nil {
		err = os.Mkdir(mountpoint, 0o755)
	}
	if err != nil {
		return 0, err
	}
	recording := recordingDir(dir)
	r.flags.options = append(r.flags.options, "history="+r.model.Name(), "record="+escapeOption(recording))
	if err := startDaemon(r.sys, r.flags, backing, mountpoint); err != nil {
		return 0, err
	}
	status, err = r.inMount(ctx, mountpoint, recording, path, command)
	if unmountErr := r.unmount(ctx, mountpoint); err == nil {
		err = unmountErr
	}
	if err != nil {
		return 0, err
	}
	return status, errors.Join(os.Remove(mountpoint), os.RemoveAll(backing))
}

// escapeOption makes a value one that -o takes whole.
func escapeOption(value string) string {
	return strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(value)
}

// inMount runs the command in the mount; what it prints are promises.
func (r *recorder) inMount(ctx context.Context, mountpoint, recording, path string, command []string) (status int, err error) {
	t, err := findTarget(r.sys, mountpoint)
	if err != nil {
		return 0, err
	}
	promises, err := os.OpenFile(t.control+"/promises", os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	var passed sync.WaitGroup
	passed.Go(func() { passPromises(recording, r.lines, done) })
	r.stdout = promises
	r.env = lineBuffered()
	err = r.execute(mountpoint, path, command)
	promises.Close() // a last line without an end is one, too
	// What is stored through mappings is part of the history.
	_, pendingErr := ctltree.Read(t.control + "/pending")
	close(done)
	passed.Wait()
	var quiet quietError
	switch {
	case errors.As(err, &quiet):
		return quiet.code, pendingErr
	case err != nil:
		return 0, err
	}
	state, err := ctltree.ReadStatus(t.control + "/status")
	if err == nil && strings.Contains(state["recording"], " broken: ") {
		err = fmt.Errorf("the recording is not complete: %s", state["recording"])
	}
	return 0, errors.Join(err, pendingErr)
}

// passPromises writes the promises in a recording to w as they come, until done is closed
// and no more is there.
func passPromises(recording string, w io.Writer, done <-chan struct{}) {
	f, err := os.Open(crash.EventsFile(recording))
	if err != nil {
		return // who explores it says so
	}
	defer f.Close()
	in := bufio.NewReader(f)
	var line []byte
	for last := false; ; {
		part, err := in.ReadBytes('\n')
		line = append(line, part...)
		if err == nil {
			var e crash.Event
			if json.Unmarshal(line, &e) == nil && e.Kind == crash.EventPromise {
				fmt.Fprintln(w, e.Text)
			}
			line = line[:0]
			continue
		}
		if last {
			return
		}
		select {
		case <-done:
			last = true
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lineBuffered returns what in the environment has programs write each line when it is
// complete, as to a terminal, although their standard output is none: the C library's
// (stdbuf(1)) and Python's.
func lineBuffered() []string {
	env := []string{"PYTHONUNBUFFERED=1"}
	for _, pattern := range []string{"/usr/libexec/coreutils/libstdbuf.so", "/usr/lib/*/coreutils/libstdbuf.so", "/usr/lib/coreutils/libstdbuf.so"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			preload := strings.Trim(os.Getenv("LD_PRELOAD")+":"+found[0], ":")
			return append(env, "_STDBUF_O=L", "LD_PRELOAD="+preload)
		}
	}
	return env
}
