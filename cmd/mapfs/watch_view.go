//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"mapfs/cmd/mapfs/display"
	"mapfs/cmd/mapfs/picture"
)

var (
	titleStyle = lipgloss.NewStyle().Bold(true)
	faintStyle = lipgloss.NewStyle().Faint(true)
	alarmStyle = lipgloss.NewStyle().Bold(true).Reverse(true)
)

// watchLayout says how the screen is divided.
type watchLayout struct {
	labels, perRow    int // columns
	mapRows, eventsN  int // lines
	strip             bool
	separated, framed bool // there is room for empty lines; for legend and counters
}

// layout divides the screen: the picture gets what it needs of what is left
// beside the rest, and the events get the remainder.
func (m *watchModel) layout() watchLayout {
	var size, pages int64
	if m.snapshot != nil {
		size, pages = m.snapshot.view.size, m.snapshot.sum.Pages
	}
	l := watchLayout{labels: display.LabelWidth(size)}
	l.perRow = picture.PagesPerRow(m.width - l.labels - display.LabelGap)
	need := int((min(pages, 1<<32) + int64(l.perRow) - 1) / int64(l.perRow))

	l.framed = m.height >= 8
	l.separated = m.height >= 20
	left := m.height - 2 // title and keys
	if l.framed {
		left -= 4 // two lines of counters, the legend, the title of the events
	}
	if l.separated {
		left -= 2
	}
	leastEvents := 0
	if l.framed {
		leastEvents = max(1, m.height/6)
	}
	room := max(1, left-leastEvents)
	if need > room && room >= 6 {
		l.strip = true
		room -= 2
	}
	l.mapRows = max(1, min(need, room))
	l.eventsN = max(0, left-l.mapRows)
	if l.strip {
		l.eventsN = max(0, l.eventsN-2)
	}
	if !l.framed {
		l.eventsN = 0
	}
	return l
}

// View draws the screen.
func (m *watchModel) View() tea.View {
	view := tea.NewView(m.text())
	view.AltScreen = true
	view.WindowTitle = "mapfs watch " + m.target.name
	return view
}

// text is the screen: no more lines than it has, none wider.
func (m *watchModel) text() string {
	if m.width == 0 || m.height == 0 {
		return ""
	}
	lines := m.body()
	if len(lines) > m.height-1 {
		lines = lines[:m.height-1]
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, m.footer())
	cut := lipgloss.NewStyle().MaxWidth(m.width)
	for i, line := range lines {
		lines[i] = cut.Render(line)
	}
	return strings.Join(lines, "\n")
}

func (m *watchModel) body() []string {
	lines := []string{m.title()}
	if m.help {
		lines = append(lines, "", picture.Legend(m.color), "")
		return append(lines, strings.Split(watchKeys, "\n")...)
	}
	if m.snapshot == nil {
		if m.err == nil {
			return append(lines, "", "reading "+m.target.String()+" ...")
		}
		return lines
	}
	l := m.layout()
	if l.framed {
		lines = append(lines, m.counters()...)
	}
	if l.separated {
		lines = append(lines, "")
	}
	lines = append(lines, m.mapLines(l)...)
	if !l.framed {
		return lines
	}
	lines = append(lines, picture.Legend(m.color))
	if l.separated {
		lines = append(lines, "")
	}
	lines = append(lines, titleStyle.Render("last events"))
	return append(lines, m.eventLines(l.eventsN)...)
}

// title is the file, or what is wrong with it.
func (m *watchModel) title() string {
	name := titleStyle.Render(m.target.String())
	switch {
	case m.err != nil:
		return alarmStyle.Render(" " + strings.ReplaceAll(m.err.Error(), "\n", " ") + " ")
	case m.reading && time.Since(m.started) > watchLimit:
		waited := time.Since(m.started).Round(time.Second)
		return alarmStyle.Render(fmt.Sprintf(" no answer from the mount for %v ", waited)) + " " + name
	case m.paused:
		return alarmStyle.Render(" PAUSED ") + " " + name
	}
	if m.snapshot == nil {
		return name
	}
	v := m.snapshot.view
	return fmt.Sprintf("%s  %s, %s", name, display.ExactBytes(v.size), v.mode)
}

