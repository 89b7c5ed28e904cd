//go:build linux

package memory

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/display"
)

// pokeFlags are the flags of "mapfs poke".
type pokeFlags struct {
	mappingFlags
	msync   msyncFlag
	verbose bool
}

func newPokeCommand() *cobra.Command {
	flags := pokeFlags{msync: "none"}
	cmd := &cobra.Command{
		Use:   "poke [flags] FILE OFFSET [TEXT|-]",
		Short: "Map a file and store bytes to it",
		Long: `Map FILE with mmap(2) and store TEXT at byte OFFSET of it: nothing else, no
write(2). Without TEXT, or if it is -, the bytes come from stdin. FILE can be any
file on any filesystem; it need not be in a mapfs mount.

A store never makes a file longer. Bytes past its end are stored to the rest of
its last page and never reach it; a note on stderr tells how many they are.

` + faultsHelp,
		Example: `  mapfs poke ~/mnt/notes.txt 0 Hello
  mapfs poke --msync sync -v ~/mnt/notes.txt 100 'on the device'
  printf 'two\nlines\n' | mapfs poke ~/mnt/notes.txt 4k
  mapfs poke --private ~/mnt/notes.txt 0 'nobody sees this'
  mapfs poke --prot r ~/mnt/notes.txt 0 x                     SIGSEGV`,
		Args:              pokeArgs,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			// pokeArgs has seen it.
			if err := flags.offset.Set(args[1]); err != nil {
				return cli.Usagef("OFFSET %q: %v", args[1], err)
			}
			data, err := pokeData(cmd.InOrStdin(), args[2:])
			if err != nil {
				return err
			}
			return poke(args[0], data, &flags, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.registerProtection(cmd, unix.PROT_READ|unix.PROT_WRITE)
	f := cmd.Flags()
	f.Var(&flags.msync, "msync", "then call msync(2): sync, async or none")
	f.BoolVarP(&flags.verbose, "verbose", "v", false, "say in one line what was done")
	completeFlag(cmd, "msync", "sync", "async", "none")
	return cmd
}

func pokeArgs(_ *cobra.Command, args []string) error {
	switch {
	case len(args) < 2:
		return cli.Usagef("name a FILE and the OFFSET to store at")
	case len(args) > 3:
		return cli.Usagef("unexpected argument %q; a TEXT of several words is one argument, in quotes", args[3])
	case len(args) == 3 && args[2] == "":
		return cli.Usagef("TEXT must not be empty")
	}
	return cli.NotEmpty("FILE", args)
}

// pokeData is TEXT, or what stdin has.
func pokeData(stdin io.Reader, text []string) ([]byte, error) {
	if len(text) > 0 && text[0] != "-" {
		return []byte(text[0]), nil
	}
	data, err := io.ReadAll(stdin)
	if err == nil && len(data) == 0 {
		err = fmt.Errorf("nothing to store: stdin is empty")
	}
	return data, err
}

func poke(path string, data []byte, flags *pokeFlags, out, note io.Writer) (err error) {
	flags.length = cli.ByteCount{N: int64(len(data)), Given: true}
	m, begin, err := client.MapAround(path, flags.options())
	if err != nil {
		return err
	}
	defer closeMapping(m, &err)
	size, err := m.Size()
	if err != nil {
		return err
	}
	if _, err := m.Store(data, begin); err != nil {
		return err
	}
	if how, wanted := flags.msync.bits(); wanted {
		if err := m.Msync(0, m.Length(), how); err != nil {
			return err
		}
	}
	end := flags.offset.N + int64(len(data))
	if lost := end - max(flags.offset.N, size); lost > 0 {
		fmt.Fprintf(note, "mapfs: note: the file has %s; the last %d stored are past its end and never reach it\n",
			display.ExactBytes(size), lost)
	}
	if flags.verbose {
		_, err = fmt.Fprintln(out, flags.report(end))
	}
	return err
}

// report says what was done with the bytes up to end.
func (f *pokeFlags) report(end int64) string {
	pageSize := int64(os.Getpagesize())
	first, last := f.offset.N/pageSize, (end-1)/pageSize
	pages := fmt.Sprintf("page %d", first)
	if last > first {
		pages = fmt.Sprintf("pages %d-%d", first, last)
	}
	how := "shared"
	if f.private {
		how = "private: it is gone with this process"
	}
	return fmt.Sprintf("stored %s at offset %d, %s, %s; msync %s", display.ExactBytes(end-f.offset.N), f.offset.N, pages, how, f.msync)
}

// msyncFlag is when a store is written back: sync, async, or none.
type msyncFlag string

func (m *msyncFlag) Type() string   { return "WHEN" }
func (m *msyncFlag) String() string { return string(*m) }

func (m *msyncFlag) Set(text string) error {
	*m = msyncFlag(text)
	if _, wanted := m.bits(); !wanted && text != "none" {
		return fmt.Errorf("choose sync, async or none")
	}
	return nil
}

// bits are the flags for msync(2), if it is wanted.
func (m *msyncFlag) bits() (int, bool) {
	if *m != "sync" && *m != "async" {
		return 0, false
	}
	bits, err := client.ParseMsync(string(*m))
	return bits, err == nil
}
