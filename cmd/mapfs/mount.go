//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"mapfs/cmd/mapfs/cli"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// mountFlags are the flags of "mapfs" and "mapfs mount".
type mountFlags struct {
	foreground bool
	options    []string // each a comma list
	logFile    string
	logLevel   string
	// metricsAddr is where the metrics are served by HTTP; "" for nowhere.
	metricsAddr string
	readyFD     int  // only in the daemon: where its parent waits (daemon.go)
	version     bool // only of "mapfs"
}

// noReadyFD is mountFlags.readyFD in a process that the user started.
const noReadyFD = -1

func (f *mountFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVarP(&f.foreground, "foreground", "f", false, "stay in the foreground and log to stderr")
	flags.StringArrayVarP(&f.options, "options", "o", nil, "mount options `OPT,...`; may be repeated")
	flags.StringVar(&f.logFile, "log-file", "", "append the log to `FILE`, not to the system's log or stderr")
	flags.StringVar(&f.logLevel, "log-level", "info", "log from this `LEVEL` on: debug, info, warn, error")
	flags.StringVar(&f.metricsAddr, "metrics-addr", "", "serve the metrics at http://`HOST:PORT`/metrics, on loopback only")
	f.readyFD = noReadyFD
	registerMountCompletions(cmd)
}

func newMountCommand(sys system) *cobra.Command {
	var flags mountFlags
	cmd := &cobra.Command{
		Use:               "mount [flags] BACKING MOUNTPOINT",
		Short:             "Mount a mirror of BACKING on MOUNTPOINT; the same as mapfs alone",
		Long:              "Mount a mirror of the directory BACKING on the directory MOUNTPOINT.\n\n" + optionsHelp(),
		Args:              mountArgs,
		ValidArgsFunction: completeDirectories,
		RunE: func(cmd *cobra.Command, args []string) error {
			return mount(cmd.Context(), sys, &flags, args, cmd.ErrOrStderr())
		},
	}
	flags.register(cmd)
	cmd.Flags().IntVar(&flags.readyFD, readyFlag, noReadyFD, "")
	if err := cmd.Flags().MarkHidden(readyFlag); err != nil {
		panic(err) // the flag was made in the line above
	}
	return cmd
}

// mountArgs wants BACKING and MOUNTPOINT, unless --version asks for neither.
func mountArgs(cmd *cobra.Command, args []string) error {
	if flag := cmd.Flags().Lookup("version"); flag != nil && flag.Changed {
		return nil
	}
	switch {
	case len(args) == 0:
		return cli.Usagef("name the directories BACKING and MOUNTPOINT")
	case len(args) == 1:
		return cli.Usagef("name the directory MOUNTPOINT after BACKING, which is %q", args[0])
	case len(args) > 2:
		return cli.Usagef("unexpected argument %q after BACKING and MOUNTPOINT", args[2])
	}
	return nil
}

// mount serves BACKING on MOUNTPOINT: here with -f and in the daemon, otherwise
// in a daemon that it starts.
func mount(ctx context.Context, sys system, flags *mountFlags, args []string, stderr io.Writer) error {
	opts := defaultOptions()
	if err := parseOptions(&opts, flags.options); err != nil {
		return err
	}
	if err := checkOptions(&opts); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(flags.logLevel)); err != nil {
		return cli.Usagef("--log-level %s: choose debug, info, warn or error", flags.logLevel)
	}
	if flags.metricsAddr != "" {
		if err := checkMetricsAddr(flags.metricsAddr); err != nil {
			return err
		}
	}
	for _, arg := range args {
		if arg == "" {
			return cli.Usagef("BACKING and MOUNTPOINT must not be empty")
		}
	}
	// Absolute, for the log, and because the daemon works in "/".
	paths := []string{args[0], args[1], flags.logFile}
	for i, path := range paths {
		absolute, err := absolutePath(path)
		if err != nil {
			return err
		}
		paths[i] = absolute
	}
	opts.Backing, opts.Mountpoint, flags.logFile = paths[0], paths[1], paths[2]

	isDaemon := flags.readyFD != noReadyFD
	if !flags.foreground && !isDaemon {
		return startDaemon(sys, flags, opts.Backing, opts.Mountpoint)
	}
	return serveMount(ctx, sys, flags, opts, level, stderr)
}

// absolutePath is filepath.Abs without its cleaning, which takes "link/.." for
// nothing although the kernel follows the link first. No path stays none.
func absolutePath(path string) (string, error) {
	if path == "" || filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(wd, "/") + "/" + path, nil
}

// daemonArgs is the command line of the daemon; all paths are absolute.
func daemonArgs(flags *mountFlags, readyFD int, backing, mountpoint string) []string {
	args := []string{"mount", fmt.Sprintf("--%s=%d", readyFlag, readyFD)}
	if flags.logFile != "" {
		args = append(args, "--log-file="+flags.logFile)
	}
	args = append(args, "--log-level="+flags.logLevel)
	if flags.metricsAddr != "" {
		args = append(args, "--metrics-addr="+flags.metricsAddr)
	}
	if list := strings.Join(flags.options, ","); list != "" {
		args = append(args, "-o", list)
	}
	return append(args, "--", backing, mountpoint)
}
