//go:build linux

// Mapfs mounts a mirror of a directory in which every file is a memory mapping.
//
// This package is the command: arguments, the background process, signals and
// messages. What it mounts is in package fs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/memory"
)

// Exit codes; see "mapfs --help".
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	// exitSignal is what a shell adds to the number of the signal that ended a
	// process.
	exitSignal = 128
)

// defaultPath is where a shell looks when PATH is not set.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func main() {
	// mount(8) runs us without a PATH, and fusermount3 has to be found.
	if os.Getenv("PATH") == "" {
		if err := os.Setenv("PATH", defaultPath); err != nil {
			panic(err) // neither name nor value can be wrong
		}
	}
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runOn(ctx, realSystem(), args, stdin, stdout, stderr)
}

// runOn is run on a system that a test can fake.
func runOn(ctx context.Context, sys system, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand(sys)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var quiet cli.Quiet
	if errors.As(err, &quiet) {
		return quiet.Code
	}
	var usage cli.Usage
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "mapfs: %v; see 'mapfs --help'\n", err)
		return exitUsage
	}
	fmt.Fprintf(stderr, "mapfs: %v\n", err)
	var fault *client.Fault
	if errors.As(err, &fault) {
		return exitSignal + int(fault.Signal)
	}
	var coded cli.Coded
	if errors.As(err, &coded) {
		return coded.Code
	}
	return exitFailed
}

func rootLong() string {
	return `mapfs mounts a mirror of the directory BACKING on the directory MOUNTPOINT.
Every file in the mirror is one memory mapping of the file in BACKING.

The command returns when the mount answers; a daemon in the background serves
it until it is unmounted. Stop it with 'mapfs umount MOUNTPOINT'.

` + optionsHelp() + `
Exit codes: 0 done, 1 failed, 2 wrong usage; of peek, poke and hold also 135 and
139, when an access ended in SIGBUS or SIGSEGV; of pending and run 3, when something
is pending that should not be; of run else that of its command.`
}

const rootExample = `  mapfs ~/data ~/mnt                      mount in the background
  mapfs umount ~/mnt                      unmount, when everything is written back
  mapfs -f ~/data ~/mnt                   stay and log to the terminal; Ctrl-C unmounts
  mapfs -o ro,attr_timeout=10 /srv /mnt   mount read-only
  mount -t fuse.mapfs /srv /mnt -o ro     the same by mount(8)
  mapfs mount version /mnt                mirror a directory named like a command

  In /etc/fstab:
  /srv  /mnt  fuse.mapfs  allow_other,nofail  0  0`

func newRootCommand(sys system) *cobra.Command {
	var flags mountFlags
	root := &cobra.Command{
		Use:               "mapfs [flags] BACKING MOUNTPOINT",
		Short:             "Mount a mirror of a directory, every file a memory mapping",
		Long:              rootLong(),
		Example:           rootExample,
		Args:              mountArgs,
		SilenceUsage:      true, // a mistake deserves one line, not a page
		SilenceErrors:     true, // run prints them
		ValidArgsFunction: completeDirectories,
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.version {
				fmt.Fprintln(cmd.OutOrStdout(), versionLine())
				return nil
			}
			return mount(cmd.Context(), sys, &flags, args, cmd.ErrOrStderr())
		},
	}
	// Our own, because cobra's takes -v too, which mount(8) means otherwise.
	root.Flags().BoolVar(&flags.version, "version", false, "print the version and exit")
	flags.register(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return cli.Usage{Err: err} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newMountCommand(sys), newUmountCommand(sys), newVersionCommand(), newCompletionCommand())
	root.AddCommand(viewers(sys)...)
	root.AddCommand(memory.Commands(sys.signals)...)
	root.AddCommand(newLabCommand(sys), newRunCommand(sys), newCrashCommand(sys))
	return root
}
