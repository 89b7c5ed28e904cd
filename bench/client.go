package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// runClient runs a program on a mount and returns what it prints. It runs in a process
// group of its own, which is killed as a whole when ctx ends.
func runClient(ctx context.Context, stdin io.Reader, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// Its children may hold its output open.
	cmd.WaitDelay = time.Second
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		message := strings.TrimSpace(stderr.String())
		if len(message) > 300 {
			message = message[:300] + " ..."
		}
		return stdout.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, message)
	}
	return stdout.Bytes(), nil
}

// client runs one of this program's own clients as a subprocess; see clients.
func client(ctx context.Context, args ...string) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return runClient(ctx, nil, self, append([]string{"client"}, args...)...)
}

// clientJSON runs a client that prints a JSON object of numbers.
func clientJSON(ctx context.Context, args ...string) (map[string]float64, error) {
	out, err := client(ctx, args...)
	if err != nil {
		return nil, err
	}
	var values map[string]float64
	if err := json.Unmarshal(out, &values); err != nil {
		return nil, fmt.Errorf("client %s: %w", args[0], err)
	}
	return values, nil
}

// clients are the programs behind `bench client NAME ARGS...`. They alone touch
// mounts. What they measure they print as JSON.
var clients = map[string]func(args []string) error{
	"read": func(args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, mib)
		for {
			if _, err := f.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	},
	"drop":   func(args []string) error { return drop(args[0]) },
	"rm":     func(args []string) error { return syscall.Unlink(args[0]) },
	"meta":   metaClient,
	"walk":   walkClient,
	"visit":  visitClient,
	"spread": spreadClient,
	"repeat": repeatClient,
}

func runClientMain(args []string) error {
	if len(args) == 0 || clients[args[0]] == nil {
		return fmt.Errorf("no client %q", args)
	}
	return clients[args[0]](args[1:])
}

func printJSON(values map[string]float64) error {
	return json.NewEncoder(os.Stdout).Encode(values)
}

// drop gives up what the kernel caches of a file.
func drop(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return fadviseDontNeed(f)
}
