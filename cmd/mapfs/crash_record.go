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

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/fs/crash/image"
	"mapfs/internal/quote"
)

// recordingDir is where a report directory has its recording.
func recordingDir(dir string) string { return filepath.Join(dir, "recording") }

// about is what a recording tells beside what was done: the command, and the filesystem
// whose device was recorded, "" if files were.
type about struct {
	Command []string `json:"command"`
	Device  string   `json:"device,omitzero"`
}

// aboutFile is where a recording has it.
func aboutFile(recording string) string { return filepath.Join(recording, "about.json") }

// readAbout returns it; one of a mount that somebody else has made has none.
func readAbout(recording string) (a about, err error) {
	text, err := os.ReadFile(aboutFile(recording))
	if errors.Is(err, os.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	return a, err
}

// recorder runs a command in a mount with a history that is recorded, or on a filesystem
// whose device is in such a mount.
type recorder struct {
	runner
	from   string // the tree to begin with; "" for an empty one
	model  crash.Model
	device image.FS  // of no name for none
	lines  io.Writer // gets the promises
}

// record runs the command and leaves its recording in dir, which must be empty. status is
// the command's exit status.
func (r *recorder) record(ctx context.Context, dir string, command []string) (status int, err error) {
	path, err := findCommand(command[0])
	if err != nil {
		return 0, err
	}
	backing, mountpoint := filepath.Join(dir, "backing"), filepath.Join(dir, "mount")
	if err := errors.Join(r.prepare(dir, backing), os.Mkdir(mountpoint, 0o755)); err != nil {
		return 0, err
	}
	recording := recordingDir(dir)
	r.flags.options = append(r.flags.options, "history="+r.model.Name(), "record="+quote.Option(recording))
	if err := startDaemon(r.sys, r.flags, backing, mountpoint); err != nil {
		return 0, err
	}
	run := recordedRun{recorder: r, mountpoint: mountpoint, recording: recording, at: mountpoint}
	status, err = run.all(dir, path, command)
	if unmountErr := r.unmount(ctx, mountpoint); err == nil {
		err = unmountErr
	}
	if err != nil {
		return 0, err
	}
	text, err := json.Marshal(about{command, r.device.Name})
	return status, errors.Join(err, os.WriteFile(aboutFile(recording), text, 0o666), run.cutOff(),
		os.Remove(mountpoint), explore.RemoveAll(backing))
}

// prepare makes the directory that is mounted.
func (r *recorder) prepare(dir, backing string) error {
	from := strings.TrimSuffix(r.from, "/")
	switch {
	case r.device.Name == "" && from != "":
		return copyTree(from, backing)
	case r.device.Name == "":
		return os.Mkdir(backing, 0o755)
	}
	at := filepath.Join(dir, "device")
	path := filepath.Join(backing, explore.ImageName)
	if err := errors.Join(os.Mkdir(backing, 0o755), os.Mkdir(at, 0o755)); err != nil {
		return err
	}
	if err := r.device.Make(path); err != nil || from == "" {
		return err
	}
	unmount, err := r.device.Mount(path, at)
	if err != nil {
		return err
	}
	return errors.Join(copyInto(from, at), unmount())
}

// recordedRun is a command that runs while it is recorded.
type recordedRun struct {
	*recorder
	mountpoint, recording string
	at                    string // where the command runs
	end                   int64  // of the recording, in bytes, as the command has ended
}

// all runs the command, on the device if there is one.
func (s *recordedRun) all(dir, path string, command []string) (status int, err error) {
	if s.device.Name != "" {
		s.at = filepath.Join(dir, "device")
		unmount, mountErr := s.device.Mount(filepath.Join(s.mountpoint, explore.ImageName), s.at)
		if mountErr != nil {
			return 0, mountErr
		}
		defer func() { err = errors.Join(err, unmount(), os.Remove(s.at)) }()
	}
	return s.run(path, command)
}

// cutOff takes from the recording what came after the end of the command: the end of the
// filesystem on the device.
func (s *recordedRun) cutOff() error {
	if s.device.Name == "" {
		return nil
	}
	return os.Truncate(crash.EventsFile(s.recording), s.end)
}

// run runs the command; what it prints are promises.
func (s *recordedRun) run(path string, command []string) (status int, err error) {
	t, err := findTarget(s.sys, s.mountpoint)
	if err != nil {
		return 0, err
	}
	promises, err := os.OpenFile(t.control+"/promises", os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	var passed sync.WaitGroup
	passed.Go(func() { passPromises(s.recording, s.lines, done) })
	s.stdout = promises
	s.env = lineBuffered()
	err = s.execute(s.at, path, command)
	promises.Close() // a last line without an end is one, too
	// What is stored through mappings is part of the history.
	_, pendingErr := ctltree.Read(t.control + "/pending")
	close(done)
	passed.Wait()
	var quiet cli.Quiet
	if errors.As(err, &quiet) {
		status, err = quiet.Code, nil
	}
	state, statusErr := ctltree.ReadStatus(t.control + "/status")
	if err := errors.Join(err, pendingErr, statusErr); err != nil {
		return 0, err
	}
	if isBroken(state) {
		return 0, fmt.Errorf("the recording is not complete: %s", state["recording"])
	}
	st, err := os.Stat(crash.EventsFile(s.recording))
	if err == nil {
		s.end = st.Size()
	}
	return status, err
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
