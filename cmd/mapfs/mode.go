//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
)

// modes are what a file's mode can be.
var modes = []string{"shared", "private", "staged"}

func newModeCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "mode FILE [MODE]",
		Short: "Show or change where stores to a file go",
		Long: `Print the mode of FILE, or change it to MODE:

  shared    a store is in the backing file at once; a sync brings it to the device
  private   the first store to a page copies it; the backing file never changes
  staged    like private, but a sync writes the copied pages to the backing file

While FILE has unsynced bytes its mode does not change: 'mapfs msync FILE' writes
them, 'mapfs ctl FILE "msync flags=invalidate"' gives up those of a private or
staged file. A file keeps its mode until the mount ends.`,
		Example: `  mapfs mode ~/mnt/notes.txt
  mapfs mode ~/mnt/notes.txt staged`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return cli.Usagef("name a FILE in a mapfs mount")
			case len(args) > 2:
				return cli.Usagef("unexpected argument %q after FILE and MODE", args[2])
			case len(args) == 2 && !slices.Contains(modes, args[1]):
				return cli.Usagef("mode %q: choose %s", args[1], strings.Join(modes, ", "))
			}
			return cli.NotEmpty("FILE", args[:1])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return modes, cobra.ShellCompDirectiveNoFileComp
			}
			return cli.CompletePath(cmd, args, toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findFile(sys, args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				_, err = t.command(sys, "mode "+args[1])
				return err
			}
			status, err := ctltree.ReadStatus(t.path("status"))
			if err != nil {
				return t.explain(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), status["mode"])
			return nil
		},
	}
}
