//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/internal/quote"
)

func newCtlCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "ctl PATH 'COMMAND'",
		Short: "Give a command to a mount or to one of its files",
		Long: `Write COMMAND to the ctl of the file PATH, or, if PATH is a directory, to that of
the mount which it is in. Prints the answer if there is one. Several lines are
commands that run in order, up to the first that fails.

For a file:    msync [offset=N] [length=N] [flags=sync|async|invalidate]
               mode shared|private|staged
               madvise advice=dontneed|willneed|cold|pageout [offset=N] [length=N]
               mlock|munlock [offset=N] [length=N]
For a mount:   sync
The man page mapfs-control(5) has all of them.`,
		Example: `  mapfs ctl ~/mnt/notes.txt 'msync offset=0 length=4096 flags=async'
  mapfs ctl ~/mnt/notes.txt 'madvise advice=willneed'
  mapfs ctl ~/mnt sync`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) < 2:
				return cli.Usagef("name a PATH in a mapfs mount and the COMMAND")
			case len(args) > 2:
				return cli.Usagef("unexpected argument %q; a COMMAND of several words is one argument, in quotes", args[2])
			case strings.TrimSpace(args[1]) == "":
				return cli.Usagef("COMMAND must not be empty")
			}
			return cli.NotEmpty("PATH", args)
		},
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(sys, args[0])
			if err != nil {
				return err
			}
			answer, err := t.command(sys, args[1])
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), answer)
			return err
		},
	}
}

// command gives the target's ctl a command and returns the answer: a line for
// each command that has more to say than that all is well.
func (t target) command(sys system, text string) (string, error) {
	answer, err := sys.command(t.path("ctl"), text+"\n")
	if errors.Is(err, os.ErrPermission) && !errors.As(err, new(commandError)) {
		return "", fmt.Errorf("%s: permission denied; only the owner of the mount and root may give commands", t)
	}
	if err != nil {
		return "", t.explain(err)
	}
	var told strings.Builder
	for line := range strings.Lines(answer) {
		if line != "ok\n" {
			told.WriteString(line)
		}
	}
	return told.String(), nil
}

// commandError is a command that failed, in the words of the mount.
type commandError struct {
	sentence string
	errno    error
}

func (e commandError) Error() string { return e.sentence }
func (e commandError) Unwrap() error { return e.errno }

// realCommand writes to a ctl by one write(2), whose errno is the answer, and
// reads the result or the error's sentence. It takes as long as the command.
func realCommand(ctl, text string) (string, error) {
	file, err := ctltree.Within(ctltree.Limit, ctl, func() (*os.File, error) { return os.OpenFile(ctl, os.O_RDWR, 0) })
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = file.WriteString(text)
	answer, readErr := io.ReadAll(file)
	if err != nil {
		if sentence := strings.TrimSpace(string(answer)); sentence != "" {
			err = commandError{sentence, err}
		}
		return "", err
	}
	return string(answer), readErr
}

// explain makes an error at a file of the control tree one about the target.
func (t target) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.As(err, new(commandError)):
		return err
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		return fmt.Errorf("%s: the mount is gone, its daemon has ended", t.mountpoint)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: the mount is read-only (-o ro), so the kernel refuses commands as it does every write", t)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: permission denied", t)
	case errors.Is(err, os.ErrNotExist):
		if _, err := os.Lstat(t.control); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: the mount is gone, nothing is mounted there any more", t.mountpoint)
		}
		return fmt.Errorf("%s: no such file any more", t)
	}
	return err
}

// String is the path of what the target tells of, quoted where a terminal or a
// line of text needs it.
func (t target) String() string {
	switch t.kind {
	case targetFile:
		return quote.Path(filepath.Join(t.mountpoint, t.name))
	case targetMapping:
		return quote.Path(t.dir)
	}
	return quote.Path(t.mountpoint)
}
