package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The counting mode: what the daemon does for one operation, in system calls, context
// switches, faults and processor time. The calls are counted by strace, which slows
// all down and adds switches; so the rest is taken from a second go without it.

// counted are the operations, as repeatClient knows them, and what to call them.
var counted = []struct{ kind, title string }{
	{"read-4k", "read 4 KiB, direct, of an open file"},
	{"read-128k", "read 128 KiB, direct, of an open file"},
	{"overwrite", "write 4 KiB over written data"},
	{"append", "write 4 KiB at the end"},
	{"write-fsync", "write 4 KiB + fsync"},
	{"stat", "stat, first"},
	{"restat", "stat, again after the timeouts"},
	{"missing", "stat of a missing name, first"},
	{"open", "open + close, known file"},
	{"open-read", "open + read 4 KiB + close, new file"},
	{"create", "create + close"},
	{"unlink", "unlink"},
	{"mkdir", "mkdir"},
	{"rmdir", "rmdir"},
}

func (o *options) count(ctx context.Context, work *workspace, c *cast, stdout, stderr io.Writer) error {
	size := quickSizes
	size.files = o.n
	g := &ground{name: onTmpfs, dir: work.tmpfs, peers: c.peers, size: &size}
	if err := g.prepare(ctx, map[string]bool{inputFiles: true}); err != nil {
		return err
	}
	var b strings.Builder
	for _, p := range c.peers {
		if p.argv == nil {
			continue
		}
		fmt.Fprintf(&b, "What the daemon of %s does for one operation, counted over %d on tmpfs (`bench counts`):\n\n", p.name, o.n)
		printer(func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }).
			head("operation", "system calls", "which", "the runtime's own", "context switches", "faults", "processor time, us")
		for _, op := range counted {
			row, err := o.countOp(ctx, work, g, p, op.kind)
			if err != nil {
				return fmt.Errorf("counting %s of %s: %w", op.kind, p.name, err)
			}
			fmt.Fprintf(&b, "| %s | %s |\n", op.title, row)
			fmt.Fprintf(stderr, "%s: %s\n", p.name, op.title)
		}
		b.WriteString("\n")
	}
	if o.out == "" {
		_, err := io.WriteString(stdout, b.String())
		return err
	}
	return replaceInFile(o.out, "counts", b.String())
}

// countOp returns a table row of what one kind of operation costs.
func (o *options) countOp(ctx context.Context, work *workspace, g *ground, p *peer, kind string) (string, error) {
	n := float64(o.n)
	var did activity
	err := o.repeat(ctx, work, g, p, kind, func(pid int, operations func() error) error {
		before, err := activityOf(pid)
		if err != nil {
			return err
		}
		if err := operations(); err != nil {
			return err
		}
		after, err := activityOf(pid)
		did = after.minus(before)
		return err
	})
	if err != nil {
		return "", err
	}
	summary := filepath.Join(work.dir, "strace")
	err = o.repeat(ctx, work, g, p, kind, func(pid int, operations func() error) error {
		return underStrace(ctx, pid, summary, operations)
	})
	if err != nil {
		return "", err
	}
	calls, err := parseStrace(summary)
	if err != nil {
		return "", err
	}
	total, runtimes, which := 0.0, 0.0, []string{}
	for _, c := range calls {
		per := float64(c.count) / n
		if slices.Contains(runtimeCalls, c.name) {
			runtimes += per
			continue
		}
		total += per
		// Less comes once in a while, whatever the operation.
		if per >= 0.02 {
			which = append(which, fmt.Sprintf("%s %.2f", c.name, per))
		}
	}
	return fmt.Sprintf("%.2f | %s | %.2f | %.2f | %.2f | %.1f", total, strings.Join(which, ", "), runtimes,
		float64(did.Switches)/n, float64(did.Faults)/n, did.CPU.Seconds()*1e6/n), nil
}

// runtimeCalls are the system calls by which Go's runtime, and other daemons' threads,
// wait for and wake each other.
var runtimeCalls = []string{"futex", "nanosleep", "epoll_pwait", "sched_yield", "tgkill", "rt_sigreturn"}

// repeat starts a client that prepares an operation, calls observe with the daemon's
// pid and a function that lets the client do its operations, and ends the client.
func (o *options) repeat(ctx context.Context, work *workspace, g *ground, p *peer, kind string,
	observe func(pid int, operations func() error) error) error {
	m, err := work.mounts.get(ctx, p, g, true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	defer m.killIfStuck(ctx)()
	t := &target{mount: m, ground: g}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "client", "repeat", kind, t.own(""), t.shared("files"), strconv.Itoa(o.n))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	says := func(word string) error {
		if !lines.Scan() || lines.Text() != word {
			return fmt.Errorf("the client does not say %q", word)
		}
		return nil
	}
	err = says("ready")
	if err == nil {
		err = observe(m.pid(), func() error {
			if _, err := io.WriteString(stdin, "go\n"); err != nil {
				return err
			}
			return says("done")
		})
	}
	stdin.Close() // lets the client end
	return errors.Join(err, cmd.Wait())
}

// underStrace counts the system calls of process pid during operations.
func underStrace(ctx context.Context, pid int, summary string, operations func() error) error {
	cmd := exec.CommandContext(ctx, "strace", "-c", "-f", "-o", summary, "-p", strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = time.Second
	says, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(says)
	attached := lines.Scan() && strings.Contains(lines.Text(), "attached")
	if attached {
		err = operations()
	} else {
		err = fmt.Errorf("strace says %q", lines.Text())
	}
	cmd.Process.Signal(os.Interrupt) // it detaches and writes its table
	for lines.Scan() {
	}
	cmd.Wait() // ends as if by the signal
	return err
}

type callCount struct {
	name  string
	count int
}

// parseStrace reads the table that strace -c writes, most calls first.
func parseStrace(path string) ([]callCount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var calls []callCount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// "% time seconds usecs/call calls [errors] syscall"
		words := strings.Fields(lines.Text())
		if len(words) < 5 || words[len(words)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(words[3]); err == nil {
			calls = append(calls, callCount{words[len(words)-1], n})
		}
	}
	slices.SortFunc(calls, func(a, b callCount) int {
		if a.count != b.count {
			return b.count - a.count
		}
		return strings.Compare(a.name, b.name)
	})
	return calls, lines.Err()
}
