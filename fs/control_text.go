package fs

import (
	"fmt"
	"os"
	"slices"
	"strings"
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
	fmt.Fprintf(b, "mode %s\n", s.opts.Mode)
	fmt.Fprintf(b, "page_size %d\n", mapping.PageSize)
	fmt.Fprintf(b, "files %d\n", s.files.Count())
	fmt.Fprintf(b, "nodes %d\n", s.nodes.len())
	fmt.Fprintf(b, "mappings %d\n", mappings)
	fmt.Fprintf(b, "mapped_bytes %d\n", mapped)
	fmt.Fprintf(b, "mapped_bytes_limit %d\n", s.files.MaxMappedBytes())
	fmt.Fprintf(b, "copied_bytes %d\n", s.files.CopiedBytes())
	fmt.Fprintf(b, "parked_files %d\n", s.files.Parked())
	fmt.Fprintf(b, "idle_files %d\n", s.files.Idle())
	fmt.Fprintf(b, "handles %d\nhandles_limit %d\n", s.admission.handles.Taken(), s.admission.handles.Limit())
	fmt.Fprintf(b, "descriptors_limit %d\n", s.limits.descriptors)
	s.writeArena(b)
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
		addr, length, perms := f.Mapped()
		n := s.nodes.find(f.ID())
		if length > 0 && (n == nil && h.Uid == s.uid || n != nil && s.mayReach(h, n)) {
			id := f.ID()
			rows = append(rows, row{addr, fmt.Sprintf("%x-%x %s %08x %02x:%02x %d %s\n", addr, addr+uintptr(length), perms, 0,
				unix.Major(id.Dev), unix.Minor(id.Dev), id.Ino, quotePath(f.Name()))})
		}
		f.Unref()
	}
	s.explicitRows(h, func(addr uintptr, text string) { rows = append(rows, row{addr, text}) })
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
	fmt.Fprintf(b, "mode %s\n", s.modeOf(n))
	fmt.Fprintf(b, "size %d\nbacking_size %d\n", st.Size, s.backingSize(n, st.Size))
	fmt.Fprintf(b, "pages %d\nmapped_pages %d\nresident_pages %d\ndirty_pages %d\nwriteback_pages %d\ncopied_pages %d\n",
		pages, mapped, resident, dirty, writeback, copied)
	fmt.Fprintf(b, "unsynced_bytes %d\n", unsynced)
	writeCounters(b, counters)
	fmt.Fprintf(b, "error %s\n", failure)
	return nil
}

// modeOf returns the mode of a file, open or not.
func (s *Session) modeOf(n *node) (mode mapping.Mode) {
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		return f.Mode()
	}
	mode = s.files.Mode()
	_ = s.withBacking(n, func(fd int) error { // a file that cannot be opened has none of its own
		mode = s.files.ModeOf(n.key, fd)
		return nil
	})
	return mode
}

// backingSize returns the length of the backing file of n, which is size bytes long
// in the mount.
func (s *Session) backingSize(n *node, size int64) int64 {
	if f := s.files.Find(n.key); f != nil {
		defer f.Unref()
		if backing, err := f.BackingSize(); err == nil {
			return backing
		}
	}
	var st unix.Stat_t
	if p, err := s.locate(n, &st); err == nil {
		s.leave(p)
		return st.Size
	}
	return size
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
