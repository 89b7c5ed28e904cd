package manual

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"mapfs/integration/harness"
	"mapfs/internal/need"
)

// changedRow matches a row with n changed pages between what is before them, the
// offset at first, and the rest of the row. The kernel may have begun to write them back, and does not call
// pages of tmpfs dirty.
func changedRow(before string, n int, rest string) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`(?m)^ +%s[DUW]{%d}%s *$`, before, n, rest))
}

func noMatch(want *regexp.Regexp) func(screen string) string {
	return func(screen string) string {
		if want.MatchString(screen) {
			return ""
		}
		return fmt.Sprintf("nothing like %s", want)
	}
}

// fits checks that a screen is as a person wants it: no line of the terminal's
// width, which would be one that was wrapped or cut.
func fits(t *testing.T, what, screen string, width int) {
	t.Helper()
	for line := range strings.Lines(screen) {
		if n := len(strings.TrimRight(line, "\n")); n >= width {
			t.Errorf("%s: a line of %d columns on a screen of %d:\n%s", what, n, width, screen)
		}
	}
}

// colored matches one of the terminal's eight colors; 39 and 49 go back to none.
var colored = regexp.MustCompile(`\x1b\[(\d+;)*[34][0-7]m`)

const legendOnScreen = "R resident  D dirty  W under writeback  C copied  U unsynced  . none"

// TestScreenPages looks at `mapfs pages` in terminals of several sizes.
func TestScreenPages(t *testing.T) {
	need.Tool(t, "tmux")
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := m.Path("a file")
		harness.Run(t, "truncate", "-s", "64M", file)
		harness.Run(t, "sync", file)
		harness.Dd(t, "of="+file, "seek=130", "count=3")
		for _, size := range []struct {
			width, height, perRow int
			offset                string // of the row with page 130
		}{{80, 24, 64, "512K"}, {200, 50, 128, "512K"}, {40, 12, 16, "512K"}} {
			what := fmt.Sprintf("%dx%d", size.width, size.height)
			term := startTerminal(t, size.width, size.height, nil, harness.Binary, "pages", file)
			screen := term.shows(what, ended+"0", "pages: ", " unsynced")
			row := strings.Repeat(`\.`, size.perRow-3-2)
			want := regexp.MustCompile(fmt.Sprintf(`(?m)^ +%s  \.\.[DUW]{3}%s *$`, size.offset, row))
			if !want.MatchString(screen) {
				t.Errorf("%s: no row with the changed pages (%s):\n%s", what, want, screen)
			}
			if !strings.Contains(screen, " more rows like this one") {
				t.Errorf("%s: equal rows are not left out:\n%s", what, screen)
			}
			if colors := term.withColors(); !colored.MatchString(colors) {
				t.Errorf("%s: no colors: %q", what, colors)
			}
			if size.width >= 80 && !strings.Contains(screen, legendOnScreen) {
				t.Errorf("%s: no legend:\n%s", what, screen)
			}
			if size.width > 80 {
				fits(t, what, screen, size.width)
			}
		}

		for _, plain := range []struct {
			what    string
			env     []string
			program []string
		}{
			{"NO_COLOR", []string{"NO_COLOR=1"}, []string{harness.Binary, "pages", file}},
			{"--no-color", nil, []string{harness.Binary, "pages", "--no-color", file}},
			{"TERM=dumb", []string{"TERM=dumb"}, []string{harness.Binary, "pages", file}},
		} {
			term := startTerminal(t, 80, 24, plain.env, plain.program...)
			term.shows(plain.what, ended+"0", legendOnScreen)
			if colors := term.withColors(); strings.Contains(colors, "\x1b[") {
				t.Errorf("%s: has colors: %q", plain.what, colors)
			}
		}
		// Not on a terminal there is no escape sequence either.
		if out := harness.Run(t, harness.Binary, "pages", file); strings.Contains(out, "\x1b") || !strings.Contains(out, legendOnScreen) {
			t.Errorf("into a pipe: got %q", out)
		}
	})
}

