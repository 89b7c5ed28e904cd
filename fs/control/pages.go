package control

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// pagesText renders runs of pages a line each.
type pagesText struct{ held pagestate.Run }

func (t *pagesText) add(b []byte, run pagestate.Run) []byte {
	if t.held.End == run.First && t.held.Flags == run.Flags && t.held.End > 0 {
		t.held.End = run.End
		return b
	}
	b = t.end(b)
	t.held = run
	return b
}

func (t *pagesText) end(b []byte) []byte {
	if t.held.End > t.held.First {
		b = fmt.Appendf(b, "%d-%d %s\n", t.held.First, t.held.End-1, t.held.Flags)
	}
	t.held = pagestate.Run{}
	return b
}

// mapRow is how many pages a row of the picture has; mapSqueeze is how many
// equal rows in a stretch are still all shown.
const (
	mapRow     = 64
	mapSqueeze = 4096
)

// mapLegend is the last line of the picture.
const mapLegend = "R resident  D dirty  W under writeback  C copied  U unsynced  . none\n"

// mapText renders runs of pages as a picture, a character each.
type mapText struct {
	row   [mapRow]byte
	used  int
	page  int64 // the first page of the row
	equal int64 // how many whole rows before this one had only the letter last
	last  byte
}

// letter returns the character of a page.
func letter(flags pagestate.Flags) byte {
	for _, l := range []struct {
		flag   pagestate.Flags
		letter byte
	}{
		{pagestate.Copied, 'C'}, {pagestate.Writeback, 'W'}, {pagestate.Dirty, 'D'},
		{pagestate.Unsynced, 'U'}, {pagestate.Resident, 'R'},
	} {
		if flags&l.flag != 0 {
			return l.letter
		}
	}
	return '.'
}

func (t *mapText) add(b []byte, run pagestate.Run) []byte {
	c := letter(run.Flags)
	left := run.End - run.First
	for left > 0 {
		if t.used == 0 && left >= mapRow && t.equal >= mapSqueeze && c == t.last {
			// Rows that are not shown need not be made.
			rows := left / mapRow
			b = t.squeeze(b, rows)
			left -= rows * mapRow
			continue
		}
		n := min(left, int64(mapRow-t.used))
		for range n {
			t.row[t.used] = c
			t.used++
		}
		left -= n
		if t.used == mapRow {
			b = t.flush(b)
		}
	}
	return b
}

// squeeze passes over whole rows that continue a stretch of equal ones; the first
// of them is shown as an asterisk.
func (t *mapText) squeeze(b []byte, rows int64) []byte {
	if t.equal == mapSqueeze {
		b = append(b, "*\n"...)
	}
	t.equal += rows
	t.page += rows * mapRow
	return b
}

// flush ends the row.
func (t *mapText) flush(b []byte) []byte {
	row := t.row[:t.used]
	t.used = 0
	whole := len(row) == mapRow && strings.Count(string(row), string(row[0])) == mapRow
	if whole && row[0] == t.last && t.equal >= mapSqueeze {
		return t.squeeze(b, 1)
	}
	b = fmt.Appendf(b, "%12d  %s\n", t.page*paging.PageSize, row)
	switch {
	case !whole:
		t.equal, t.last = 0, 0
	case row[0] == t.last:
		t.equal++
	default:
		t.equal, t.last = 1, row[0]
	}
	t.page += int64(len(row))
	return b
}

func (t *mapText) end(b []byte) []byte {
	if t.used > 0 {
		b = t.flush(b)
	}
	return append(b, mapLegend...)
}

// pageText renders runs of pages. end ends the text.
type pageText interface {
	add(b []byte, run pagestate.Run) []byte
	end(b []byte) []byte
}

// pagesWindow is how many pages are looked at at a time: all of a file of 1 GiB,
// so that the text of most files is of one moment, and memory stays bounded for
// the largest.
const pagesWindow = 1 << 18

// pageSource is what has pages to be shown.
type pageSource struct {
	count   int64
	inspect func(first, end int64, emit func(pagestate.Run) bool) error
	err     error // why its pages cannot be shown
}

// pagesOf returns the pages of a file.
func (t *Tree) pagesOf(n *node) pageSource {
	target := n.target
	var st unix.Stat_t
	err := t.s.Stat(target, &st)
	_, count := paging.Range{Off: 0, End: st.Size}.Pages()
	return pageSource{count: count, err: err, inspect: func(first, end int64, emit func(pagestate.Run) bool) error {
		return t.inspect(target, first, end, emit)
	}}
}

// pagesHandle is an open pages or map file. Its text is made as it is read.
type pagesHandle struct {
	readOnly
	pages pageSource
	make  func() pageText

	mu   sync.Mutex // guards what follows: threads share descriptors
	err  error
	text pageText
	next int64  // the first page not looked at yet
	done bool   // the end of the text is in buf
	buf  []byte // text from offset at
	at   int64
}

// openPages opens a file that renders pages as a T: those of an explicit mapping, or of
// a file.
func openPages[T any, P interface {
	*T
	pageText
}](t *Tree, n *node, _ *fuse.Header) handle {
	pages := t.pagesOf
	if n.explicit != nil {
		pages = t.pagesOfMapping
	}
	return newPagesHandle(pages(n), func() pageText { return P(new(T)) })
}

// newPagesHandle makes a handle and its first text.
func newPagesHandle(pages pageSource, text func() pageText) handle {
	h := &pagesHandle{pages: pages, make: text}
	if h.err = pages.err; h.err != nil {
		return h
	}
	h.rewind()
	h.err = h.more()
	return h
}

// rewind starts the text again.
func (h *pagesHandle) rewind() {
	h.text, h.next, h.done, h.buf, h.at = h.make(), 0, false, nil, 0
}

// more looks at the next pages and appends their text.
func (h *pagesHandle) more() error {
	end := min(h.next+pagesWindow, h.pages.count)
	if h.next < end {
		err := h.pages.inspect(h.next, end, func(run pagestate.Run) bool {
			h.buf = h.text.add(h.buf, run)
			return true
		})
		if err != nil {
			return err
		}
	}
	h.next = end
	if h.next == h.pages.count {
		h.buf = h.text.end(h.buf)
		h.done = true
	}
	return nil
}

func (h *pagesHandle) read(_ *call, off int64, size int) ([]byte, error) {
	if off < 0 {
		return nil, syscall.EINVAL
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, h.err
	}
	if off < h.at {
		h.rewind()
	}
	for off+int64(size) > h.at+int64(len(h.buf)) && !h.done {
		if skip := min(off-h.at, int64(len(h.buf))); skip > 0 {
			h.buf = append(h.buf[:0], h.buf[skip:]...)
			h.at += skip
		}
		if h.err = h.more(); h.err != nil {
			return nil, h.err
		}
	}
	from := min(off-h.at, int64(len(h.buf)))
	return slices.Clone(h.buf[from:min(from+int64(size), int64(len(h.buf)))]), nil
}
