package main

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
	"strings"
)

// pageState is how a page looks in a picture. The letters are those of the
// control tree's "map"; the colors are the terminal's own sixteen, which its
// user has chosen to be readable on the background.
type pageState struct {
	flag   pageFlags
	letter byte
	name   string
	sgr    string // parameters of ECMA-48's SELECT GRAPHIC RENDITION
}

// pageStates has the states by rank: a page shows the first that it is in.
var pageStates = []pageState{
	{pageWriteback, 'W', "under writeback", "30;45"}, // black on magenta
	{pageDirty, 'D', "dirty", "30;41"},               // on red
	{pageCopied, 'C', "copied", "30;46"},             // on cyan
	{pageUnsynced, 'U', "unsynced", "30;43"},         // on yellow
	{pageResident, 'R', "resident", "30;42"},         // on green
	{0, '.', "none", ""},
}

// pageLegendLong explains the letters in a help text.
const pageLegendLong = `  W  under writeback: on the way to the device
  D  dirty: changed in memory, as the kernel says
  C  copied on write (private and staged mappings)
  U  unsynced: a power cut would take changes away
  R  resident: in memory
  .  none of these
`

// stateOf is a page's rank in pageStates.
func stateOf(flags pageFlags) int {
	for i, s := range pageStates {
		if flags&s.flag != 0 {
			return i
		}
	}
	return len(pageStates) - 1
}

// pageLegend is one line that names the states, in the order of "map".
func pageLegend(color bool) string {
	var words []string
	for flag := pageFlags(1); flag < pageEnd; flag <<= 1 {
		s := pageStates[stateOf(flag)]
		words = append(words, paint(string(s.letter), s.sgr, color)+" "+s.name)
	}
	return strings.Join(append(words, ". none"), "  ")
}

func paint(text, sgr string, color bool) string {
	if !color || sgr == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// paintCells paints a row of letters, neighbors of one state together.
func paintCells(b *bytes.Buffer, row []byte, color bool) {
	if !color {
		b.Write(row)
		return
	}
	for len(row) > 0 {
		n := len(row) - len(bytes.TrimLeft(row, string(row[:1])))
		sgr := ""
		for _, s := range pageStates {
			if s.letter == row[0] {
				sgr = s.sgr
			}
		}
		b.WriteString(paint(string(row[:n]), sgr, true))
		row = row[n:]
	}
}

// pagesPerRow fits pages into width columns: a power of two, so that the
// offsets of the rows are round.
func pagesPerRow(width int) int {
	const least = 8
	return 1 << (bits.Len(uint(max(width, least))) - 1)
}

// rowMaker makes rows of letters from runs. Time and memory follow the runs,
// not the pages.
type rowMaker struct {
	perRow int
	// emit takes n equal rows, and must not keep row. All but the last row of a
	// file have perRow letters.
	emit func(row []byte, n int64) error
	part []byte // a row that is not full yet
}

func (m *rowMaker) add(run pageRun) error {
	letter := pageStates[stateOf(run.flags)].letter
	for left := run.len(); left > 0; {
		if whole := left / int64(m.perRow); len(m.part) == 0 && whole > 0 {
			if err := m.emit(bytes.Repeat([]byte{letter}, m.perRow), whole); err != nil {
				return err
			}
			left -= whole * int64(m.perRow)
			continue
		}
		n := min(left, int64(m.perRow-len(m.part)))
		m.part = append(m.part, bytes.Repeat([]byte{letter}, int(n))...)
		left -= n
		if len(m.part) == m.perRow {
			if err := m.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// end emits what is left.
func (m *rowMaker) end() error {
	if len(m.part) == 0 {
		return nil
	}
	err := m.emit(m.part, 1)
	m.part = m.part[:0]
	return err
}

// picture prints rows, each with its offset. Of equal ones only the first is
// printed, as by hexdump(1).
type picture struct {
	w        io.Writer
	color    bool
	pageSize int64
	labels   int // columns for the offsets
	perRow   int

	pages   int64  // in the rows before
	last    []byte // the last row that was printed
	skipped int64  // rows that repeat it
	line    bytes.Buffer
}

func (p *picture) row(row []byte, n int64) error {
	if !bytes.Equal(row, p.last) {
		if err := p.end(); err != nil {
			return err
		}
		p.last = append(p.last[:0], row...)
		if err := p.print(p.pages); err != nil {
			return err
		}
		p.skipped = -1 // this one is not
	}
	p.skipped += n
	p.pages += int64(len(row)) * n
	return nil
}

// end prints what was skipped.
func (p *picture) end() error {
	n := p.skipped
	p.skipped = 0
	switch n {
	case 0:
		return nil
	case 1: // a note would not be shorter
		return p.print(p.pages - int64(len(p.last)))
	}
	_, err := fmt.Fprintf(p.w, "%*s  %d more rows like this one\n", p.labels, "*", n)
	return err
}

// print prints the last row again, as the one that starts at a page.
func (p *picture) print(page int64) error {
	p.line.Reset()
	fmt.Fprintf(&p.line, "%*s%*s", p.labels, shortBytes(page*p.pageSize), labelGap, "")
	paintCells(&p.line, p.last, p.color)
	p.line.WriteByte('\n')
	_, err := p.w.Write(p.line.Bytes())
	return err
}
