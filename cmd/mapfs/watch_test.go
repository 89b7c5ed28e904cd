//go:build linux

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"mapfs/cmd/mapfs/picture"
)

// fakeWatch plays a user at a screen. Commands run when the test says so.
type fakeWatch struct {
	t       *testing.T
	model   *watchModel
	queries []watchQuery
	syncs   int
	syncErr error
}

// newFakeWatch watches the file f of a fake tree.
func newFakeWatch(t *testing.T, f *fakeTree, width, height int) *fakeWatch {
	t.Helper()
	tgt, err := findFile(f.system, f.dir+"/f")
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWatch{t: t, model: newWatchModel(tgt, false)}
	w.model.read = func(q watchQuery) (*watchSnapshot, error) {
		w.queries = append(w.queries, q)
		return readSnapshot(tgt, 4096, q)
	}
	w.model.sync = func() error { w.syncs++; return w.syncErr }
	w.send(tea.WindowSizeMsg{Width: width, Height: height})
	return w
}

// send gives the model a message and runs the read or msync that it asks for,
// but no clock.
func (w *fakeWatch) send(msg tea.Msg) {
	w.t.Helper()
	for cmd := w.start(msg); cmd != nil; {
		cmd = w.start(cmd())
	}
	w.check()
}

// start gives the model a message and returns the command if it is a read or a
// msync.
func (w *fakeWatch) start(msg tea.Msg) tea.Cmd {
	w.t.Helper()
	reading, syncing := w.model.reading, w.model.syncing
	_, cmd := w.model.Update(msg)
	if _, done := msg.(snapshotMsg); done {
		reading = false
	}
	if w.model.reading && !reading || w.model.syncing && !syncing {
		return cmd
	}
	return nil
}

func (w *fakeWatch) keys(keys ...string) {
	w.t.Helper()
	special := map[string]tea.Key{
		"down": {Code: tea.KeyDown}, "up": {Code: tea.KeyUp}, "pgdown": {Code: tea.KeyPgDown}, "pgup": {Code: tea.KeyPgUp},
		"home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl},
	}
	for _, name := range keys {
		key, ok := special[name]
		if !ok {
			key = tea.Key{Code: rune(name[0]), Text: name}
		}
		w.send(tea.KeyPressMsg(key))
	}
}

// screen is the text on the screen.
func (w *fakeWatch) screen() string { return w.model.View().Content }

// check is what holds for every screen: it fits.
func (w *fakeWatch) check() {
	w.t.Helper()
	lines := strings.Split(w.screen(), "\n")
	if len(lines) > max(w.model.height, 1) {
		w.t.Errorf("%d lines on a screen of %d:\n%s", len(lines), w.model.height, w.screen())
	}
	for _, line := range lines {
		if n := lipgloss.Width(line); n > w.model.width {
			w.t.Errorf("%d columns on a screen of %d: %q", n, w.model.width, line)
		}
	}
}

// has checks what is on the screen, without its styles.
func (w *fakeWatch) has(what string, texts ...string) {
	w.t.Helper()
	screen := lipgloss.NewStyle().Render(w.screen())
	for _, text := range texts {
		if !strings.Contains(screen, text) {
			w.t.Errorf("%s: no %q on the screen:\n%s", what, text, screen)
		}
	}
}

func TestWatchScreen(t *testing.T) {
	f := newFakeTree(t)
	w := newFakeWatch(t, f, 80, 24)
	w.has("at first", f.dir+"/f", "40000 bytes (39.1 KiB), shared",
		"pages 10  resident 5  dirty 4  writeback 0  copied 0  unsynced 4",
		"unsynced bytes 16384  reads 3  writes 4  msyncs 0\n",
		"       0  DDDDR.....\n", picture.Legend(false), "write      offset=0 length=16384 pid=7\n", "q quit  p pause")
	if screen := w.screen(); strings.Contains(screen, "error") || strings.Contains(screen, "pid=8") || strings.Contains(screen, "lost") {
		t.Errorf("something on the screen does not belong to the file:\n%s", screen)
	}

	f.write(".mapfs/files/f/pages", "0-9 R\n")
	f.write(".mapfs/files/f/status", "path f\nmode shared\nsize 40000\nerror EIO\n")
	f.write(".mapfs/events", "2026-11-22T21:40:01.000000Z 6 evict f\n")
	w.send(tickMsg(w.model.ticks))
	w.has("after a change", "       0  RRRRRRRRRR\n", "error EIO", "offset=0 length=16384 pid=7", "evict")
	if len(w.model.events) != 4 {
		t.Errorf("remembers %d events, want 4", len(w.model.events))
	}
}

