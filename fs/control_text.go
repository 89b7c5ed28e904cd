package fs

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// writeStatus writes the status of the mount.
func (s *Session) writeStatus(b *strings.Builder) error {
	mappings, mapped := s.files.Mappings()
	c := s.files.Counters()
	k := s.control.kernel
	var working []string
	sources := []struct{ name, missing string }{
		{"cachestat", k.Cachestat}, {"mincore", k.Mincore}, {"pagemap", k.Pagemap}, {"kpageflags", k.Kpageflags},
	}
	for _, source := range sources {
		if source.missing == "" {
			working = append(working, source.name)
		}
	}
	fmt.Fprintf(b, "version %s\n", orNone(s.opts.Version))
	fmt.Fprintf(b, "pid %d\n", os.Getpid())
	fmt.Fprintf(b, "backing %s\n", quotePath(s.opts.Backing))
	fmt.Fprintf(b, "mountpoint %s\n", quotePath(s.opts.Mountpoint))
	fmt.Fprintf(b, "mode shared\n")
	fmt.Fprintf(b, "page_size %d\n", mapping.PageSize)
	fmt.Fprintf(b, "files %d\n", s.files.Count())
	fmt.Fprintf(b, "nodes %d\n", s.nodes.len())
	fmt.Fprintf(b, "mappings %d\n", mappings)
	fmt.Fprintf(b, "mapped_bytes %d\n", mapped)
	fmt.Fprintf(b, "unsynced_bytes %d\n", s.files.UnsyncedBytes())
	fmt.Fprintf(b, "sources %s\n", orNone(strings.Join(working, ",")))
	for _, source := range sources {
		if source.missing == "" {
			source.missing = "ok"
		}
		fmt.Fprintf(b, "source_%s %s\n", source.name, source.missing)
	}
	writeCounters(b, c)
	fmt.Fprintf(b, "uptime_seconds %d\n", int64(time.Since(s.control.since).Seconds()))
	return nil
}

// orNone is text, or "none" for no text.
func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func writeCounters(b *strings.Builder, c *mapping.Counters) {
	fmt.Fprintf(b, "reads %d\nwrites %d\nstores %d\nfaults %d\nmsyncs %d\n",
		c.Reads.Load(), c.Writes.Load(), c.Stores.Load(), c.Faults.Load(), c.Msyncs.Load())
}

// writeMaps writes every mapping that the client may know of, in the order of
// their addresses.
func (s *Session) writeMaps(b *strings.Builder, h *fuse.Header) error {
	type row struct {
		addr uintptr
		text string
	}
	var rows []row
	for _, f := range s.files.Files() {
		addr, length, writable := f.Mapped()
		n := s.nodes.find(f.ID())
		if length > 0 && (n == nil && h.Uid == s.uid || n != nil && s.mayReach(h, n)) {
			perms := "r--s"
			if writable {
				perms = "rw-s"
			}
			id := f.ID()
			rows = append(rows, row{addr, fmt.Sprintf("%x-%x %s %08x %02x:%02x %d %s\n", addr, addr+uintptr(length), perms, 0,
				unix.Major(id.Dev), unix.Minor(id.Dev), id.Ino, quotePath(f.Name()))})
		}
		f.Unref()
	}
	slices.SortFunc(rows, func(a, b row) int {
		if a.addr < b.addr {
			return -1
		}
		return 1
	})
	for _, r := range rows {
		b.WriteString(r.text)
	}
	return nil
}

