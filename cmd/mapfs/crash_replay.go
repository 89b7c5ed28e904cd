//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/crashreport"
	"mapfs/fs/crash"
	"mapfs/fs/crash/explore"
	"mapfs/internal/quote"
)

// readReport reads the report in a directory.
func readReport(dir string) (*explore.Report, error) {
	text, err := os.ReadFile(filepath.Join(dir, reportFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s has no report: 'mapfs crash --report %s' makes one", quote.Path(dir), quote.Path(dir))
	}
	if err != nil {
		return nil, err
	}
	r := new(explore.Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, reportFile), err)
	}
	return r, nil
}

func newCrashListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list DIR",
		Short: "Tell again what a report says",
		Args:  oneDirectory,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := readReport(args[0])
			if err == nil {
				crashreport.Text(cmd.OutOrStdout(), r, keptIn(args[0]))
			}
			return err
		},
	}
}

func newCrashReplayCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replay DIR [N] [-- COMMAND [ARG]...]",
		Short: "Make the state of finding N again, and run a shell or a command in it",
		Long: `Make the state of finding N of a report again (the first one, if N is left out) in a
temporary directory, run a shell in it, or COMMAND, and remove it. ` + explore.StateVar + ` is
the directory. The exit code is that of COMMAND.`,
		Example: `  mapfs crash replay found 2
  mapfs crash replay found -- ls -l`,
		Args: func(cmd *cobra.Command, args []string) error {
			n := cmd.ArgsLenAtDash()
			if n < 0 {
				n = len(args)
			}
			if n < 1 || n > 2 {
				return cli.Usagef("name the directory DIR of a report, and the number of a finding")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			names, command := args, []string(nil)
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				names, command = args[:n], args[n:]
			}
			dir, number := names[0], 1
			if len(names) == 2 {
				var err error
				if number, err = strconv.Atoi(names[1]); err != nil {
					return cli.Usagef("%q is no number of a finding", names[1])
				}
			}
			return replayFinding(cmd, dir, number, command)
		},
	}
}

// replayFinding makes the state of a finding and runs a command in it.
func replayFinding(cmd *cobra.Command, dir string, number int, command []string) error {
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	if number < 1 || number > len(r.Findings) {
		return fmt.Errorf("the report in %s has no finding %d: it has %d", quote.Path(dir), number, len(r.Findings))
	}
	if len(command) == 0 {
		shell := os.Getenv("SHELL")
		if shell == "" {
			shell = "/bin/sh"
		}
		command = []string{shell}
	}
	path, err := findCommand(command[0])
	if err != nil {
		return err
	}
	var o explore.Options
	if o.Model, err = crash.ModelOf(r.Model); err != nil {
		return err
	}
	done, err := openRecording(&o, recordingDir(dir))
	if err != nil {
		return err
	}
	defer done()
	state := filepath.Join(o.Dir, "state")
	if err := explore.Build(&o, &r.Findings[number-1], state); err != nil {
		return err
	}
	child := exec.Command(path, command[1:]...)
	child.Dir = state
	child.Env = append(os.Environ(), explore.StateVar+"="+state, "PWD="+state)
	child.Stdin, child.Stdout, child.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	return exitOf(child.Run())
}
