//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/fs/mountpoint"
)

// server is the daemon of a mount: *mountpoint.Daemon.
type server interface {
	Wait(ctx context.Context) error
	Close() error
}

// noteAfter is how long umount waits in silence.
const noteAfter = 2 * time.Second

func newUmountCommand(sys system) *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "umount [-l] MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "Unmount, and wait until everything is written back",
		Long: `Unmount a mapfs and wait until its daemon has written everything back and ended.
It also clears away a mount whose daemon is dead.

With -l a mount that is in use is taken out of sight at once; it ends, and is
written back, when its last user is gone. The command does not wait for that.`,
		Example: `  mapfs umount ~/mnt
  mapfs umount -l ~/mnt`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || args[0] == "":
				return cli.Usagef("name the MOUNTPOINT to unmount")
			case len(args) > 1:
				return cli.Usagef("unexpected argument %q after MOUNTPOINT", args[1])
			}
			return nil
		},
		ValidArgsFunction: completeMountpoints(sys),
		RunE: func(cmd *cobra.Command, args []string) error {
			return umount(cmd.Context(), sys, args[0], lazy, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "detach now, end when the last user is gone")
	return cmd
}

func umount(ctx context.Context, sys system, path string, lazy bool, stderr io.Writer) error {
	// Find the daemon first: afterwards no mount leads to it.
	daemon, err := sys.findDaemon(path)
	if errors.Is(err, mountpoint.ErrNotMapfs) {
		return fmt.Errorf("%s: %w", path, mountpoint.ErrNotMapfs)
	}
	if err != nil {
		return err
	}
	if daemon != nil {
		defer daemon.Close()
	}
	if err := sys.unmount(path, lazy); err != nil {
		return explainUnmount(sys, path, err)
	}
	if daemon == nil || lazy {
		return nil
	}
	if isTerminal(stderr) {
		note := time.AfterFunc(noteAfter, func() {
			fmt.Fprintf(stderr, "mapfs: %s is unmounted; waiting for its daemon to write everything back (Ctrl-C to stop waiting)\n", path)
		})
		defer note.Stop()
	}
	if err := daemon.Wait(ctx); err != nil {
		return fmt.Errorf("%s is unmounted, but %w; not everything may be written back, see its log", path, err)
	}
	return nil
}

// explainUnmount says why a mount is still there, and what to do.
func explainUnmount(sys system, path string, err error) error {
	switch {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s is busy: %s; end that, or detach it with 'mapfs umount -l %s'",
			path, describeHolders(sys.holders(path)), path)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: only root and the user who mounted it may unmount it", path)
	}
	return err
}

// isTerminal also says yes to /dev/null, where a note does no harm.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
