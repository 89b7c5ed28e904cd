//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"mapfs/cmd/mapfs/cli"
	"mapfs/cmd/mapfs/ctltree"
	"mapfs/cmd/mapfs/display"
	"mapfs/cmd/mapfs/picture"
)

func newWatchCommand(sys system) *cobra.Command {
	var noColor bool
	cmd := &cobra.Command{
		Use:   "watch FILE",
		Short: "Watch a file's pages, counters and events live",
		Long: `Show the pages of FILE, its counters and its last events, and keep them up to
date: beside a shell with dd and sync, for example.

Keys:
` + watchKeys,
		Example: `  mapfs watch ~/mnt/notes.txt`,
		Args:    oneFile,

		ValidArgsFunction: cli.CompletePath,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := findFile(sys, args[0])
			if err != nil {
				return err
			}
			return watch(cmd, sys, t, noColor)
		},
	}
	cmd.Flags().BoolVar(&noColor, "no-color", false, "use no colors")
	return cmd
}

func watch(cmd *cobra.Command, sys system, t target, noColor bool) error {
	out, isFile := cmd.OutOrStdout().(*os.File)
	if !isFile || !hasScreen(out) {
		return errors.New("watch needs a terminal; see 'mapfs pages' for output to files and programs")
	}
	pageSize, err := t.pageSize()
	if err != nil {
		return err
	}
	model := newWatchModel(t, display.Of(out).Color && !noColor)
	model.read = func(q watchQuery) (*watchSnapshot, error) { return readSnapshot(t, pageSize, q) }
	model.sync = func() error {
		_, err := t.command(sys, (&msyncFlags{}).command())
		return err
	}
	_, err = tea.NewProgram(model, tea.WithContext(cmd.Context()), tea.WithOutput(out)).Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil // SIGINT is one more way to say that it is enough
	}
	return err
}

// watchQuery is the part of a file that the screen shows.
type watchQuery struct {
	first, n int64       // pages to read
	shown    picture.Run // those of them on the screen
	strip    int         // cells for the whole file; 0 for none
}

// watchSnapshot is what the control tree said of a file. Its size is that of
// the query, however large the file is.
type watchSnapshot struct {
	view   pageView
	status ctltree.Status
	sum    picture.Summary

	first int64
	cells []byte // letters of the pages from first on
	// before and after are the nearest pages outside of the screen that are in
	// some state, or -1.
	before, after int64
	strip         []byte // letters of equal parts of the whole file
	share         int64  // pages in such a part

	events []string // lines, the oldest first
}

// watchEvents bounds the events that are kept, watchEventBytes what is read of
// them at a time.
const (
	watchEvents     = 200
	watchEventBytes = 64 << 10
)

// readSnapshot reads the control tree. It opens every file anew and closes it:
// who watches must not keep the mount busy.
func readSnapshot(t target, pageSize int64, q watchQuery) (*watchSnapshot, error) {
	status, err := ctltree.ReadStatus(t.path("status"))
	if err != nil {
		return nil, t.explain(err)
	}
	s := &watchSnapshot{view: newPageView(t, pageSize, status), status: status, first: q.first, before: -1, after: -1}
	strip := newStrip(q.strip, (s.view.size+pageSize-1)/pageSize)
	pages, err := ctltree.Open(t.path("pages"))
	if err != nil {
		return nil, t.explain(err)
	}
	defer pages.Close()
	err = picture.ReadRuns(pages, func(run picture.Run) error {
		s.sum.Add(run)
		letter := picture.States[picture.StateOf(run.Flags)].Letter
		for page := max(run.First, q.first); page <= min(run.Last, q.first+q.n-1); page++ {
			s.cells = append(s.cells, letter)
		}
		strip.add(run)
		s.addNear(run, q.shown)
		return nil
	})
	if err != nil {
		return nil, t.explain(err)
	}
	s.strip, s.share = strip.letters(), strip.share
	err = recentEvents(t, watchEventBytes, func(line string) error {
		s.events = append(s.events, line)
		if len(s.events) > watchEvents {
			s.events = s.events[1:]
		}
		return nil
	})
	if err != nil {
		return nil, t.explain(err)
	}
	return s, nil
}

// addNear looks for the nearest pages outside of the screen.
func (s *watchSnapshot) addNear(run, shown picture.Run) {
	if picture.StateOf(run.Flags) == len(picture.States)-1 {
		return
	}
	if run.First < shown.First {
		s.before = min(run.Last, shown.First-1)
	}
	if run.Last > shown.Last && s.after < 0 {
		s.after = max(run.First, shown.Last+1)
	}
}

// pageStrip is a picture of a whole file in a few cells. A cell shows the
// highest state of its pages.
type pageStrip struct {
	share int64 // pages in a cell
	ranks []int // in pageStates
}

func newStrip(cells int, pages int64) *pageStrip {
	if cells <= 0 || pages <= 0 {
		return &pageStrip{}
	}
	share := (pages + int64(cells) - 1) / int64(cells)
	ranks := make([]int, (pages+share-1)/share)
	for i := range ranks {
		ranks[i] = len(picture.States) - 1
	}
	return &pageStrip{share, ranks}
}

func (s *pageStrip) add(run picture.Run) {
	if len(s.ranks) == 0 {
		return
	}
	rank := picture.StateOf(run.Flags)
	// The file can have grown since its size was read.
	for cell := run.First / s.share; cell <= min(run.Last/s.share, int64(len(s.ranks))-1); cell++ {
		s.ranks[cell] = min(s.ranks[cell], rank)
	}
}

func (s *pageStrip) letters() []byte {
	letters := make([]byte, len(s.ranks))
	for i, rank := range s.ranks {
		letters[i] = picture.States[rank].Letter
	}
	return letters
}

// refreshTime is the time from the end of one look at the control tree to the
// next: a file whose state takes long to read is read less often.
const refreshTime = 250 * time.Millisecond

// watchLimit is how old the screen may be before it says so.
const watchLimit = 2 * time.Second

// hasScreen says whether f is a terminal.
func hasScreen(f *os.File) bool {
	_, err := display.TerminalSize(f)
	return err == nil
}

// syncDone is the note after a msync.
func syncDone(took time.Duration) string {
	return fmt.Sprintf("msync done in %v", took.Round(time.Millisecond/10))
}
