//go:build linux

package main

import (
	"time"

	tea "charm.land/bubbletea/v2"

	"mapfs/cmd/mapfs/picture"
)

// watchKeys explains the keys, in "mapfs help watch" and on the screen.
const watchKeys = `  q, Ctrl-C              quit
  p, space               pause and go on
  s                      msync: write the file's changed pages back now
  up, down, k, j         scroll by a row
  PgUp, PgDn, b, f       scroll by a screen
  Home, End, g, G        go to the start, to the end
  n, N                   go on, back to the next pages that are not '.'
  ?                      this list, and back
`

// watchModel is the state of "mapfs watch". Whatever may wait for the mount
// runs in commands, which are goroutines: the keys always work.
type watchModel struct {
	target target
	color  bool
	read   func(watchQuery) (*watchSnapshot, error)
	sync   func() error

	width, height int
	top           int64 // the first row on the screen

	snapshot *watchSnapshot // the last good one, or nil
	err      error          // of the last read
	reading  bool
	started  time.Time // of that read
	again    bool      // the screen moved meanwhile; read at once when done
	hurried  bool      // that was done
	ticks    int       // number of the tick that is waited for

	paused, help bool
	note         string // of the last msync
	syncing      bool

	events []event
}

// Messages to the model.
type (
	tickMsg     int // it is time for the next look, unless one came in between
	snapshotMsg struct {
		snapshot *watchSnapshot
		err      error
	}
	syncedMsg struct {
		took time.Duration
		err  error
	}
	clockMsg struct{} // once a second, so that the age on the screen is true
)

func newWatchModel(t target, color bool) *watchModel {
	return &watchModel{target: t, color: color}
}

func clock() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return clockMsg{} }) }

// Init starts the clock. The first look waits for the size of the screen.
func (m *watchModel) Init() tea.Cmd { return clock() }

// Update takes a message and says what to do next.
func (m *watchModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		page := m.top * int64(m.layout().perRow)
		m.width, m.height = msg.Width, msg.Height
		m.scrollTo(page / int64(m.layout().perRow))
		return m, m.look()
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	case clockMsg:
		return m, clock()
	case tickMsg:
		if m.paused || int(msg) != m.ticks {
			return m, nil // the key that ends the pause looks again
		}
		return m, m.look()
	case snapshotMsg:
		return m, m.looked(msg)
	case syncedMsg:
		m.syncing = false
		m.note = syncDone(msg.took)
		if msg.err != nil {
			m.note = msg.err.Error()
		}
		return m, m.look()
	}
	return m, nil
}

// look reads the control tree, unless that goes on already.
func (m *watchModel) look() tea.Cmd {
	if m.width == 0 {
		return nil
	}
	if m.reading {
		m.again = true
		return nil
	}
	m.reading, m.again, m.started = true, false, time.Now()
	query, read := m.query(), m.read
	return func() tea.Msg {
		snapshot, err := read(query)
		return snapshotMsg{snapshot, err}
	}
}

// looked shows what was read, and arranges for the next look.
func (m *watchModel) looked(msg snapshotMsg) tea.Cmd {
	m.reading, m.err = false, msg.err
	if msg.err == nil {
		m.snapshot = msg.snapshot
		m.remember(msg.snapshot.events)
		m.scrollTo(m.top)
	}
	// The size of the file decides what is on the screen, and is known only now.
	if m.again || m.snapshot != nil && !m.covered() && !m.hurried {
		m.hurried = true
		return m.look()
	}
	m.hurried = false
	m.ticks++
	next := tickMsg(m.ticks)
	return tea.Tick(refreshTime, func(time.Time) tea.Msg { return next })
}

// covered says whether the last snapshot has all pages that are on the screen.
func (m *watchModel) covered() bool {
	s, l := m.snapshot, m.layout()
	first := m.top * int64(l.perRow)
	end := min(first+int64(l.mapRows*l.perRow), s.sum.Pages)
	return s.first <= first && end <= s.first+int64(len(s.cells))
}

// remember adds the events that are new. The mount itself remembers few, and
// those of all files.
func (m *watchModel) remember(lines []string) {
	known := make(map[string]bool, len(m.events))
	for _, e := range m.events {
		known[e.time+" "+e.seq] = true
	}
	for _, line := range lines {
		// Each reader starts anew, so what it lost says nothing.
		if e, ok := parseEvent(line); ok && e.kind != "lost" && !known[e.time+" "+e.seq] {
			m.events = append(m.events, e)
		}
	}
	m.events = m.events[max(0, len(m.events)-watchEvents):]
}

func (m *watchModel) key(key string) tea.Cmd {
	screen := int64(m.layout().mapRows)
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "?", "h":
		m.help = !m.help
	case "esc":
		m.help = false
	case "p", "space":
		m.paused = !m.paused
		if !m.paused {
			return m.look()
		}
	case "s":
		return m.msync()
	case "up", "k":
		return m.scroll(m.top - 1)
	case "down", "j":
		return m.scroll(m.top + 1)
	case "pgup", "b":
		return m.scroll(m.top - screen)
	case "pgdown", "f":
		return m.scroll(m.top + screen)
	case "home", "g":
		return m.scroll(0)
	case "end", "G":
		return m.scroll(m.rows())
	case "n":
		if m.snapshot != nil && m.snapshot.after >= 0 {
			return m.scroll(m.snapshot.after / int64(m.layout().perRow))
		}
	case "N":
		if m.snapshot != nil && m.snapshot.before >= 0 {
			return m.scroll(m.snapshot.before/int64(m.layout().perRow) - screen + 1)
		}
	}
	return nil
}

func (m *watchModel) msync() tea.Cmd {
	if m.syncing {
		return nil
	}
	m.syncing, m.note = true, "msync ..."
	sync := m.sync
	return func() tea.Msg {
		start := time.Now()
		err := sync()
		return syncedMsg{time.Since(start), err}
	}
}

// scroll moves the screen. Also during a pause it then shows pages that were
// not read before.
func (m *watchModel) scroll(top int64) tea.Cmd {
	before := m.top
	m.scrollTo(top)
	if m.top == before {
		return nil
	}
	return m.look()
}

// scrollTo keeps the screen inside the file.
func (m *watchModel) scrollTo(top int64) {
	m.top = max(0, min(top, m.rows()-int64(m.layout().mapRows)))
}

// rows is the height of the whole picture.
func (m *watchModel) rows() int64 {
	if m.snapshot == nil {
		return 0
	}
	perRow := int64(m.layout().perRow)
	return (m.snapshot.sum.Pages + perRow - 1) / perRow
}

// query asks for three screens, so that scrolling has something to show before
// the next answer.
func (m *watchModel) query() watchQuery {
	l := m.layout()
	screen := int64(l.mapRows)
	first := max(0, m.top-screen)
	perRow := int64(l.perRow)
	return watchQuery{
		first: first * perRow,
		n:     (m.top + 2*screen - first) * perRow,
		shown: picture.Run{First: m.top * perRow, Last: (m.top+screen)*perRow - 1},
		strip: l.perRow,
	}
}
