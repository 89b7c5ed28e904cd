// Package picture reads the runs of pages that a control tree tells, and draws them.
package picture

import (
	"bytes"
	"fmt"
	"io"
	"math/bits"
	"strings"

	"mapfs/cmd/mapfs/display"
)

// State is how a page looks in a picture. The letters are those of the
// control tree's "map"; the colors are the terminal's own sixteen, which its
// user has chosen to be readable on the background.
type State struct {
	flag   Flags
	Letter byte
	name   string
	SGR    string // parameters of ECMA-48's SELECT GRAPHIC RENDITION
}

// States has the states by rank: a page shows the first that it is in.
var States = []State{
	{Writeback, 'W', "under writeback", "30;45"}, // black on magenta
	{Dirty, 'D', "dirty", "30;41"},               // on red
	{pageCopied, 'C', "copied", "30;46"},         // on cyan
	{Unsynced, 'U', "unsynced", "30;43"},         // on yellow
	{Resident, 'R', "resident", "30;42"},         // on green
	{0, '.', "none", ""},
}

// LegendLong explains the letters in a help text.
const LegendLong = `  W  under writeback: on the way to the device
  D  dirty: changed in memory, as the kernel says
  C  copied on write (private and staged mappings)
  U  unsynced: a power cut would take changes away
  R  resident: in memory
  .  none of these
`

// StateOf is a page's rank in pageStates.
func StateOf(flags Flags) int {
	for i, s := range States {
		if flags&s.flag != 0 {
			return i
		}
	}
	return len(States) - 1
}

// Legend is one line that names the states, in the order of "map".
func Legend(color bool) string {
	var words []string
	for flag := Flags(1); flag < pageEnd; flag <<= 1 {
		s := States[StateOf(flag)]
		words = append(words, paint(string(s.Letter), s.SGR, color)+" "+s.name)
	}
	return strings.Join(append(words, ". none"), "  ")
}

func paint(text, sgr string, color bool) string {
	if !color || sgr == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// PaintCells paints a row of letters, neighbors of one state together.
func PaintCells(b *bytes.Buffer, row []byte, color bool) {
	if !color {
		b.Write(row)
		return
	}
	for len(row) > 0 {
		n := len(row) - len(bytes.TrimLeft(row, string(row[:1])))
		sgr := ""
		for _, s := range States {
			if s.Letter == row[0] {
				sgr = s.SGR
			}
		}
		b.WriteString(paint(string(row[:n]), sgr, true))
		row = row[n:]
	}
}

// PagesPerRow fits pages into width columns: a power of two, so that the
// offsets of the rows are round.
func PagesPerRow(width int) int {
	const least = 8
	return 1 << (bits.Len(uint(max(width, least))) - 1)
}

// RowMaker makes rows of letters from runs. Time and memory follow the runs,
// not the pages.
type RowMaker struct {
	PerRow int
	// Emit takes n equal rows, and must not keep row. All but the last row of a
	// file have perRow letters.
	Emit func(row []byte, n int64) error
	part []byte // a row that is not full yet
}

func (m *RowMaker) Add(run Run) error {
	letter := States[StateOf(run.Flags)].Letter
	for left := run.Len(); left > 0; {
		if whole := left / int64(m.PerRow); len(m.part) == 0 && whole > 0 {
			if err := m.Emit(bytes.Repeat([]byte{letter}, m.PerRow), whole); err != nil {
				return err
			}
			left -= whole * int64(m.PerRow)
			continue
		}
		n := min(left, int64(m.PerRow-len(m.part)))
		m.part = append(m.part, bytes.Repeat([]byte{letter}, int(n))...)
		left -= n
		if len(m.part) == m.PerRow {
			if err := m.End(); err != nil {
				return err
			}
		}
	}
	return nil
}

// End emits what is left.
func (m *RowMaker) End() error {
	if len(m.part) == 0 {
		return nil
	}
	err := m.Emit(m.part, 1)
	m.part = m.part[:0]
	return err
}

// Picture prints rows, each with its offset. Of equal ones only the first is
// printed, as by hexdump(1).
type Picture struct {
	W        io.Writer
	Color    bool
	PageSize int64
	Labels   int // columns for the offsets
	PerRow   int

	pages   int64  // in the rows before
	last    []byte // the last row that was printed
	skipped int64  // rows that repeat it
	line    bytes.Buffer
}

func (p *Picture) Row(row []byte, n int64) error {
	if !bytes.Equal(row, p.last) {
		if err := p.End(); err != nil {
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

// End prints what was skipped.
func (p *Picture) End() error {
	n := p.skipped
	p.skipped = 0
	switch n {
	case 0:
		return nil
	case 1: // a note would not be shorter
		return p.print(p.pages - int64(len(p.last)))
	}
	_, err := fmt.Fprintf(p.W, "%*s  %d more rows like this one\n", p.Labels, "*", n)
	return err
}

// print prints the last row again, as the one that starts at a page.
func (p *Picture) print(page int64) error {
	p.line.Reset()
	fmt.Fprintf(&p.line, "%*s%*s", p.Labels, display.ShortBytes(page*p.PageSize), display.LabelGap, "")
	PaintCells(&p.line, p.last, p.Color)
	p.line.WriteByte('\n')
	_, err := p.W.Write(p.line.Bytes())
	return err
}
