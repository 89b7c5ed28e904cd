//go:build linux

package main

import (
	"fmt"
	"mapfs/cmd/mapfs/cli"
	"strings"

	"github.com/spf13/cobra"
)

// msyncFlags are the flags of "mapfs msync".
type msyncFlags struct {
	offset, length          cli.ByteCount
	sync, async, invalidate bool
}

func newMsyncCommand(sys system) *cobra.Command {
	var flags msyncFlags
	cmd := &cobra.Command{
		Use:   "msync [flags] FILE",
		Short: "Write a file's changed pages back",
		Long: `Write the changed pages of FILE back, as msync(2) does with its mapping, and wait
until the device has them. Without a range it is the whole file.

An offset must be a multiple of the page size. Numbers are bytes and take the
suffixes k, M, G and T, powers of 1024.

What is changed in a private file is written nowhere; --invalidate gives it up, and
what is changed in a staged one too.`,
		Example: `  mapfs msync ~/mnt/notes.txt
  mapfs msync --offset 1M --length 64k ~/mnt/big
  mapfs msync --async ~/mnt/big
  mapfs msync --invalidate ~/mnt/staged.db`,
		Args:              oneFile,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findFile(sys, args[0])
			if err != nil {
				return err
			}
			_, err = t.command(sys, flags.command())
			return err
		},
	}
	f := cmd.Flags()
	f.Var(&flags.offset, "offset", "start at byte `N`")
	f.Var(&flags.length, "length", "write back `N` bytes (to the end of the file)")
	f.BoolVar(&flags.sync, "sync", false, "wait for the device (MS_SYNC); the default without another flag")
	f.BoolVar(&flags.async, "async", false, "start the write-back, do not wait for it (MS_ASYNC)")
	f.BoolVar(&flags.invalidate, "invalidate", false, "drop what is cached or copied, unwritten unless told to write (MS_INVALIDATE)")
	for _, name := range []string{"offset", "length"} {
		if err := cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions); err != nil {
			panic(err) // only for a flag that is not there, or has one already
		}
	}
	return cmd
}

// command is what the file's ctl is told. Whether the numbers fit the file is
// for the mount to say.
func (f *msyncFlags) command() string {
	var how []string
	for _, flag := range []struct {
		on   bool
		name string
	}{{f.sync || !f.async && !f.invalidate, "sync"}, {f.async, "async"}, {f.invalidate, "invalidate"}} {
		if flag.on {
			how = append(how, flag.name)
		}
	}
	words := []string{"msync"}
	if f.offset.Given {
		words = append(words, fmt.Sprintf("offset=%d", f.offset.N))
	}
	if f.length.Given {
		words = append(words, fmt.Sprintf("length=%d", f.length.N))
	}
	return strings.Join(append(words, "flags="+strings.Join(how, ",")), " ")
}
