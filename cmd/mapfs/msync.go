//go:build linux

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// msyncFlags are the flags of "mapfs msync".
type msyncFlags struct {
	offset, length          byteCount
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
		ValidArgsFunction: completeOnePath,
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
	if f.offset.set {
		words = append(words, fmt.Sprintf("offset=%d", f.offset.n))
	}
	if f.length.set {
		words = append(words, fmt.Sprintf("length=%d", f.length.n))
	}
	return strings.Join(append(words, "flags="+strings.Join(how, ",")), " ")
}

// byteCount is a flag with a number of bytes.
type byteCount struct {
	n   int64
	set bool
}

func (b *byteCount) Type() string { return "bytes" }

// String is the default that the help shows: none.
func (b *byteCount) String() string {
	if !b.set {
		return ""
	}
	return strconv.FormatInt(b.n, 10)
}

func (b *byteCount) Set(text string) error {
	n, err := parseBytes(text)
	b.n, b.set = n, err == nil
	return err
}

// parseBytes reads 4096, 64k, 0x1000.
func parseBytes(text string) (int64, error) {
	digits, shift := text, 0
	if text != "" {
		if i := strings.IndexByte("kmgt", text[len(text)-1]|0x20); i >= 0 {
			digits, shift = text[:len(text)-1], 10*(i+1)
		}
	}
	// Base 0 would take 010 for eight and 1_000 for a thousand.
	base := 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 63)
	if err != nil || strings.HasPrefix(digits, "+") {
		return 0, fmt.Errorf("not a number of bytes, like 4096, 64k or 1G")
	}
	if n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("more bytes than a file can have")
	}
	return int64(n) << shift, nil
}
