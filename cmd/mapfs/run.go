//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mapfs/cmd/mapfs/cli"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes of a shell for a command that is not there, or cannot be run.
const (
	exitNotRunnable = 126
	exitNotFound    = 127
)

// mountDirVar is the environment variable that tells the command where the mount is.
const mountDirVar = "MAPFS_DIR"

func newRunCommand(sys system) *cobra.Command {
	var flags mountFlags
	var failPending bool
	cmd := &cobra.Command{
		Use:   "run [flags] BACKING -- COMMAND [ARG]...",
		Short: "Mount, run a command in the mount, and unmount",
		Long: `Mount a mirror of BACKING on a temporary directory, run COMMAND in it, unmount,
and exit as COMMAND did. The variable ` + mountDirVar + ` in its environment is the directory.

With --fail-pending the mount has -o history, and if a power cut at the end of COMMAND
would take something, it is listed, and the exit code is 3 unless COMMAND failed itself.`,
		Example: `  mapfs run ~/data -- make
  mapfs run -o mode=private ~/data -- ./try-it
  mapfs run --fail-pending ~/data -- sh -c 'printf new >t; mv t f'`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash < 0:
				return cli.Usagef("name the directory BACKING, and the COMMAND after --")
			case dash != 1 || args[0] == "":
				return cli.Usagef("name one directory BACKING before --")
			case len(args) == 1 || args[1] == "":
				return cli.Usagef("name the COMMAND to run after --")
			}
			return nil
		},
		ValidArgsFunction: completeDirectories,
		RunE: func(cmd *cobra.Command, args []string) error {
			r := runner{sys: sys, flags: &flags, failPending: failPending, stdin: cmd.InOrStdin(), stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr()}
			return r.run(cmd.Context(), args[0], args[1:])
		},
	}
	flags.readyFD = noReadyFD
	flags.logLevel = "info"
	cmd.Flags().StringArrayVarP(&flags.options, "options", "o", nil, "mount options `OPT,...`; may be repeated")
	cmd.Flags().StringVar(&flags.logFile, "log-file", "", "append the daemon's log to `FILE`, not to the system's log")
	cmd.Flags().BoolVar(&failPending, "fail-pending", false, "exit with 3 if a power cut would take something at the end")
	registerOptionCompletion(cmd)
	return cmd
}

// runner is one run of "mapfs run".
type runner struct {
	sys            system
	flags          *mountFlags
	failPending    bool
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string // of the command, beside the usual
}

func (r *runner) run(ctx context.Context, backing string, command []string) (err error) {
	opts := defaultOptions()
	if err := parseOptions(&opts, r.flags.options); err != nil {
		return err
	}
	if r.failPending && opts.History == nil {
		r.flags.options = append(r.flags.options, "history")
		if err := parseOptions(&opts, []string{"history"}); err != nil {
			return err
		}
	}
	if err := checkOptions(&opts); err != nil {
		return err
	}
	path, err := findCommand(command[0])
	if err != nil {
		return err
	}
	if backing, err = absolutePath(backing); err != nil {
		return err
	}
	if r.flags.logFile, err = absolutePath(r.flags.logFile); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mapfs-run-")
	if err != nil {
		return err
	}
	defer os.Remove(dir) // not with what is in it: the mount can still be there
	if err := startDaemon(r.sys, r.flags, backing, dir); err != nil {
		return err
	}
	defer func() {
		if unmountErr := r.unmount(ctx, dir); err == nil {
			err = unmountErr
		}
	}()
	if err := r.execute(dir, path, command); err != nil {
		return err
	}
	if !r.failPending {
		return nil
	}
	t, err := findTarget(r.sys, dir)
	if err != nil {
		return err
	}
	ops, err := readPending(t)
	if err != nil || len(ops) == 0 {
		return err
	}
	if err := printPending(r.stderr, ops, false); err != nil {
		return err
	}
	return cli.Coded{Err: errors.New(countPending(len(ops)) + " at the end, see above"), Code: exitPending}
}

// findCommand is exec.LookPath with the exit code of a shell.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	code := exitNotFound
	if errors.Is(err, os.ErrPermission) {
		code = exitNotRunnable
	}
	return "", cli.Coded{Err: err, Code: code}
}

// execute runs the command in the mount. Its failure is an error with its exit code, that
// says nothing: the command has said what there is to say.
func (r *runner) execute(dir, path string, command []string) error {
	cmd := exec.Command(path, command[1:]...)
	cmd.Args[0] = command[0]
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), mountDirVar+"="+dir, "PWD="+dir), r.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r.stdin, r.stdout, r.stderr
	// A terminal sends its signals to the command too; others are passed on. Either way
	// the mount is ours to end when the command has ended.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return cli.Coded{Err: err, Code: exitNotRunnable}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGHUP {
				_ = cmd.Process.Signal(s) // it may have ended just now
			}
		case err := <-ended:
			return exitOf(err)
		}
	}
}

// exitOf is the error for how a command has ended.
func exitOf(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return cli.Quiet{Code: exitSignal + int(status.Signal())}
	}
	return cli.Quiet{Code: exit.ExitCode()}
}

// unmount ends the mount, and waits until everything is written back.
func (r *runner) unmount(ctx context.Context, dir string) error {
	daemon, err := r.sys.findDaemon(dir)
	if err != nil {
		return err
	}
	if daemon != nil {
		defer daemon.Close()
	}
	err = r.sys.unmount(dir, false)
	if errors.Is(err, syscall.EBUSY) {
		// What the command has left running keeps what it has.
		fmt.Fprintf(r.stderr, "mapfs: the command has left processes in the mount: %s; it ends with them\n", describeHolders(r.sys.holders(dir)))
		return r.sys.unmount(dir, true)
	}
	if err != nil || daemon == nil {
		return err
	}
	return daemon.Wait(ctx)
}