// writeFileStatus writes the status of one file.
func (s *Session) writeFileStatus(b *strings.Builder, n *node) error {
	var st unix.Stat_t
	if err := s.stat(n, &st); err != nil {
		return err
	}
	var resident, dirty, writeback, copied int64
	count := func(run mapping.PageRun) bool {
		pages := run.End - run.First
		for flag, counter := range map[mapping.PageFlags]*int64{
			mapping.PageResident: &resident, mapping.PageDirty: &dirty,
			mapping.PageWriteback: &writeback, mapping.PageCopied: &copied,
		} {
			if run.Flags&flag != 0 {
				*counter += pages
			}
		}
		return true
	}
	_, pages := mapping.Range{Off: 0, End: st.Size}.Pages()
	if err := s.inspect(n, 0, pages, count); err != nil {
		return err
	}
	var mapped, unsynced int64
	s.files.Unsynced(n.key, st.Size, func(g mapping.Range, _ mapping.Cause) bool {
		unsynced += g.Len()
		return true
	})
	counters, failure := new(mapping.Counters), "none"
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		_, length, _ := f.Mapped()
		mapped = min(length/mapping.PageSize, pages)
		counters = f.Counters()
		if err := f.Failure(); err != nil {
			failure = errnoName(err)
		}
	}
	fmt.Fprintf(b, "path %s\n", quotePath(s.pathOf(n)))
	fmt.Fprintf(b, "inode %d\n", s.devices.inode(n.key))
	fmt.Fprintf(b, "mode shared\n")
	fmt.Fprintf(b, "size %d\nbacking_size %d\n", st.Size, st.Size)
	fmt.Fprintf(b, "pages %d\nmapped_pages %d\nresident_pages %d\ndirty_pages %d\nwriteback_pages %d\ncopied_pages %d\n",
		pages, mapped, resident, dirty, writeback, copied)
	fmt.Fprintf(b, "unsynced_bytes %d\n", unsynced)
	writeCounters(b, counters)
	fmt.Fprintf(b, "error %s\n", failure)
	return nil
}

// writeUnsynced writes the ranges of a file that a power cut would take.
func (s *Session) writeUnsynced(b *strings.Builder, n *node) error {
	var st unix.Stat_t
	if err := s.stat(n, &st); err != nil {
		return err
	}
	s.files.Unsynced(n.key, st.Size, func(g mapping.Range, cause mapping.Cause) bool {
		fmt.Fprintf(b, "%d %d %s\n", g.Off, g.Len(), cause)
		return true
	})
	return nil
}

// inspect calls emit for the runs of pages [first, end) of a file, open or not.
func (s *Session) inspect(n *node, first, end int64, emit func(mapping.PageRun) bool) error {
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		return f.Inspect(s.control.kernel, first, end, emit)
	}
	return s.withBacking(n, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		s.files.Inspect(n.key, s.control.kernel, fd, st.Size, first, end, emit)
		return nil
	})
}