func TestWatchKeys(t *testing.T) {
	f := newFakeTree(t)
	w := newFakeWatch(t, f, 80, 24)
	w.keys("?")
	w.has("help", "msync: write the file's changed pages back", picture.Legend(false))
	w.keys("?", "s")
	if w.has("msync", "msync done in "); w.syncs != 1 {
		t.Errorf("%d msyncs, want 1", w.syncs)
	}
	w.syncErr = errors.New("msync: no space left on device")
	w.keys("s")
	w.has("a msync that fails", "msync: no space left on device")

	w.keys("p")
	w.has("pause", "PAUSED", "p go on")
	reads := len(w.queries)
	w.send(tickMsg(w.model.ticks))
	if len(w.queries) != reads {
		t.Error("reads during the pause")
	}
	w.keys("p")
	if len(w.queries) != reads+1 {
		t.Error("does not read after the pause")
	}
	for _, key := range []tea.Key{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, cmd := w.model.Update(tea.KeyPressMsg(key))
		if cmd == nil {
			t.Errorf("%v does nothing", key)
		} else if _, quits := cmd().(tea.QuitMsg); !quits {
			t.Errorf("%v does not quit", key)
		}
	}
}

// TestWatchScrolls watches a file of 100 GiB with two spots in it.
func TestWatchScrolls(t *testing.T) {
	f := newFakeTree(t)
	const pages = 100 << 30 / 4096
	f.write(".mapfs/files/f/status", fmt.Sprintf("path f\nmode shared\nsize %d\n", int64(pages)*4096))
	f.write(".mapfs/files/f/pages", fmt.Sprintf("0-99 -\n100-103 RD\n104-9999999 -\n10000000-10000000 R\n10000001-%d -\n", pages-1))
	w := newFakeWatch(t, f, 80, 24)
	row := func(cells string) string { return "  " + cells + strings.Repeat(".", 64-len(cells)) + "\n" }
	w.has("the start", "          0"+row(""), "       256K"+row(strings.Repeat(".", 36)+"DDDD"), "all  D")
	if top := w.model.top; top != 0 {
		t.Fatalf("starts at row %d", top)
	}
	w.keys("down")
	w.has("a row down", "       256K"+row(strings.Repeat(".", 36)+"DDDD"))
	w.keys("up", "up", "pgdown", "n")
	w.has("the second spot", row("R")[2:])
	if got, want := w.model.top, int64(10000000/64); got != want {
		t.Errorf("n goes to row %d, want %d", got, want)
	}
	w.keys("n")
	if got, want := w.model.top, int64(10000000/64); got != want {
		t.Errorf("n goes from the last spot to row %d, want %d", got, want)
	}
	w.keys("N")
	if w.model.top != 0 {
		t.Errorf("N goes to row %d, want 0", w.model.top)
	}
	w.keys("end", "down", "pgdown")
	w.has("the end", " 102399.75M"+row(""))
	w.send(tea.WindowSizeMsg{Width: 200, Height: 50})
	w.has("the end, resized", "  102399.5M  "+strings.Repeat(".", 128)+"\n")
	w.keys("pgup")
	page := w.model.top * 128
	w.send(tea.WindowSizeMsg{Width: 80, Height: 24})
	if got := w.model.top * 64; got != page {
		t.Errorf("resized from page %d to %d", page, got)
	}
	w.keys("home")
	w.has("home", "          0"+row(""))
	for _, q := range w.queries {
		if q.n > 3*50*128 {
			t.Errorf("query %+v asks for more than three screens", q)
		}
	}

	// A file that shrinks takes the screen along.
	w.keys("end")
	f.write(".mapfs/files/f/status", "path f\nmode shared\nsize 5\n")
	f.write(".mapfs/files/f/pages", "0-0 RT\n")
	w.send(tickMsg(w.model.ticks))
	w.has("a small file", "0  R\n")
	f.write(".mapfs/files/f/status", "path f\nmode shared\nsize 0\n")
	f.write(".mapfs/files/f/pages", "")
	w.send(tickMsg(w.model.ticks))
	w.has("an empty file", "the file is empty")
}

