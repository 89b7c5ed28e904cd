//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/display"
	"mapfs/docs/lab"
	"mapfs/fs/mountpoint"
)

func newLabCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "lab [N]",
		Short: "Learn what memory mappings do, by exercises at the shell",
		Long: `Without N, list the exercises. With N, print exercise N; on a terminal also make
a new directory with a mount, and start a shell in it. At the end of that shell
all of it is removed.

The directory has backing and mnt, where backing is mounted, as the exercises
expect. It is made in $TMPDIR, or in /var/tmp, which is on a disk more often than
/tmp is: on tmpfs the kernel calls no page dirty. The shell is bash, if it is
there, because the exercises are written for it, or else $SHELL.`,
		Example: `  mapfs lab
  mapfs lab 1
  mapfs lab 3 | less`,
		Args:              labArgs,
		ValidArgsFunction: completeLab,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			if len(args) == 0 {
				return listLab(out)
			}
			e, _ := findExercise(args[0]) // labArgs has found it
			if _, err := fmt.Fprintln(out, e.For(os.Getpagesize())); err != nil {
				return err
			}
			// Only a person at a terminal can follow it.
			for _, end := range []any{cmd.InOrStdin(), out} {
				f, isFile := end.(*os.File)
				if !isFile {
					return nil
				}
				if _, err := display.TerminalSize(f); err != nil {
					return nil
				}
			}
			return labSession(cmd.Context(), sys, e, out, cmd.ErrOrStderr())
		},
	}
}

func labArgs(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return cli.Usagef("unexpected argument %q after the number of an exercise", args[1])
	}
	if len(args) == 1 {
		if _, found := findExercise(args[0]); !found {
			return cli.Usagef("no exercise %q; 'mapfs lab' lists them", args[0])
		}
	}
	return nil
}

func findExercise(number string) (lab.Exercise, bool) {
	n, err := strconv.Atoi(number)
	all := lab.Exercises()
	i := slices.IndexFunc(all, func(e lab.Exercise) bool { return e.Number == n })
	if err != nil || i < 0 {
		return lab.Exercise{}, false
	}
	return all[i], true
}

func listLab(out io.Writer) error {
	for _, e := range lab.Exercises() {
		if _, err := fmt.Fprintf(out, "%2d  %s\n", e.Number, e.Title); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(out, "\n'mapfs lab N' begins one.")
	return err
}

func completeLab(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []cobra.Completion
	for _, e := range lab.Exercises() {
		words = append(words, cobra.CompletionWithDesc(strconv.Itoa(e.Number), e.Title))
	}
	return words, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// labSession runs a shell in a new directory with a mount, and removes all of it
// afterwards.
func labSession(ctx context.Context, sys system, e lab.Exercise, out, stderr io.Writer) (err error) {
	// Ctrl-C is for the programs in the shell. When the terminal goes, the shell
	// ends first, and we clean up behind it.
	signals, restore := sys.signals(true)
	defer restore()
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "mapfs-lab-")
	if err != nil {
		return err
	}
	mnt := filepath.Join(dir, "mnt")
	mounted := false
	defer func() {
		if mounted {
			err = errors.Join(err, leaveLab(ctx, sys, mnt, stderr))
		}
		// With the mount still there, this would remove files through it.
		if rmErr := syscall.Rmdir(mnt); rmErr != nil && rmErr != syscall.ENOENT {
			err = errors.Join(err, fmt.Errorf("%s is left behind: %w", dir, rmErr))
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	backing := filepath.Join(dir, "backing")
	bin := filepath.Join(dir, ".bin")
	for _, name := range []string{backing, mnt, bin} {
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
	}
	// The exercises call mapfs by its name, wherever it is installed, or not.
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Symlink(self, filepath.Join(bin, "mapfs")); err != nil {
		return err
	}
	flags := mountFlags{logLevel: "info", readyFD: noReadyFD}
	if err := mount(ctx, sys, &flags, []string{backing, mnt}, stderr); err != nil {
		return err
	}
	mounted = true
	fmt.Fprintf(out, `You are in %s, where backing is mounted on mnt.
The text again: mapfs lab %d | less. 'exit' ends the exercise and removes all of it.

`, dir, e.Number)
	return labShell(dir, bin, signals)
}

// labShell runs the shell. How it ends is its user's affair.
func labShell(dir, bin string, signals <-chan os.Signal) error {
	shell := "bash"
	if _, err := exec.LookPath(shell); err != nil {
		if shell = os.Getenv("SHELL"); shell == "" {
			shell = "sh"
		}
	}
	cmd := exec.Command(shell)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case sig := <-signals:
				if sig != syscall.SIGINT {
					// A shell at a terminal ignores SIGTERM.
					_ = cmd.Process.Signal(syscall.SIGHUP)
				}
			case <-ended:
				return
			}
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// leaveLab unmounts. What a program that was left in the background still has open
// does not keep the mount in sight.
func leaveLab(ctx context.Context, sys system, mnt string, stderr io.Writer) error {
	err := umount(ctx, sys, mnt, false, stderr)
	if errors.Is(err, mountpoint.ErrNotMapfs) {
		return nil // an exercise can end with it
	}
	if err == nil {
		return nil
	}
	fmt.Fprintf(stderr, "mapfs: %s still uses the mount, which ends with its last user\n", describeHolders(sys.holders(mnt)))
	return umount(ctx, sys, mnt, true, stderr)
}
