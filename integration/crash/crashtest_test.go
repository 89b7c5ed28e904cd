package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mapfs/fs/crash"
	"mapfs/fs/crash/crashtest"
	"mapfs/fs/crash/explore"
	"mapfs/integration/harness"
)

// saver saves numbers in a file, by rename, and forgets a sync of the file or of the directory.
func saver(syncFile, syncDir bool) crashtest.Workload {
	return func(dir string, promise func(string)) error {
		for i := range 3 {
			f, err := os.Create(filepath.Join(dir, "t"))
			if err != nil {
				return err
			}
			fmt.Fprintln(f, i)
			if syncFile {
				err = f.Sync()
			}
			if err := errors.Join(err, f.Close(), os.Rename(filepath.Join(dir, "t"), filepath.Join(dir, "f"))); err != nil {
				return err
			}
			if syncDir {
				d, err := os.Open(dir)
				if err != nil {
					return err
				}
				if err := errors.Join(d.Sync(), d.Close()); err != nil {
					return err
				}
			}
			promise(fmt.Sprint(i))
		}
		return nil
	}
}

func checkSaved(dir string, promises []string) error {
	text, err := os.ReadFile(filepath.Join(dir, "f"))
	if len(promises) == 0 && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	saved, promised := -1, len(promises)-1
	if _, err := fmt.Sscan(string(text), &saved); err != nil || saved < promised {
		return fmt.Errorf("%q is saved and %d was promised: %v", text, promised, err)
	}
	return nil
}

// TestCrashtest: the helper finds what is missing, and nothing if nothing is.
func TestCrashtest(t *testing.T) {
	harness.RequireFUSE(t)
	crashtest.Command = harness.Binary
	crashtest.Run(t, saver(true, true), checkSaved)
	crashtest.Run(t, saver(false, false), func(string, []string) error { return nil }, func(o *explore.Options) { o.Budget = 2 * time.Second })
	crashtest.Run(t, saver(true, true), checkSaved, func(o *explore.Options) { o.Model = crash.Ext4{} })
	report, err := crashtest.Explore(t.Context(), harness.TempDir(t), saver(false, true), checkSaved)
	if err != nil || len(report.Findings) != 1 || !strings.Contains(report.Story(&report.Findings[0]), "missing  fsync t after") {
		t.Errorf("no sync of the file: %v %+v", err, report)
	}
	wrong := errors.New("what the workload says")
	if _, err := crashtest.Explore(t.Context(), harness.TempDir(t), func(string, func(string)) error { return wrong }, checkSaved); !errors.Is(err, wrong) {
		t.Errorf("a workload that fails: %v", err)
	}
	// As a test that fails: in a process of its own.
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestCrashtestFails$", "-test.v")
	cmd.Env = append(os.Environ(), failsVar+"="+harness.Binary)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: TestCrashtestFails/finding_1") || !strings.Contains(string(out), "missing  fsync . after") {
		t.Errorf("a test that must fail: %v\n%s", err, out)
	}
}

const failsVar = "MAPFS_TEST_CRASHTEST_FAILS"

// TestCrashtestFails fails, for TestCrashtest.
func TestCrashtestFails(t *testing.T) {
	if crashtest.Command = os.Getenv(failsVar); crashtest.Command == "" {
		return // it is not that process
	}
	crashtest.Run(t, saver(true, false), checkSaved)
}