// TestWatchSizes looks at every size of a screen; send checks that it fits.
func TestWatchSizes(t *testing.T) {
	f := newFakeTree(t)
	f.write(".mapfs/files/f/status", "path f\nmode shared\nsize 4096000000\nerror EIO\n")
	f.write(".mapfs/files/f/pages", "0-999 RDU\n1000-999999 -\n")
	w := newFakeWatch(t, f, 80, 24)
	for width := 1; width <= 100; width += 9 {
		for height := 1; height <= 60; height++ {
			w.send(tea.WindowSizeMsg{Width: width, Height: height})
		}
	}
	w.send(tea.WindowSizeMsg{Width: 0, Height: 0})
}

// TestWatchNeverWaits has a mount that does not answer: keys work, and no second
// read is started.
func TestWatchNeverWaits(t *testing.T) {
	f := newFakeTree(t)
	w := newFakeWatch(t, f, 80, 24)
	read := w.start(tickMsg(w.model.ticks))
	if read == nil {
		t.Fatal("a tick starts no read")
	}
	w.model.started = w.model.started.Add(-2 * watchLimit)
	w.check()
	w.has("a read that takes long", "no answer from the mount for 4s", "DDDDR.....")
	for _, msg := range []tea.Msg{tickMsg(w.model.ticks), tea.WindowSizeMsg{Width: 90, Height: 30}, clockMsg{}} {
		if w.start(msg) != nil {
			t.Errorf("%T starts a second read", msg)
		}
	}
	w.keys("s")
	if w.syncs != 1 {
		t.Error("no msync during the read")
	}
	again := w.start(read())
	if again == nil {
		t.Fatal("does not look again, though the screen changed")
	}
	w.start(again())
	if w.start(tickMsg(w.model.ticks-1)) != nil {
		t.Error("an old tick starts a read")
	}

	// The mount goes away, and comes back.
	w.model.read = func(watchQuery) (*watchSnapshot, error) { return nil, errors.New("/m: the mount is gone") }
	w.send(tickMsg(w.model.ticks))
	w.has("gone", "/m: the mount is gone", "DDDDR.....")
	w.model.read = func(q watchQuery) (*watchSnapshot, error) { return readSnapshot(w.model.target, 4096, q) }
	w.send(tickMsg(w.model.ticks))
	w.has("back", "40000 bytes (39.1 KiB), shared")
}

func TestWatchNeedsATerminal(t *testing.T) {
	f := newFakeTree(t)
	want := outcome{code: exitFailed, stderr: "mapfs: watch needs a terminal; see 'mapfs pages' for output to files and programs\n"}
	if got := f.runIn("watch", "MNT/f"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestStrip(t *testing.T) {
	tests := []struct {
		cells int
		pages int64
		runs  []picture.Run
		want  string
	}{
		{0, 10, nil, ""},
		{4, 0, nil, ""},
		{4, 3, []picture.Run{{First: 1, Last: 1, Flags: picture.Resident}}, ".R."},
		{4, 8, []picture.Run{{First: 0, Last: 2, Flags: picture.Resident}, {First: 3, Last: 3, Flags: picture.Dirty}, {First: 4, Last: 6, Flags: 0}, {First: 7, Last: 7, Flags: picture.Unsynced}}, "RD.U"},
		{4, 9, []picture.Run{{First: 8, Last: 8, Flags: picture.Writeback}}, "..W"},
		{4, 8, []picture.Run{{First: 7, Last: 99, Flags: picture.Resident}}, "...R"}, // it grew
	}
	for _, test := range tests {
		s := newStrip(test.cells, test.pages)
		for _, run := range test.runs {
			s.add(run)
		}
		if got := string(s.letters()); got != test.want {
			t.Errorf("%d cells for %d pages: got %q, want %q", test.cells, test.pages, got, test.want)
		}
	}
}
