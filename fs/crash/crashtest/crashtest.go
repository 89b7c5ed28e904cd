// Package crashtest is for Go tests: would what a program writes survive a power cut?
//
//	func TestStore(t *testing.T) {
//		crashtest.Run(t,
//			func(dir string, promise func(string)) error {
//				s := Open(dir)
//				for i := range 10 {
//					if err := s.Commit(i); err != nil {
//						return err
//					}
//					promise(strconv.Itoa(i)) // from here on it must be there
//				}
//				return nil
//			},
//			func(dir string, promises []string) error {
//				return Open(dir).Has(promises)
//			})
//	}
//
// The workload runs in the test's process, in a mount that a process of its own serves. It
// needs the command mapfs, and what a mount needs.
package crashtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/internal/quote"
)

// Workload does in dir what is to be tested, and calls promise with what it has made
// durable, each time it says so.
type Workload func(dir string, promise func(text string)) error

// Check returns an error if what a power cut has left in dir, where it may change all it
// likes, is not good, given what was promised before.
type Check func(dir string, promises []string) error

// Command is the program that mounts: a name that the PATH leads to, or a path.
var Command = "mapfs"

// Run runs a workload, makes the states that a power cut could have left at each moment, and
// checks each. What is not good fails a subtest, of each sort one, which tells the smallest
// loss that is enough and the sync that is missing.
func Run(t *testing.T, workload Workload, check Check, change ...func(*explore.Options)) {
	t.Helper()
	report, err := Explore(t.Context(), t.TempDir(), workload, check, change...)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Complete {
		t.Logf("the search is not complete after %d states: its budget is used up", report.States)
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		t.Run(fmt.Sprint("finding ", f.ID), func(t *testing.T) {
			t.Errorf("%s\n%s", report.Story(f), f.Output)
		})
	}
}

// Explore is Run without a test. dir is a directory that is empty. What change is given are
// the options of the search: by the rules of POSIX, for a minute at most.
func Explore(ctx context.Context, dir string, workload Workload, check Check, change ...func(*explore.Options)) (*explore.Report, error) {
	recording := filepath.Join(dir, "recording")
	if err := record(dir, recording, workload); err != nil {
		return nil, err
	}
	o := explore.Options{
		Model: crash.Posix{}, Checker: checker{check}, Budget: time.Minute, Seed: 1, Torn: 512, Jobs: runtime.NumCPU(), Dir: filepath.Join(dir, "work"),
	}
	for _, c := range change {
		c(&o)
	}
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if o.Recording, err = crash.OpenRecording(recording); err != nil {
		return nil, err
	}
	defer o.Recording.Close()
	return explore.Run(ctx, o)
}

// record runs a workload in a mount that is recorded.
func record(dir, recording string, workload Workload) (err error) {
	backing, mountpoint := filepath.Join(dir, "backing"), filepath.Join(dir, "mount")
	if err := errors.Join(os.Mkdir(backing, 0o755), os.Mkdir(mountpoint, 0o755)); err != nil {
		return err
	}
	option := "history,record=" + quote.Option(recording)
	if err := mapfs("-o", option, backing, mountpoint); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mapfs("umount", mountpoint)) }()
	promises, err := os.OpenFile(filepath.Join(mountpoint, ".mapfs", "promises"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer promises.Close()
	var promiseErr error
	err = workload(mountpoint, func(text string) {
		_, err := promises.WriteString(strings.ReplaceAll(text, "\n", " ") + "\n")
		promiseErr = errors.Join(promiseErr, err)
	})
	return errors.Join(err, promiseErr)
}

// mapfs runs the command.
func mapfs(args ...string) error {
	out, err := exec.Command(Command, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", Command, strings.Join(args, " "), err, out)
	}
	return nil
}

// checker is a Check for a search.
type checker struct{ check Check }

func (c checker) Check(_ context.Context, dir string, promises []string) (explore.Verdict, error) {
	if err := c.check(dir, promises); err != nil {
		return explore.Verdict{Status: 1, Output: err.Error() + "\n"}, nil
	}
	return explore.Verdict{Good: true}, nil
}
