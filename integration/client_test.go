package integration

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

// clientTimeout bounds every child that has no bound of its own.
const clientTimeout = 30 * time.Second

// killGrace is how long a killed child may take to die. One that waits for an
// answer the daemon already has in hand dies only with the daemon, so nobody
// waits for it any longer than this.
const killGrace = 2 * time.Second

// errTimeout is what a child that outlived its time limit ends with.
var errTimeout = errors.New("timed out and was killed")

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

// clientCmd is the command that runs one client verb.
func clientCmd(verb string, args ...string) *exec.Cmd {
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

// client runs a verb of verbs_test.go in a process of its own and returns its
// stdout. The test fails if the verb does or takes longer than clientTimeout.
func client(t reporter, verb string, args ...string) string {
	t.Helper()
	out, err := runCmd(clientCmd(verb, args...), clientTimeout)
	if err != nil {
		t.Fatalf("client %s %q: %v", verb, args, err)
	}
	return out
}

// clientErr is client for verbs that are expected to fail.
func clientErr(verb string, args ...string) (string, error) {
	return runCmd(clientCmd(verb, args...), clientTimeout)
}

// run runs a program and returns its stdout. The test fails if the program does
// or takes longer than clientTimeout.
func run(t reporter, name string, args ...string) string {
	t.Helper()
	return runFor(t, clientTimeout, name, args...)
}

// runFor is run with another time limit.
func runFor(t reporter, limit time.Duration, name string, args ...string) string {
	t.Helper()
	out, err := runCmd(exec.Command(name, args...), limit)
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return out
}

// runErr is run for programs that are expected to fail.
func runErr(name string, args ...string) (string, error) {
	return runCmd(exec.Command(name, args...), clientTimeout)
}

// as lets a command run as another user, or as the test's own if uid is 0.
func as(cmd *exec.Cmd, uid, gid uint32) *exec.Cmd {
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return cmd
}

// runCmd runs cmd, whose directory, environment and input the caller may have
// set, and returns its stdout. After limit the whole process group is killed and
// the error is errTimeout. An error carries what the program wrote to stderr.
func runCmd(cmd *exec.Cmd, limit time.Duration) (string, error) {
	var stdout, stderr lockedBuffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	setGroup(cmd)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err := waitCmd(cmd, limit)
	if err != nil {
		err = fmt.Errorf("%w\n%s%s", err, stdout.String(), stderr.String())
	}
	return stdout.String(), err
}

// setGroup gives cmd a process group of its own, so that its children can be
// killed with it, and lets it die with the test process.
func setGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A grandchild that keeps the pipe open must not hold up Wait.
	cmd.WaitDelay = killGrace
}

// waitCmd waits for a started command of setGroup, at most limit.
func waitCmd(cmd *exec.Cmd, limit time.Duration) error {
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
		return fmt.Errorf("%w after %v, and is still there", errTimeout, limit)
	}
	return fmt.Errorf("%w after %v", errTimeout, limit)
}

// exitCode is the exit status in the error of a finished command: 0 for nil, -1
// for a signal, a timeout or a program that never ran.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// proc is a client that talks: the test and the client take turns by lines on
// the client's stdin and stdout.
type proc struct {
	t      reporter
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string
	stderr lockedBuffer
	once   sync.Once
	err    error
}

// startClient starts a verb that talks. It is killed when the test ends.
func startClient(t reporter, verb string, args ...string) *proc {
	t.Helper()
	return startProc(t, clientCmd(verb, args...))
}

// startProc is startClient for any program.
func startProc(t reporter, cmd *exec.Cmd) *proc {
	t.Helper()
	p := &proc{t: t, cmd: cmd, lines: make(chan string, 1024)}
	setGroup(cmd)
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
		defer close(p.lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// say sends the client one line.
func (p *proc) say(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.stdin, format+"\n", args...); err != nil {
		p.t.Fatalf("%q: write to its stdin: %v\n%s", p.cmd.Args, err, p.stderr.String())
	}
}

// line returns the client's next line.
func (p *proc) line() string {
	p.t.Helper()
	select {
	case l, ok := <-p.lines:
		if ok {
			return l
		}
		p.t.Fatalf("%q ended early: %v", p.cmd.Args, p.waitErr())
	case <-time.After(clientTimeout):
		p.t.Fatalf("%q says nothing for %v\n%s", p.cmd.Args, clientTimeout, p.stderr.String())
	}
	return ""
}

// hear waits for exactly this line.
func (p *proc) hear(want string) {
	p.t.Helper()
	if got := p.line(); got != want {
		p.t.Fatalf("%q: got line %q, want %q\n%s", p.cmd.Args, got, want, p.stderr.String())
	}
}

// ask says a line and returns the answer.
func (p *proc) ask(format string, args ...any) string {
	p.t.Helper()
	p.say(format, args...)
	return p.line()
}

// wait closes the client's stdin and expects it to end well.
func (p *proc) wait() {
	p.t.Helper()
	if err := p.waitErr(); err != nil {
		p.t.Fatalf("%q: %v", p.cmd.Args, err)
	}
}

// waitErr is wait for a client that is expected to fail.
func (p *proc) waitErr() error {
	p.once.Do(func() {
		p.stdin.Close()
		if p.err = waitCmd(p.cmd, clientTimeout); p.err != nil {
			p.err = fmt.Errorf("%w\n%s", p.err, p.stderr.String())
		}
	})
	return p.err
}

// kill ends the client the hard way, if it still runs.
func (p *proc) kill() {
	p.once.Do(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		p.stdin.Close()
		p.err = waitCmd(p.cmd, killGrace)
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
