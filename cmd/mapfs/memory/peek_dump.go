//go:build linux

package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

// dumpRow is the number of bytes in a row.
const dumpRow = 16

// dumper writes bytes as hexdump -C does: offset, hexadecimal, text, with a star
// for rows that repeat the one before, and the offset of the end.
type dumper struct {
	w       *bufio.Writer
	off     int64  // of the row that is being filled
	row     []byte // being filled
	last    []byte // the row before, if there is one
	starred bool   // the star for repeats of last is written
}

func newDumper(w io.Writer, off int64) *dumper { return &dumper{w: bufio.NewWriter(w), off: off} }

func (d *dumper) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(dumpRow-len(d.row), len(rest))
		d.row = append(d.row, rest[:n]...)
		rest = rest[n:]
		if len(d.row) == dumpRow {
			d.endRow()
		}
	}
	return len(p), nil // an error of w stays for Close
}

// endRow writes the row, unless it repeats the last.
func (d *dumper) endRow() {
	if len(d.row) == 0 {
		return
	}
	if bytes.Equal(d.row, d.last) {
		if !d.starred {
			d.w.WriteString("*\n")
		}
		d.starred = true
	} else {
		d.write()
		d.last, d.starred = append(d.last[:0], d.row...), false
	}
	d.off += int64(len(d.row))
	d.row = d.row[:0]
}

func (d *dumper) write() {
	fmt.Fprintf(d.w, "%08x ", d.off)
	for i := range dumpRow {
		if i%8 == 0 {
			d.w.WriteByte(' ')
		}
		if i < len(d.row) {
			fmt.Fprintf(d.w, "%02x ", d.row[i])
		} else {
			d.w.WriteString("   ")
		}
	}
	d.w.WriteString(" |")
	for _, c := range d.row {
		if c < ' ' || c > '~' {
			c = '.'
		}
		d.w.WriteByte(c)
	}
	d.w.WriteString("|\n")
}

// Close writes what is left, and where it ends. Of nothing there is no end.
func (d *dumper) Close() error {
	d.endRow()
	if d.last != nil {
		fmt.Fprintf(d.w, "%08x\n", d.off)
	}
	return d.w.Flush()
}
