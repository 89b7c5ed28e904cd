package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// screenLimit bounds the time until a screen shows what it should.
const screenLimit = 15 * time.Second

// terminal is a real terminal with a program in it: a window of tmux(1).
type terminal struct {
	t      testing.TB
	socket string
}

// ended is what a terminal shows when its program has ended, and before the exit
// status.
const ended = "ENDED WITH STATUS "

// startTerminal runs a program in a new terminal. The environment is the
// program's own, in addition to that of a terminal with colors.
func startTerminal(t testing.TB, width, height int, env []string, program ...string) *terminal {
	t.Helper()
	need.Tool(t, "tmux")
	term := &terminal{t: t, socket: filepath.Join(harness.TempDir(t), "tmux")}
	// In the foreground, so that it ends with the test whatever happens.
	server := exec.Command("tmux", "-D", "-u", "-S", term.socket, "-f", "/dev/null")
	harness.SetGroup(server)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = term.tmux("kill-server")
		if err := harness.WaitCmd(server, harness.ExitLimit); err != nil {
			t.Errorf("tmux: %v", err)
		}
	})
	// NO_COLOR of whoever runs the tests must not decide.
	command := append([]string{"env", "-u", "NO_COLOR"}, env...)
	// The trap lets the shell outlive a Ctrl-C that ends the program.
	script := `trap : INT; "$@"; printf '` + ended + `%d\n' $?; exec sleep 600`
	args := []string{"new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height),
		"sh", "-c", script, "sh"}
	args = append(append(args, command...), program...)
	for deadline := time.Now().Add(screenLimit); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(term.socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("tmux does not start")
		}
	}
	if out, err := term.tmux(args...); err != nil {
		t.Fatalf("tmux %q: %v %s", args, err, out)
	}
	return term
}

func (term *terminal) tmux(args ...string) (string, error) {
	return harness.RunErr("tmux", append([]string{"-S", term.socket}, args...)...)
}

func (term *terminal) must(args ...string) string {
	term.t.Helper()
	out, err := term.tmux(args...)
	if err != nil {
		term.t.Fatalf("tmux %q: %v", args, err)
	}
	return out
}

// screen is the text that a person sees; with colors it has the escape
// sequences that make it look as it does.
func (term *terminal) screen() string     { return term.must("capture-pane", "-p") }
func (term *terminal) withColors() string { return term.must("capture-pane", "-p", "-e") }

// keys presses keys, by tmux's names for them.
func (term *terminal) keys(keys ...string) {
	term.t.Helper()
	term.must(append([]string{"send-keys"}, keys...)...)
}

func (term *terminal) resize(width, height int) {
	term.t.Helper()
	term.must("resize-window", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height))
}

// shows waits until the screen has all the texts, and returns it.
func (term *terminal) shows(what string, texts ...string) string {
	term.t.Helper()
	return term.until(what, func(screen string) string {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return "no " + strconv.Quote(text)
			}
		}
		return ""
	})
}

// until waits until missing finds nothing wrong with the screen, and returns it.
func (term *terminal) until(what string, missing func(screen string) string) string {
	term.t.Helper()
	deadline := time.Now().Add(screenLimit)
	for {
		screen := term.screen()
		wrong := missing(screen)
		if wrong == "" {
			return screen
		}
		if time.Now().After(deadline) {
			term.t.Fatalf("%s: %s on the screen:\n%s", what, wrong, screen)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
