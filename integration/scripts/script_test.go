package scripts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mapfs/integration/harness"
)

// scriptLimit bounds one script. What hangs in a dead mount until then is freed
// by detaching the mount and ending its daemon.
const scriptLimit = 2 * time.Minute

// TestScript runs testdata: the built command as a person uses it, one
// idea to a script, on ext4 and on tmpfs. A script must touch its mounts by exec
// alone: testscript's own commands (cmp, cp, exists, cd ...) run in the test
// process. Beside testscript's commands there are:
//
//	exits CODE PROGRAM [ARG...]  run it and expect this exit status
//	[!] mounted DIR              look into /proc/self/mountinfo
//	await DIR                    wait until a background mount answers
//	pid VAR DIR                  set VAR to the process that serves DIR
//	gone PID                     wait until the process has ended
//	await-output FILE TEXT       wait until the file has the text
//
// and the condition [root]. $MAPFS is the command under test, and `$CLIENT client`
// runs the verbs of verbs_test.go.
func TestScript(t *testing.T) {
	harness.RequireFUSE(t)
	harness.EachFS(t, func(t *testing.T, dir string) {
		testscript.Run(t, testscript.Params{
			Dir:         "testdata",
			WorkdirRoot: dir, // testscript leaves what it makes there to us
			Deadline:    time.Now().Add(5 * scriptLimit),
			Setup:       setupScript,
			Condition: func(cond string) (bool, error) {
				if cond != "root" {
					return false, fmt.Errorf("unknown condition %q", cond)
				}
				return os.Geteuid() == 0, nil
			},
			Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
				"exits":        scriptExits,
				"mounted":      scriptMounted,
				"await":        scriptAwait,
				"pid":          scriptPid,
				"gone":         scriptGone,
				"await-output": scriptAwaitOutput,
			},
		})
	})
}

// setupScript puts mapfs into the script's PATH and clears its mounts away at
// its end, whatever the end is.
func setupScript(env *testscript.Env) error {
	bin := filepath.Join(env.WorkDir, ".bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(harness.Binary, filepath.Join(bin, "mapfs")); err != nil {
		return err
	}
	env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	env.Setenv("MAPFS", harness.Binary)
	client, err := os.Executable()
	if err != nil {
		return err
	}
	env.Setenv("CLIENT", client)
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript runs outside a test")
	}
	watchdog := time.AfterFunc(scriptLimit, func() { harness.ClearMounts(t, env.WorkDir) })
	env.Defer(func() {
		watchdog.Stop()
		for _, left := range harness.ClearMounts(t, env.WorkDir) {
			t.Errorf("the script leaves %s", left)
		}
	})
	return nil
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if got := harness.ExitCode(err); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status: got %d, want %s", got, args[0])
	}
}

func scriptMounted(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] mounted DIR")
	}
	if dir := ts.MkAbs(args[0]); mountedNow(ts, dir) == neg {
		ts.Fatalf("%s mounted: got %v, want %v", dir, neg, !neg)
	}
}

func mountedNow(ts *testscript.TestScript, dir string) bool {
	table, err := os.ReadFile("/proc/self/mountinfo")
	ts.Check(err)
	for line := range strings.Lines(string(table)) {
		if harness.MountinfoPath(strings.Fields(line)[4]) == dir {
			return true
		}
	}
	return false
}

// poll waits until ok says so, or fails the script.
func poll(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(harness.MountLimit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %v in vain for %s", harness.MountLimit, what)
		}
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await DIR")
	}
	dir := ts.MkAbs(args[0])
	poll(ts, "the mount "+dir, func() bool { return mountedNow(ts, dir) })
	ts.Check(ts.Exec("stat", dir))
}

func scriptPid(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: pid VAR DIR")
	}
	dir := ts.MkAbs(args[1])
	var pids []int
	for _, pid := range harness.Servers(dir) {
		// servers finds what begins like dir; this is dir itself.
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasSuffix(string(line), "\x00"+dir+"\x00") {
			pids = append(pids, pid)
		}
	}
	if len(pids) != 1 {
		ts.Fatalf("processes that serve %s: got %v, want one", dir, pids)
	}
	ts.Setenv(args[0], strconv.Itoa(pids[0]))
}

func scriptGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone PID")
	}
	poll(ts, "the end of process "+args[0], func() bool {
		stat, err := os.ReadFile("/proc/" + args[0] + "/stat")
		if err != nil {
			return true
		}
		// A process that nobody has waited for yet has ended all the same.
		_, after, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(after, "Z")
	})
}

func scriptAwaitOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await-output FILE TEXT")
	}
	poll(ts, fmt.Sprintf("%q in %s", args[1], args[0]), func() bool {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && strings.Contains(string(data), args[1])
	})
}
