package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// labDir returns the scratch directory of the one lab session below parent.
func labDir(t *testing.T, parent string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(parent, "mapfs-lab-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("scratch directories: %q, %v, want one", found, err)
	}
	return found[0]
}

// startLab runs "mapfs lab 1" in a terminal and waits for its shell, whose files
// are in a directory of their own.
func startLab(t *testing.T) (term *terminal, parent string) {
	t.Helper()
	harness.RequireFUSE(t)
	need.Tool(t, "bash")
	parent = harness.TempDir(t)
	t.Cleanup(func() {
		for _, left := range harness.ClearMounts(t, parent) {
			t.Errorf("the session leaves %s", left)
		}
	})
	// HOME keeps the files of whoever runs the tests out of it.
	term = startTerminal(t, 200, 50, []string{"TMPDIR=" + parent, "HOME=" + parent}, harness.Binary, "lab", "1")
	term.shows("the shell", "exit' ends the exercise", "backing is mounted on mnt", "mapfs lab 1 | less")
	return term, parent
}

// leftNothing waits until the session's mount, daemon and directory are gone.
func leftNothing(t *testing.T, parent string) {
	t.Helper()
	for deadline := time.Now().Add(harness.ExitLimit); ; time.Sleep(50 * time.Millisecond) {
		entries, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, entry := range entries {
			if strings.HasPrefix(entry.Name(), "mapfs-lab-") {
				left = append(left, entry.Name())
			}
		}
		if len(left) == 0 && len(harness.Servers(parent+"/")) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %q, daemons %v", left, harness.Servers(parent+"/"))
		}
	}
}

// TestLabSession follows an exercise at a real terminal, to its end.
func TestLabSession(t *testing.T) {
	term, parent := startLab(t)
	dir := labDir(t, parent)
	if !harness.IsMounted(t, filepath.Join(dir, "mnt")) {
		t.Fatalf("nothing is mounted on %s/mnt", dir)
	}
	term.keys("echo stored > mnt/f; cat backing/f mnt/f | uniq -c; mapfs status mnt/f | head -n 1", "Enter")
	term.shows("the commands", "2 stored", "path f")
	// Ctrl-C ends a command, and neither the shell nor the session.
	term.keys("sh -c 'echo go\"\"ing; exec cat mnt/.mapfs/events > /dev/null'", "Enter")
	term.shows("a command that waits", "going")
	term.keys("C-c")
	term.keys("echo go$((40+2))on", "Enter")
	term.shows("after Ctrl-C", "go42on")
	term.keys("exit", "Enter")
	term.shows("the end", ended+"0")
	leftNothing(t, parent)
}

// TestLabSessionBusy leaves a program behind that uses the mount: the directory
// goes all the same, and the daemon with its last user.
func TestLabSessionBusy(t *testing.T) {
	term, parent := startLab(t)
	term.keys("echo x > mnt/f; (sleep 1000 < mnt/f & echo $! > ../sleep); ls ..", "Enter")
	term.shows("the program", "sleep")
	term.keys("exit", "Enter")
	term.shows("the end", "sleep (pid ", "still uses the mount", ended+"0")
	if found, _ := filepath.Glob(filepath.Join(parent, "mapfs-lab-*")); len(found) > 0 {
		t.Errorf("left behind: %q", found)
	}
	pid, err := os.ReadFile(filepath.Join(parent, "sleep"))
	if err != nil {
		t.Fatal(err)
	}
	harness.Run(t, "kill", strings.TrimSpace(string(pid)))
	leftNothing(t, parent)
}

// TestLabSessionHangup takes the terminal away.
func TestLabSessionHangup(t *testing.T) {
	term, parent := startLab(t)
	labDir(t, parent)
	term.must("kill-session")
	leftNothing(t, parent)
}

// TestLabSessionUnmounted ends a session whose mount its user has unmounted.
func TestLabSessionUnmounted(t *testing.T) {
	term, parent := startLab(t)
	term.keys("mapfs umount mnt; exit", "Enter")
	term.shows("the end", ended+"0")
	leftNothing(t, parent)
}
