//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/cmd/mapfs/display"
	"mapfs/cmd/mapfs/picture"
)

// pagesFlags are the flags of "mapfs pages".
type pagesFlags struct{ json, noColor bool }

func newPagesCommand(sys system) *cobra.Command {
	var flags pagesFlags
	cmd := &cobra.Command{
		Use:   "pages [--json] [--no-color] FILE",
		Short: "Show the state of every page of a file",
		Long: `Show the pages of FILE as a picture: one character a page, each row led by its
byte offset. Rows that repeat the one before are left out and counted.

` + picture.LegendLong + `
A page in several states shows the first of them. There are colors when stdout
is a terminal and NO_COLOR is not set. FILE can also be a directory in
.mapfs/mappings.

With --json all states of the pages are printed, as runs of equal pages.`,
		Example: `  mapfs pages ~/mnt/notes.txt
  mapfs pages --json ~/mnt/big | jq '.runs[] | select(.flags | contains("D"))'`,
		Args:              oneFile,
		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findFile(sys, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			screen := display.Of(out)
			if flags.noColor {
				screen.Color = false
			}
			w := bufio.NewWriter(out)
			if err := printPages(t, w, screen, flags.json); err != nil {
				return err
			}
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&flags.json, "json", false, "print runs of equal pages and a summary as JSON")
	cmd.Flags().BoolVar(&flags.noColor, "no-color", false, "print plain text on a terminal too")
	return cmd
}

func printPages(t target, w io.Writer, screen display.Screen, asJSON bool) error {
	view, err := readPageView(t)
	if err != nil {
		return err
	}
	pages, err := ctltree.Open(t.path("pages"))
	if err != nil {
		return t.explain(err)
	}
	defer pages.Close()
	if asJSON {
		return t.explain(printJSON(w, view, pages))
	}
	return t.explain(printPicture(w, view, pages, screen))
}

// pageView is what is known of a file before its pages are read.
type pageView struct {
	name          string // as the control tree writes it
	mode          string
	size          int64 // bytes
	pageSize      int64
	unsyncedBytes int64
}

func readPageView(t target) (pageView, error) {
	pageSize, err := t.pageSize()
	if err != nil {
		return pageView{}, err
	}
	status, err := ctltree.ReadStatus(t.path("status"))
	if err != nil {
		return pageView{}, t.explain(err)
	}
	return newPageView(t, pageSize, status), nil
}

func newPageView(t target, pageSize int64, status ctltree.Status) pageView {
	v := pageView{
		name: status["path"], mode: status["mode"], size: status.Number("size"),
		pageSize: pageSize, unsyncedBytes: status.Number("unsynced_bytes"),
	}
	if t.kind == targetMapping {
		v.name, v.mode, v.size = t.name, status["flags"], status.Number("length")
	}
	return v
}

// printPicture prints the pages for people.
func printPicture(w io.Writer, view pageView, pages io.Reader, screen display.Screen) error {
	fmt.Fprintf(w, "%s: %s, %s; one character is a page of %s\n\n",
		view.name, display.ExactBytes(view.size), view.mode, display.ShortBytes(view.pageSize))
	labels := display.LabelWidth(view.size)
	drawing := picture.Picture{
		W: w, Color: screen.Color, PageSize: view.pageSize, Labels: labels,
		PerRow: picture.PagesPerRow(screen.Width - labels - display.LabelGap),
	}
	rows := picture.RowMaker{PerRow: drawing.PerRow, Emit: drawing.Row}
	var sum picture.Summary
	err := picture.ReadRuns(pages, func(run picture.Run) error {
		sum.Add(run)
		return rows.Add(run)
	})
	if err == nil {
		err = rows.End()
	}
	if err == nil {
		err = drawing.End()
	}
	if err != nil {
		return err
	}
	if sum.Pages > 0 {
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, picture.Legend(screen.Color))
	_, err = fmt.Fprintf(w, "%s; %s unsynced\n", sum, display.ExactBytes(view.unsyncedBytes))
	return err
}
