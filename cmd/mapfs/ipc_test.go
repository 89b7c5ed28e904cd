//go:build linux

package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"mapfs/client"
)

// buildBinary builds the command: some things only show in a real process.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "mapfs")
	if output, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, output)
	}
	return binary
}

// TestClientBinary runs the verbs as a shell does.
func TestClientBinary(t *testing.T) {
	binary := buildBinary(t)
	clientDir(t)
	shell := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script, binary)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		return hideAddresses(string(out))
	}
	for script, want := range map[string]string{
		`"$0" peek --raw f; echo $?`:                         "hello mapped world\n0\n",
		`"$0" peek --length 1 --offset 64k f; echo $?`:       "\n135\n",
		`"$0" peek --prot none f; echo $?`:                   "\n139\n",
		`"$0" poke f 64k x; echo $?`:                         "\n135\n",
		`"$0" poke --prot r f 0 x; echo $?`:                  "\n139\n",
		`echo 'load 0 1' | "$0" hold --prot none f; echo $?`: "\n139\n",
		`echo 'load 1M 1' | "$0" hold f; echo $?`:            "mapfs: 1 of the commands failed\n1\n",
		`"$0" peek f f; echo $?`:                             "mapfs: unexpected argument \"f\" after FILE; see 'mapfs --help'\n2\n",
	} {
		if got := shell(script); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %q, want it to end in %q", script, got, want)
		}
	}

	t.Run("ipc", func(t *testing.T) {
		out := shell(`"$0" ipc --count 50`)
		for _, name := range client.MediaNames() {
			// The last columns: how many were checked, and how many were whole.
			if !regexp.MustCompile(`(?m)^  ` + name + ` .* 151 +151$`).MatchString(out) {
				t.Errorf("no row of %s with 151 whole messages:\n%s", name, out)
			}
		}
		out = shell(`"$0" ipc --count 50 --no-sync --via mapping,pipe`)
		if !strings.Contains(out, "WHOLE  TORN  LOST") || strings.Count(out, "\n") != 5 {
			t.Errorf("--no-sync: got\n%s", out)
		}
		out = shell(`"$0" ipc --count 5 --dir no; echo $?`)
		if !strings.Contains(out, "mapping is not available: open no/.mapfs-ipc-") || !strings.HasSuffix(out, "\n1\n") {
			t.Errorf("a directory that is asked for and not there: got\n%s", out)
		}
		// A medium that nobody asked for may be missing.
		out = shell(`mkdir gone; cd gone; rmdir ../gone; "$0" ipc --count 5; echo $?`)
		if !strings.Contains(out, "mapping is not available: ") || !strings.Contains(out, "\n  pipe ") || !strings.HasSuffix(out, "\n0\n") {
			t.Errorf("no working directory: got\n%s", out)
		}
	})

	t.Run("ipc interrupted", func(t *testing.T) {
		cmd := exec.Command(binary, "ipc", "--via", "mapping", "--count", "9999999")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		// As from a terminal, both processes get the signal.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // its status is checked
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || stderr.String() != "mapfs: interrupted\n" {
			t.Errorf("status %d, %q", code, stderr.String())
		}
		if err := syscall.Kill(-cmd.Process.Pid, 0); err != syscall.ESRCH {
			t.Errorf("a process is left: %v", err)
		}
		left, err := filepath.Glob(".mapfs-ipc-*")
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	})
}