// pathOf returns the newest name of a node from the mount's root, without a
// leading slash; "" if it has none any more.
func (s *Session) pathOf(n *node) string {
	var parts []string
	for n != nil && n.id != fuse.RootID {
		l, ok := n.linkAt(0)
		if !ok || len(parts) > maxDepth {
			return ""
		}
		parts = append(parts, l.name)
		n = s.nodes.get(l.dir)
	}
	if n == nil {
		return ""
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// mayReach reports whether a client may read a file and go to where it is.
func (s *Session) mayReach(h *fuse.Header, n *node) bool {
	if h.Uid == 0 || h.Uid == s.uid {
		return true
	}
	if !s.mayRead(h, n) {
		return false
	}
	for n.id != fuse.RootID {
		l, ok := n.linkAt(0)
		if !ok {
			return false
		}
		var st unix.Stat_t
		if n = s.nodes.get(l.dir); n == nil || s.stat(n, &st) != nil || !allowed(h, &st, 1) {
			return false
		}
	}
	return true
}

// allowed reports whether the mode that stat(2) told gives a client the right: 4
// to read, 2 to write, 1 to search.
func allowed(h *fuse.Header, st *unix.Stat_t, right uint32) bool {
	switch {
	case st.Uid == h.Uid:
		return st.Mode>>6&right != 0
	case st.Gid == h.Gid || inGroup(h.Pid, st.Gid):
		return st.Mode>>3&right != 0
	}
	return st.Mode&right != 0
}

// inGroup reports whether a process has gid among its supplementary groups. A
// request does not tell them; a process that is gone has none.
func inGroup(pid, gid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(status)) {
		if groups, ok := strings.CutPrefix(line, "Groups:"); ok {
			return slices.Contains(strings.Fields(groups), fmt.Sprint(gid))
		}
	}
	return false
}

// pagesText renders runs of pages a line each.
type pagesText struct{ held mapping.PageRun }

func (t *pagesText) add(b []byte, run mapping.PageRun) []byte {
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
	t.held = mapping.PageRun{}
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
func letter(flags mapping.PageFlags) byte {
	for _, l := range []struct {
		flag   mapping.PageFlags
		letter byte
	}{
		{mapping.PageWriteback, 'W'}, {mapping.PageDirty, 'D'}, {mapping.PageCopied, 'C'},
		{mapping.PageUnsynced, 'U'}, {mapping.PageResident, 'R'},
	} {
		if flags&l.flag != 0 {
			return l.letter
		}
	}
	return '.'
}

func (t *mapText) add(b []byte, run mapping.PageRun) []byte {
	c := letter(run.Flags)
	left := run.End - run.First
	for left > 0 {
		if t.used == 0 && left >= mapRow && t.equal >= mapSqueeze && c == t.last {
			// The stretch goes on: whole rows of it are not shown.
			rows := left / mapRow
			if t.equal == mapSqueeze {
				b = append(b, "*\n"...)
			}
			t.equal += rows
			t.page += rows * mapRow
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

// flush ends the row.
func (t *mapText) flush(b []byte) []byte {
	row := t.row[:t.used]
	b = fmt.Appendf(b, "%12d  %s\n", t.page*mapping.PageSize, row)
	if whole := t.used == mapRow && strings.Count(string(row), string(row[0])) == mapRow; !whole {
		t.equal, t.last = 0, 0
	} else if row[0] == t.last {
		t.equal++
	} else {
		t.equal, t.last = 1, row[0]
	}
	t.page += int64(t.used)
	t.used = 0
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
	add(b []byte, run mapping.PageRun) []byte
	end(b []byte) []byte
}

// pagesWindow is how many pages are looked at at a time: all of a file of 1 GiB,
// so that the text of most files is of one moment, and memory stays bounded for
// the largest.
const pagesWindow = 1 << 18

// pagesHandle is an open pages or map file. Its text is made as it is read.
type pagesHandle struct {
	readOnly
	s      *Session
	target *node
	make   func() pageText
	count  int64
	err    error

	text pageText
	next int64  // the first page not looked at yet
	done bool   // the end of the text is in buf
	buf  []byte // text from offset at
	at   int64
}

// newPagesHandle makes a handle and its first text.
func newPagesHandle[T any, P interface {
	*T
	pageText
}](s *Session, target *node, _ P) controlHandle {
	h := &pagesHandle{s: s, target: target, make: func() pageText { return P(new(T)) }}
	var st unix.Stat_t
	if h.err = s.stat(target, &st); h.err != nil {
		return h
	}
	_, h.count = mapping.Range{Off: 0, End: st.Size}.Pages()
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
	end := min(h.next+pagesWindow, h.count)
	if h.next < end {
		err := h.s.inspect(h.target, h.next, end, func(run mapping.PageRun) bool {
			h.buf = h.text.add(h.buf, run)
			return true
		})
		if err != nil {
			return err
		}
	}
	h.next = end
	if h.next == h.count {
		h.buf = h.text.end(h.buf)
		h.done = true
	}
	return nil
}

func (h *pagesHandle) read(_ *worker, off int64, size int) ([]byte, error) {
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
		if err := h.more(); err != nil {
			return nil, err
		}
	}
	if off < 0 {
		return nil, syscall.EINVAL
	}
	from := min(off-h.at, int64(len(h.buf)))
	return slices.Clone(h.buf[from:min(from+int64(size), int64(len(h.buf)))]), nil
}