func (m *watchModel) counters() []string {
	s := m.snapshot
	sum := s.sum
	// Short, so that both fit into 80 columns for all but huge files.
	first := fmt.Sprintf("pages %d  resident %d  dirty %d  writeback %d  copied %d  unsynced %d",
		sum.Pages, sum.Resident, sum.Dirty, sum.Writeback, sum.Copied, sum.Unsynced)
	second := fmt.Sprintf("unsynced bytes %d", s.view.unsyncedBytes)
	for _, key := range []string{"reads", "writes", "stores", "faults", "msyncs"} {
		if value, ok := s.status[key]; ok {
			second += fmt.Sprintf("  %s %s", key, value)
		}
	}
	if value, ok := s.status["error"]; ok && value != "none" {
		second += "  " + alarmStyle.Render("error "+value)
	}
	return []string{first, second}
}

// mapLines draws the rows of the picture, and the whole file in one line if
// the screen shows only a part of it.
func (m *watchModel) mapLines(l watchLayout) []string {
	s := m.snapshot
	if s.sum.Pages == 0 {
		return []string{faintStyle.Render("no pages: the file is empty")}
	}
	var lines []string
	perRow := int64(l.perRow)
	for row := m.top; row < min(m.top+int64(l.mapRows), m.rows()); row++ {
		first := row * perRow
		label := display.ShortBytes(first * s.view.pageSize)
		lines = append(lines, m.cells(l, label, s.part(first, min(first+perRow, s.sum.Pages))))
	}
	if !l.strip || len(s.strip) == 0 {
		return lines
	}
	// A line of marks shows which part of the file the rows are.
	last := min((m.top+int64(l.mapRows))*perRow, s.sum.Pages) - 1
	from, to := m.top*perRow/s.share, last/s.share
	marks := fmt.Sprintf("%*s%s%s", l.labels+display.LabelGap, "", strings.Repeat(" ", int(from)), strings.Repeat("^", int(to-from)+1))
	return append(lines, m.cells(l, "all", s.strip), marks)
}

func (m *watchModel) cells(l watchLayout, label string, letters []byte) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%*s%*s", l.labels, label, display.LabelGap, "")
	picture.PaintCells(&b, letters, m.color)
	return b.String()
}

// part returns the letters of pages; blanks for those that are not read yet.
func (s *watchSnapshot) part(first, end int64) []byte {
	letters := bytes.Repeat([]byte{' '}, int(end-first))
	known := s.first + int64(len(s.cells))
	if from, to := max(first, s.first), min(end, known); from < to {
		copy(letters[from-first:], s.cells[from-s.first:to-s.first])
	}
	return letters
}

// eventLines are the last n events.
func (m *watchModel) eventLines(n int) []string {
	if len(m.events) == 0 {
		return []string{faintStyle.Render("none yet")}
	}
	var lines []string
	for _, e := range m.events[max(0, len(m.events)-n):] {
		at := e.time
		if t, err := time.Parse(time.RFC3339Nano, e.time); err == nil {
			at = t.Local().Format("15:04:05.000")
		}
		lines = append(lines, fmt.Sprintf("%s  %-10s %s", faintStyle.Render(at), e.kind, e.rest))
	}
	return lines
}

func (m *watchModel) footer() string {
	if m.help {
		return faintStyle.Render("? back  q quit")
	}
	pause := "p pause"
	if m.paused {
		pause = "p go on"
	}
	keys := faintStyle.Render("q quit  " + pause + "  s msync  arrows scroll  ? help")
	if m.note == "" {
		return keys
	}
	return keys + "   " + strings.ReplaceAll(m.note, "\n", " ")
}
