package control

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs"
	"mapfs/internal/quote"
	"mapfs/mapping"
	"mapfs/mapping/dirty"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// writeStatus writes the status of the mount.
func (t *Tree) writeStatus(b *strings.Builder, _ *node, _ *fuse.Header) error {
	mappings, mapped := t.mappings()
	c := t.s.Files().Counters()
	k := t.kernel
	var working []string
	sources := []struct{ name, missing string }{
		{"cachestat", k.Cachestat}, {"mincore", k.Mincore}, {"pagemap", k.Pagemap}, {"kpageflags", k.Kpageflags},
	}
	for _, source := range sources {
		if source.missing == "" {
			working = append(working, source.name)
		}
	}
	fmt.Fprintf(b, "version %s\n", orNone(t.opts.Version))
	fmt.Fprintf(b, "pid %d\n", os.Getpid())
	fmt.Fprintf(b, "backing %s\n", quote.Path(t.s.Options().Backing))
	fmt.Fprintf(b, "mountpoint %s\n", quote.Path(t.s.Options().Mountpoint))
	fmt.Fprintf(b, "mode %s\n", t.s.Options().Mode)
	if model := t.s.History(); model != nil {
		fmt.Fprintf(b, "history %s\n", model.Name())
		fmt.Fprintf(b, "recording %s\n", t.recording())
	}
	protocol := &t.s.Conn().Protocol
	fmt.Fprintf(b, "protocol %s\n", protocol.Version())
	fmt.Fprintf(b, "features %s\n", orNone(protocol.Features()))
	fmt.Fprintf(b, "request_bytes %d\n", protocol.RequestBytes)
	fmt.Fprintf(b, "passthrough %s\n", t.s.Passthrough())
	fmt.Fprintf(b, "page_size %d\n", paging.PageSize)
	fmt.Fprintf(b, "files %d\n", t.s.Files().Count())
	fmt.Fprintf(b, "nodes %d\n", t.s.Nodes())
	fmt.Fprintf(b, "mappings %d\n", mappings)
	fmt.Fprintf(b, "mapped_bytes %d\n", mapped)
	fmt.Fprintf(b, "mapped_bytes_limit %d\n", t.s.Files().MaxMappedBytes())
	fmt.Fprintf(b, "copied_bytes %d\n", t.s.Files().CopiedBytes())
	fmt.Fprintf(b, "parked_files %d\n", t.s.Files().Parked())
	fmt.Fprintf(b, "idle_files %d\n", t.s.Files().Idle())
	handles, most := t.s.Handles()
	fmt.Fprintf(b, "handles %d\nhandles_limit %d\n", handles, most)
	fmt.Fprintf(b, "descriptors_limit %d\n", t.s.DescriptorLimit())
	t.writeArena(b)
	fmt.Fprintf(b, "unsynced_bytes %d\n", t.s.Files().UnsyncedBytes())
	fmt.Fprintf(b, "sources %s\n", orNone(strings.Join(working, ",")))
	for _, source := range sources {
		if source.missing == "" {
			source.missing = "ok"
		}
		fmt.Fprintf(b, "source_%s %s\n", source.name, source.missing)
	}
	writeCounters(b, c)
	fmt.Fprintf(b, "uptime_seconds %d\n", int64(time.Since(t.since).Seconds()))
	return nil
}

func writeCounters(b *strings.Builder, c *mapping.Counters) {
	fmt.Fprintf(b, "reads %d\nwrites %d\nstores %d\nfaults %d\nmsyncs %d\n",
		c.Reads.Load(), c.Writes.Load(), c.Stores.Load(), c.Faults.Load(), c.Msyncs.Load())
}

// mappings returns how many mappings there are, explicit ones included, and how many
// bytes of address space they take.
func (t *Tree) mappings() (count, length int64) {
	count, length = t.s.Files().Mappings()
	explicit, bytes := t.arena.Size()
	return count + explicit, length + bytes
}

