package explore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Checker says whether a state is good.
type Checker interface {
	// Check looks at a state, which is in a directory that it may write to, with the
	// promises that were made before the power cut. An error says that it could not be
	// looked at, and ends the exploration.
	Check(ctx context.Context, dir string, promises []string) (Verdict, error)
}

// Verdict is what a check says of a state. Status is the exit status of a command, 128 and
// the number of the signal that has ended it.
type Verdict struct {
	Good   bool
	Status int
	Output string
}

// StateVar is the environment variable that tells a command where the state is.
const StateVar = "MAPFS_STATE"

// mostOutput is how many bytes of a command's output are kept.
const mostOutput = 16 << 10

// Command is a checker that runs a command of the shell in the state. The promises are on
// its standard input, one a line. Exit status 0 is good.
type Command struct {
	Script string
	// Timeout ends a command that takes longer: it has failed then.
	Timeout time.Duration
}

// Check runs the command.
func (c Command) Check(ctx context.Context, dir string, promises []string) (Verdict, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.Script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), StateVar+"="+dir, "PWD="+dir)
	var in strings.Builder
	for _, line := range promises {
		in.WriteString(line + "\n")
	}
	cmd.Stdin = strings.NewReader(in.String())
	out := &headWriter{left: mostOutput}
	cmd.Stdout, cmd.Stderr = out, out
	// Its processes end with it: none may change the next state.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // ESRCH if it has left none behind
	}
	v := Verdict{Good: err == nil, Output: out.String()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		v.Good, v.Status = false, 128+int(syscall.SIGKILL)
		v.Output += fmt.Sprintf("(ended after %v)\n", c.Timeout)
	case ctx.Err() != nil:
		return v, ctx.Err()
	case errors.As(err, &exit):
		v.Status = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			v.Status = 128 + int(status.Signal())
		}
	case errors.Is(err, exec.ErrWaitDelay):
		v.Good = true // it has left a process behind that holds its output, and said 0
	case err != nil:
		return v, fmt.Errorf("run the check: %w", err)
	}
	return v, nil
}

// headWriter keeps the first bytes of what is written.
type headWriter struct {
	bytes.Buffer
	left int
}

func (w *headWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	w.Buffer.Write(p[:n])
	return len(p), nil
}
