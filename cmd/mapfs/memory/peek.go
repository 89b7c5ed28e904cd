//go:build linux

package memory

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"mapfs/client"
	"mapfs/cmd/mapfs/cli"
)

func newPeekCommand() *cobra.Command {
	var flags mappingFlags
	var raw bool
	cmd := &cobra.Command{
		Use:   "peek [flags] FILE",
		Short: "Map a file, load its bytes and print them",
		Long: `Map FILE with mmap(2) and print the bytes that are loaded from the mapping. FILE
can be any file on any filesystem; it need not be in a mapfs mount.

Any offset will do: the mapping begins with the page that it is in. The bytes
between the end of the file and the end of its last page are zeros.

` + faultsHelp,
		Example: `  mapfs peek ~/mnt/notes.txt
  mapfs peek --offset 1M --length 64 ~/mnt/big
  mapfs peek --length 4k ~/mnt/notes.txt      zeros past the end, up to the page's end
  mapfs peek --prot none ~/mnt/notes.txt      SIGSEGV`,
		Args:              oneClientFile,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			return peek(cmd.OutOrStdout(), args[0], &flags, raw)
		},
	}
	flags.registerRange(cmd, "start at byte `N` of the file", "print `N` bytes (to the end of the file)")
	flags.registerProtection(cmd, unix.PROT_READ)
	cmd.Flags().BoolVar(&raw, "raw", false, "print the bytes as they are, not in hexadecimal")
	return cmd
}

// oneClientFile is for verbs that take any file.
func oneClientFile(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return cli.Usagef("name a FILE")
	case len(args) > 1:
		return cli.Usagef("unexpected argument %q after FILE", args[1])
	}
	return cli.NotEmpty("FILE", args)
}

func peek(out io.Writer, path string, flags *mappingFlags, raw bool) (err error) {
	m, begin, err := client.MapAround(path, flags.options())
	if err != nil {
		return err
	}
	defer closeMapping(m, &err)
	if begin >= m.Length() {
		return fmt.Errorf("%s: nothing to load at offset %d, the file ends before; name a --length to load past its end",
			path, flags.offset.N)
	}
	if raw {
		return loadAll(m, begin, out)
	}
	dump := newDumper(out, flags.offset.N)
	err = loadAll(m, begin, dump)
	// What came before a fault is shown before the sentence about it.
	if closeErr := dump.Close(); err == nil {
		err = closeErr
	}
	return err
}

// peekChunk is how much is loaded before it is printed.
const peekChunk = 64 << 10

// loadAll copies the mapping to w, from begin to its length.
func loadAll(m *client.Mapping, begin int64, w io.Writer) error {
	buf := make([]byte, min(peekChunk, m.Length()-begin))
	for off := begin; off < m.Length(); {
		chunk := buf[:min(int64(len(buf)), m.Length()-off)]
		n, err := m.Load(chunk, off)
		if _, writeErr := w.Write(chunk[:n]); writeErr != nil {
			return writeErr
		}
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// closeMapping is for defer. It tells an error unless there is one already.
func closeMapping(m *client.Mapping, err *error) {
	if closeErr := m.Close(); *err == nil {
		*err = closeErr
	}
}