// writeMaps writes every mapping that the client may know of, in the order of
// their addresses.
func (t *Tree) writeMaps(b *strings.Builder, _ *node, h *fuse.Header) error {
	type row struct {
		addr uintptr
		text string
	}
	var rows []row
	for _, f := range t.s.Files().Files() {
		addr, length, perms := f.Mapped()
		n := t.s.Find(f.ID())
		if length > 0 && (n == nil && h.Uid == t.uid || n != nil && t.mayReach(h, n)) {
			id := f.ID()
			rows = append(rows, row{addr, fmt.Sprintf("%x-%x %s %08x %02x:%02x %d %s\n", addr, addr+uintptr(length), perms, 0,
				unix.Major(id.Dev), unix.Minor(id.Dev), id.Ino, quote.Path(f.Name()))})
		}
		f.Unref()
	}
	t.explicitRows(h, func(addr uintptr, text string) { rows = append(rows, row{addr, text}) })
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
func (t *Tree) writeFileStatus(b *strings.Builder, about *node, _ *fuse.Header) error {
	n := about.target
	var st unix.Stat_t
	if err := t.s.Stat(n, &st); err != nil {
		return err
	}
	var resident, dirty, writeback, copied int64
	count := func(run pagestate.Run) bool {
		pages := run.End - run.First
		for flag, counter := range map[pagestate.Flags]*int64{
			pagestate.Resident: &resident, pagestate.Dirty: &dirty,
			pagestate.Writeback: &writeback, pagestate.Copied: &copied,
		} {
			if run.Flags&flag != 0 {
				*counter += pages
			}
		}
		return true
	}
	_, pages := paging.Range{Off: 0, End: st.Size}.Pages()
	if err := t.inspect(n, 0, pages, count); err != nil {
		return err
	}
	var mapped int64
	counters, failure := new(mapping.Counters), "none"
	if f := t.s.Files().Find(n.ID()); f != nil {
		defer f.Unref()
		_, length, _ := f.Mapped()
		mapped = min(length/paging.PageSize, pages)
		counters = f.Counters()
		if err := f.Failure(); err != nil {
			failure = errnoName(err)
		}
	}
	fmt.Fprintf(b, "path %s\n", quote.Path(t.s.Path(n)))
	fmt.Fprintf(b, "inode %d\n", t.s.Inode(n.ID()))
	fmt.Fprintf(b, "mode %s\n", t.modeOf(n))
	fmt.Fprintf(b, "size %d\nbacking_size %d\n", st.Size, t.backingSize(about, st.Size))
	fmt.Fprintf(b, "pages %d\nmapped_pages %d\nresident_pages %d\ndirty_pages %d\nwriteback_pages %d\ncopied_pages %d\n",
		pages, mapped, resident, dirty, writeback, copied)
	fmt.Fprintf(b, "unsynced_bytes %d\n", t.unsyncedBytes(n, st.Size))
	writeCounters(b, counters)
	fmt.Fprintf(b, "error %s\n", failure)
	return nil
}

// modeOf returns the mode of a file, open or not.
func (t *Tree) modeOf(n *fs.Node) (mode mapping.Mode) {
	if f := t.s.Files().Find(n.ID()); f != nil {
		defer f.Unref()
		return f.Mode()
	}
	mode = t.s.Files().Mode()
	_ = t.s.WithBacking(n, func(fd int) error { // a file that cannot be opened has none of its own
		mode = t.s.Files().ModeOf(n.ID(), fd)
		return nil
	})
	return mode
}

// backingSize returns the length of the backing file of the file that n is about, which
// is size bytes long in the mount.
func (t *Tree) backingSize(n *node, size int64) int64 {
	if f := t.s.Files().Find(n.target.ID()); f != nil {
		defer f.Unref()
		if backing, err := f.BackingSize(); err == nil {
			return backing
		}
	}
	var st unix.Stat_t
	if err := t.s.StatBacking(n.target, &st); err == nil {
		return st.Size
	}
	return size
}

// writeUnsynced writes the ranges of a file that a power cut would take.
func (t *Tree) writeUnsynced(b *strings.Builder, about *node, _ *fuse.Header) error {
	n := about.target
	var st unix.Stat_t
	if err := t.s.Stat(n, &st); err != nil {
		return err
	}
	t.s.Files().Unsynced(n.ID(), st.Size, func(g paging.Range, cause dirty.Cause) bool {
		fmt.Fprintf(b, "%d %d %s\n", g.Off, g.Len(), cause)
		return true
	})
	return nil
}

// inspect calls emit for the runs of pages [first, end) of a file, open or not.
func (t *Tree) inspect(n *fs.Node, first, end int64, emit func(pagestate.Run) bool) error {
	if f := t.s.Files().Find(n.ID()); f != nil {
		defer f.Unref()
		return f.Inspect(t.kernel, first, end, emit)
	}
	return t.s.WithBacking(n, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		t.s.Files().Inspect(n.ID(), t.kernel, fd, st.Size, first, end, emit)
		return nil
	})
}

// recording says where the recording of the history is, or why it is not complete.
func (t *Tree) recording() string {
	dir := t.s.Options().Record
	switch err := t.s.RecordingError(); {
	case dir == "":
		return "none"
	case err != nil:
		return fmt.Sprintf("%s broken: %v", quote.Path(dir), err)
	}
	return quote.Path(dir)
}
