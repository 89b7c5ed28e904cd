//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/internal/quote"
)

func newStatusCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "status [PATH]",
		Short: "Show the state of a mount or of one of its files",
		Long: `Show the state and the counters of the mapfs mount that PATH is in, or, if PATH is
a regular file, of that file's mapping. PATH is the working directory if left out.`,
		Example: `  mapfs status ~/mnt
  mapfs status ~/mnt/notes.txt | grep unsynced`,
		Args:              optionalPath,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(sys, pathOrHere(args))
			if err != nil {
				return err
			}
			text, err := ctltree.Read(t.path("status"))
			if err != nil {
				return t.explain(err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
}

func newMapsCommand(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "maps [PATH]",
		Short: "List the mappings of a mount or of one of its files",
		Long: `List the mappings of the mapfs mount that PATH is in, as /proc/PID/maps does:
addresses, protection, offset, device, inode, path. If PATH is a regular file,
only its mappings are listed; a file that nobody has read or written yet has
none. PATH is the working directory if left out.`,
		Example: `  mapfs maps ~/mnt
  mapfs maps ~/mnt/notes.txt`,
		Args:              optionalPath,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findTarget(sys, pathOrHere(args))
			if err != nil {
				return err
			}
			return printMaps(t, cmd.OutOrStdout())
		},
	}
}

func printMaps(t target, out io.Writer) error {
	maps, err := ctltree.Open(filepath.Join(t.control, "maps"))
	if err != nil {
		return t.explain(err)
	}
	defer maps.Close()
	lines := bufio.NewScanner(maps)
	lines.Buffer(nil, maxLine)
	w := bufio.NewWriter(out)
	for lines.Scan() {
		if t.inMaps(lines.Text()) {
			fmt.Fprintln(w, lines.Text())
		}
	}
	if err := lines.Err(); err != nil {
		return t.explain(err)
	}
	return w.Flush()
}

// maxLine bounds a line of the control tree: a path of PATH_MAX bytes, each
// quoted as \xNN, and the columns around it.
const maxLine = 64 << 10

// inMaps says whether a row of maps is about the target:
// START-END PERMS OFFSET DEV INODE PATH [NAME].
func (t target) inMaps(row string) bool {
	if t.kind == targetMount {
		return true
	}
	columns := strings.SplitN(row, " ", 6)
	if len(columns) < 6 {
		return false
	}
	path, rest, ok := ctltree.CutPath(columns[5])
	if !ok {
		return false
	}
	if t.kind == targetMapping {
		name, _, ok := ctltree.CutPath(strings.TrimPrefix(rest, " "))
		return ok && name == t.name
	}
	return path == t.name
}

// pageSize is the daemon's, from the status of its mount.
func (t target) pageSize() (int64, error) {
	path := filepath.Join(t.control, "status")
	s, err := ctltree.ReadStatus(path)
	if err != nil {
		return 0, t.explain(err)
	}
	size := s.Number("page_size")
	if size <= 0 {
		return 0, fmt.Errorf("%s: no page_size in it", quote.Path(path))
	}
	return size, nil
}