// TestScreenWatch keeps `mapfs watch` open beside writes and syncs.
func TestScreenWatch(t *testing.T) {
	need.Tool(t, "tmux")
	harness.EachFS(t, func(t *testing.T, dir string) {
		m := harness.Mount(t, dir)
		file := m.Path("file")
		harness.Dd(t, "of="+file, "count=10")
		harness.Run(t, "sync", file)
		term := startTerminal(t, 80, 24, nil, harness.Binary, "watch", file)
		screen := term.shows("at first", file+"  40960 bytes (40.0 KiB), shared", "pages 10  resident 10",
			"unsynced bytes 0  reads ", "       0  RRRRRRRRRR\n", legendOnScreen, "last events", "msync ", "q quit  p pause  s msync")
		fits(t, "80x24", screen, 80)

		harness.Dd(t, "of="+file, "seek=0", "count=4")
		screen = term.until("after dd", noMatch(changedRow("0  ", 4, "R{6}")))
		fits(t, "after dd", screen, 80)
		term.shows("after dd", "unsynced bytes 16384", "write      offset=12288 length=4096 pid=")
		if colors := term.withColors(); !colored.MatchString(colors) {
			t.Errorf("no colors: %q", colors)
		}
		harness.Run(t, "sync", file)
		term.shows("after sync", "       0  RRRRRRRRRR\n", "unsynced bytes 0", "offset=0 length=40960 pages=4 errno=0")
		harness.Dd(t, "of="+file, "seek=9", "count=1")
		term.shows("after dd", "unsynced bytes 4096")
		term.keys("s")
		term.shows("after the key s", "       0  RRRRRRRRRR\n", "unsynced bytes 0", "msync done in ", "pages=1 errno=0")

		term.keys("p")
		term.shows("pause", " PAUSED ", "p go on")
		harness.Dd(t, "of="+file, "seek=1", "count=1")
		term.shows("pause", "unsynced bytes 0")
		term.keys("p")
		term.until("after the pause", noMatch(regexp.MustCompile(`(?m)^ +0  R[DUW]R{8} *$`)))
		term.keys("?")
		term.shows("help", "msync: write the file's changed pages back now", "? back")
		term.keys("?")

		// A big file, in windows of other sizes.
		harness.Run(t, "truncate", "-s", "1G", file)
		harness.Dd(t, "of="+file, "seek=200000", "count=3")
		term.shows("a big file", "1073741824 bytes (1.0 GiB), shared", "pages 262144", "     all  ", "\n          ^\n")
		term.keys("n")
		term.until("the next changed pages", noMatch(changedRow(`781\.25M  `, 3, `\.{61}`)))
		term.resize(200, 50)
		screen = term.until("200x50", noMatch(changedRow(`781M  \.{64}`, 3, `\.{61}`)))
		fits(t, "200x50", screen, 200)
		term.keys("End")
		term.shows("the end", " 1023.5M  ")
		term.keys("PageUp", "PageUp", "Down")
		term.until("pages up", func(screen string) string {
			if strings.Contains(screen, " 1023.5M  ") {
				return "still the end"
			}
			return ""
		})
		term.resize(30, 8)
		term.shows("30x8", "q quit")
		term.resize(80, 24)
		term.keys("Home")
		term.shows("the start", "\n       0  ", "last events")

		term.keys("q")
		screen = term.shows("quit", ended+"0")
		if strings.Contains(screen, "last events") {
			t.Errorf("the screen is not given back:\n%s", screen)
		}

		// Who watches must not keep the mount busy.
		term = startTerminal(t, 80, 24, []string{"NO_COLOR=1"}, harness.Binary, "watch", file)
		term.shows("without colors", legendOnScreen)
		if colors := term.withColors(); colored.MatchString(colors) {
			t.Errorf("NO_COLOR: has colors: %q", colors)
		}
		m.Unmount()
		term.shows("unmounted", "the mount is gone")
		term.keys("C-c")
		term.shows("Ctrl-C", ended+"0")
	})
}

// TestScreenWatchDaemonDies kills the daemon under the eyes of a watcher.
func TestScreenWatchDaemonDies(t *testing.T) {
	need.Tool(t, "tmux")
	m := harness.Mount(t, harness.Ext4Dir(t))
	file := m.Path("file")
	harness.Dd(t, "of="+file, "count=3")
	term := startTerminal(t, 80, 24, nil, harness.Binary, "watch", file)
	term.shows("at first", "pages 3  ")
	m.Kill()
	term.shows("dead", m.Dir+": the mount is gone, its daemon has ended", "pages 3  ")
	term.keys("q")
	term.shows("quit", ended+"0")
}

// TestScreenEvents follows events, and ends that as a person does.
func TestScreenEvents(t *testing.T) {
	need.Tool(t, "tmux")
	m := harness.Mount(t, harness.Ext4Dir(t))
	file := m.Path("file")
	harness.Dd(t, "of="+file, "count=1")
	term := startTerminal(t, 160, 24, nil, harness.Binary, "events", file)
	term.shows("at first", " write file offset=0 length=4096 pid=")
	harness.Dd(t, "of="+m.Path("other"), "count=1")
	harness.Dd(t, "of="+file, "seek=1", "count=1")
	screen := term.shows("while it follows", " write file offset=4096 length=4096 pid=")
	if strings.Contains(screen, " other ") {
		t.Errorf("shows events of another file:\n%s", screen)
	}
	term.keys("C-c")
	term.shows("Ctrl-C", ended+"130") // as a shell tells of an end by SIGINT
}
