package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptLimit bounds one script. What hangs in a dead mount until then is freed
// by detaching the mount and ending its daemon.
const scriptLimit = 2 * time.Minute

// TestScript runs testdata/script: the built command as a person uses it, one
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
	requireFUSE(t)
	eachFS(t, func(t *testing.T, dir string) {
		testscript.Run(t, testscript.Params{
			Dir:         "testdata/script",
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
	if err := os.Symlink(mapfsBin, filepath.Join(bin, "mapfs")); err != nil {
		return err
	}
	env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	env.Setenv("MAPFS", mapfsBin)
	client, err := os.Executable()
	if err != nil {
		return err
	}
	env.Setenv("CLIENT", client)
	t, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript runs outside a test")
	}
	watchdog := time.AfterFunc(scriptLimit, func() { clearMounts(t, env.WorkDir) })
	env.Defer(func() {
		watchdog.Stop()
		for _, left := range clearMounts(t, env.WorkDir) {
			t.Errorf("the script leaves %s", left)
		}
	})
	return nil
}

// clearMounts detaches every mount below dir, ends every daemon that serves one,
// and tells what it found.
func clearMounts(t testing.TB, dir string) (found []string) {
	for _, m := range mountpoints(t) {
		if strings.HasPrefix(m, dir+"/") {
			found = append(found, "the mount "+m)
			_, _ = runErr("fusermount3", "-u", "-z", m)
		}
	}
	for _, pid := range servers(dir + "/") {
		found = append(found, fmt.Sprintf("the daemon %d", pid))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return found
}

// servers lists the mapfs processes whose mount point, their last argument,
// starts with prefix.
func servers(prefix string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe != mapfsBin {
			continue
		}
		if strings.HasPrefix(args[len(args)-1], prefix) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if got := exitCode(err); strconv.Itoa(got) != args[0] {
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
		if mountinfoPath(strings.Fields(line)[4]) == dir {
			return true
		}
	}
	return false
}

// poll waits until ok says so, or fails the script.
func poll(ts *testscript.TestScript, what string, ok func() bool) {
	for deadline := time.Now().Add(mountLimit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %v in vain for %s", mountLimit, what)
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
	for _, pid := range servers(dir) {
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
