package harness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ClientTimeout bounds every child that has no bound of its own.
const ClientTimeout = 30 * time.Second

// killGrace is how long a killed child may take to die. One that waits for an
// answer the daemon already has in hand dies only with the daemon, so nobody
// waits for it any longer than this.
const killGrace = 2 * time.Second

// ErrTimeout is what a child that outlived its time limit ends with.
var ErrTimeout = errors.New("timed out and was killed")

// clientMain is the other face of the test binary: `client VERB ARG...`.
// What a verb prints on stdout is its result; exit status 1 and a line on
// stderr is its failure.
func clientMain(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "client: no verb")
		return 2
	}
	verb, ok := clientVerbs[args[0]]
	if !ok {
		fmt.Fprintf(os.Stderr, "client: unknown verb %q\n", args[0])
		return 2
	}
	if err := verb(args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "client %s: %v\n", strings.Join(args, " "), err)
		return 1
	}
	return 0
}

// ClientCmd is the command that runs one client verb.
func ClientCmd(verb string, args ...string) *exec.Cmd {
	// The link and not os.Executable: another user cannot reach the go tool's
	// work directory, but every process can reach its own program.
	return exec.Command("/proc/self/exe", append([]string{"client", verb}, args...)...)
}

// reporter is what the helpers need of a testing.TB. A check that runs inside a
// client has no testing.TB, but reports in the same way.
type reporter interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Client runs a verb of verbs_test.go in a process of its own and returns its
// stdout. The test fails if the verb does or takes longer than clientTimeout.
func Client(t reporter, verb string, args ...string) string {
	t.Helper()
	out, err := RunCmd(ClientCmd(verb, args...), ClientTimeout)
	if err != nil {
		t.Fatalf("client %s %q: %v", verb, args, err)
	}
	return out
}

// ClientErr is client for verbs that are expected to fail.
func ClientErr(verb string, args ...string) (string, error) {
	return RunCmd(ClientCmd(verb, args...), ClientTimeout)
}

// Run runs a program and returns its stdout. The test fails if the program does
// or takes longer than clientTimeout.
func Run(t reporter, name string, args ...string) string {
	t.Helper()
	return RunFor(t, ClientTimeout, name, args...)
}

// RunFor is run with another time limit.
func RunFor(t reporter, limit time.Duration, name string, args ...string) string {
	t.Helper()
	out, err := RunCmd(exec.Command(name, args...), limit)
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return out
}

// RunErr is run for programs that are expected to fail.
func RunErr(name string, args ...string) (string, error) {
	return RunCmd(exec.Command(name, args...), ClientTimeout)
}

// As lets a command run as another user, or as the test's own if uid is 0.
func As(cmd *exec.Cmd, uid, gid uint32) *exec.Cmd {
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return cmd
}

// RunCmd runs cmd, whose directory, environment and input the caller may have
// set, and returns its stdout. After limit the whole process group is killed and
// the error is errTimeout. An error carries what the program wrote to stderr.
func RunCmd(cmd *exec.Cmd, limit time.Duration) (string, error) {
	var stdout, stderr lockedBuffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	SetGroup(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err := WaitCmd(cmd, limit)
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, stdout.String(), stderr.String())
	}
	return stdout.String(), err
}

// SetGroup gives cmd a process group of its own, so that its children can be
// killed with it, and lets it die with the test process.
func SetGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A grandchild that keeps the pipe open must not hold up Wait.
	cmd.WaitDelay = killGrace
}

// WaitCmd waits for a started command of setGroup, at most limit.
func WaitCmd(cmd *exec.Cmd, limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	select {
	case <-done:
	case <-time.After(killGrace):
		return fmt.Errorf("%w after %v, and is still there", ErrTimeout, limit)
	}
	return fmt.Errorf("%w after %v", ErrTimeout, limit)
}

// ExitCode is the exit status in the error of a finished command: 0 for nil, -1
// for a signal, a timeout or a program that never ran.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// Process is a client that talks: the test and the client take turns by lines on
// the client's stdin and stdout.
type Process struct {
	t      reporter
	Cmd    *exec.Cmd
	stdin  io.WriteCloser
	Lines  chan string
	stderr lockedBuffer
	once   sync.Once
	Err    error
}

// StartClient starts a verb that talks. It is killed when the test ends.
func StartClient(t reporter, verb string, args ...string) *Process {
	t.Helper()
	return StartProc(t, ClientCmd(verb, args...))
}

// StartProc is startClient for any program.
func StartProc(t reporter, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Cmd: cmd, Lines: make(chan string, 1024)}
	SetGroup(cmd)
	cmd.Stderr = &p.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	// A pipe of our own: Wait closes the one of StdoutPipe under the reader.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	go func() {
		defer r.Close()
		defer close(p.Lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.Lines <- s.Text()
		}
	}()
	t.Cleanup(p.Kill)
	return p
}

// Say sends the client one line.
func (p *Process) Say(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.stdin, format+"\n", args...); err != nil {
		p.t.Fatalf("%q: write to its stdin: %v\n%s", p.Cmd.Args, err, p.stderr.String())
	}
}

// Line returns the client's next line.
func (p *Process) Line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.Lines:
		if ok {
			return l
		}
		p.t.Fatalf("%q ended early: %v", p.Cmd.Args, p.WaitErr())
	case <-time.After(ClientTimeout):
		p.t.Fatalf("%q says nothing for %v\n%s", p.Cmd.Args, ClientTimeout, p.stderr.String())
	}
	return ""
}

// Hear waits for exactly this line.
func (p *Process) Hear(want string) {
	p.t.Helper()
	if got := p.Line(); got != want {
		p.t.Fatalf("%q: got line %q, want %q\n%s", p.Cmd.Args, got, want, p.stderr.String())
	}
}

// Ask says a line and returns the answer.
func (p *Process) Ask(format string, args ...any) string {
	p.t.Helper()
	p.Say(format, args...)
	return p.Line()
}

// Wait closes the client's stdin and expects it to end well.
func (p *Process) Wait() {
	p.t.Helper()
	if err := p.WaitErr(); err != nil {
		p.t.Fatalf("%q: %v", p.Cmd.Args, err)
	}
}

// WaitErr is wait for a client that is expected to fail.
func (p *Process) WaitErr() error {
	p.once.Do(func() {
		p.stdin.Close()
		if p.Err = WaitCmd(p.Cmd, ClientTimeout); p.Err != nil {
			p.Err = fmt.Errorf("%w\n%s", p.Err, p.stderr.String())
		}
	})
	return p.Err
}

// Kill ends the client the hard way, if it still runs.
func (p *Process) Kill() {
	p.once.Do(func() {
		_ = syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL)
		p.stdin.Close()
		p.Err = WaitCmd(p.Cmd, killGrace)
	})
}

// lockedBuffer is a bytes.Buffer that one goroutine may fill while another reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
