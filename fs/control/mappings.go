package control

import (
	"fmt"
	"strings"
	"sync"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/fs/wire"
	"mapfs/internal/quote"
	"mapfs/mapping"
	"mapfs/mapping/explicit"
	"mapfs/mapping/pagestate"
	"mapfs/mapping/paging"
)

// lookupMapping answers what a name in mappings is.
func (t *Tree) lookupMapping(w *wire.Worker, r *fuse.LookupRequest) error {
	m := t.arena.Find(r.Name)
	if m == nil {
		return syscall.ENOENT
	}
	if !t.mayKnow(&r.Header, m) {
		return syscall.EACCES
	}
	return t.sendNode(w, t.nodes.look(t, key{entry: t.nodes.mapping, explicit: m}, false))
}

// removeMapping handles rmdir(2) in the control tree: that of an explicit mapping
// unmaps it.
func (t *Tree) removeMapping(w *wire.Worker, n *node, r *fuse.RemoveRequest) error {
	if n.entry.holds() != mappingsDir || !r.Dir {
		return syscall.EPERM
	}
	if r.Uid != 0 && r.Uid != t.uid {
		return syscall.EACCES
	}
	m := t.arena.Find(r.Name)
	if m == nil {
		return syscall.ENOENT
	}
	w.WillWait()
	if err := m.Unmap(0, m.Length()); err != nil {
		return err
	}
	return w.OK()
}

// openedMappings is the open directory of all explicit mappings.
type openedMappings struct {
	readOnly
	node   *node
	client fuse.Header

	mu    sync.Mutex // threads share descriptors
	shown []*explicit.Mapping
}

func openMappings(_ *Tree, n *node, client *fuse.Header) handle {
	return &openedMappings{node: n, client: *client}
}

// read lists the mappings there were when the client began to read. An offset is
// the place of an entry in that list.
func (d *openedMappings) read(c *call, off int64, size int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off == 0 {
		d.shown = nil
		for _, m := range c.t.arena.Mappings() {
			if c.t.mayKnow(&d.client, m) {
				d.shown = append(d.shown, m)
			}
		}
	}
	l := listing{size: size, off: off}
	l.add(c.t, ".", d.node.key)
	l.add(c.t, "..", key{entry: c.t.nodes.root})
	for _, m := range d.shown {
		l.add(c.t, m.Name(), key{entry: c.t.nodes.mapping, explicit: m})
	}
	return l.out, nil
}

// mappingMemory is the open memory of an explicit mapping.
type mappingMemory struct {
	nothingHeld
	explicit *explicit.Mapping
}

func openMappingMemory(_ *Tree, n *node, _ *fuse.Header) handle {
	return &mappingMemory{explicit: n.explicit}
}

func mappingSize(_ *Tree, n *node, _ int64) int64 { return n.explicit.Length() }

func (h *mappingMemory) read(c *call, off int64, size int) ([]byte, error) {
	c.w.WillWait() // a page can be long in coming
	p := make([]byte, size)
	n, err := h.explicit.ReadAt(p, off)
	return p[:n], err
}

func (h *mappingMemory) write(c *call, p []byte, off int64) (int, error) {
	n, err := h.explicit.WriteAt(p, off)
	if n > 0 && h.explicit.Flags()&unix.MAP_SHARED != 0 {
		c.t.changedBelow(h.explicit.FileID())
	}
	return n, err
}

// changedBelow has the kernel drop what it has cached of a file whose bytes were
// changed in the backing file.
func (t *Tree) changedBelow(id mapping.ID) {
	if n := t.s.Find(id); n != nil {
		t.changed(n)
	}
}

// pagesOfMapping returns the pages of an explicit mapping.
func (t *Tree) pagesOfMapping(n *node) pageSource {
	m := n.explicit
	return pageSource{count: m.Length() / paging.PageSize, inspect: func(first, end int64, emit func(pagestate.Run) bool) error {
		return m.Inspect(t.kernel, first, end, emit)
	}}
}

// writeArena writes what the mount's status says of explicit mappings.
func (t *Tree) writeArena(b *strings.Builder) {
	fmt.Fprintf(b, "explicit_mappings %d\n", len(t.arena.Mappings()))
	if start, end := t.arena.Bounds(); start < end {
		fmt.Fprintf(b, "arena %x-%x\n", start, end)
	} else {
		fmt.Fprintf(b, "arena none\n")
	}
}

// writeMappingStatus writes the status of one explicit mapping.
func (t *Tree) writeMappingStatus(b *strings.Builder, n *node, _ *fuse.Header) error {
	m := n.explicit
	var mapped, resident, dirty, writeback int64
	err := m.Inspect(t.kernel, 0, m.Length()/paging.PageSize, func(run pagestate.Run) bool {
		for flag, counter := range map[pagestate.Flags]*int64{
			pagestate.Resident: &resident, pagestate.Dirty: &dirty, pagestate.Writeback: &writeback,
		} {
			if run.Flags&flag != 0 {
				*counter += run.End - run.First
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	segments := m.Segments()
	if len(segments) == 0 {
		return syscall.ESTALE
	}
	prot, locked := protText(segments[0].Prot), int64(0)
	for _, seg := range segments {
		length := int64(seg.End - seg.Start)
		mapped += length
		if seg.Locked {
			locked += length
		}
		if protText(seg.Prot) != prot {
			prot = "mixed"
		}
	}
	access := "ro"
	if m.Writable() {
		access = "rw"
	}
	fmt.Fprintf(b, "name %s\n", quote.Path(m.Name()))
	fmt.Fprintf(b, "addr %x\nlength %d\n", m.Start(), m.Length())
	fmt.Fprintf(b, "prot %s\nflags %s\n", prot, mmapFlagNames(m.Flags()))
	fmt.Fprintf(b, "file %s\ninode %d\n", quote.Path(m.FileName()), t.s.Inode(m.FileID()))
	fmt.Fprintf(b, "offset %d\nopen %s\n", m.Offset(), access)
	fmt.Fprintf(b, "pages %d\nmapped_pages %d\nresident_pages %d\ndirty_pages %d\nwriteback_pages %d\ncopied_pages %d\nlocked_pages %d\n",
		m.Length()/paging.PageSize, mapped/paging.PageSize, resident, dirty, writeback, m.CopiedPages(), locked/paging.PageSize)
	fmt.Fprintf(b, "unsynced_bytes %d\nstores %d\nfaults %d\n", m.UnsyncedBytes(), m.Stores(), m.Faults())
	for _, seg := range segments {
		fmt.Fprintf(b, "segment %x-%x %s %d\n", seg.Start, seg.End, permissions(m, seg.Prot), seg.Offset)
	}
	return nil
}

// explicitRows passes on the rows that maps has for the explicit mappings that
// the client may know of.
func (t *Tree) explicitRows(h *fuse.Header, emit func(addr uintptr, text string)) {
	for _, m := range t.arena.Mappings() {
		if !t.mayKnow(h, m) {
			continue
		}
		id := m.FileID()
		for _, seg := range m.Segments() {
			emit(seg.Start, fmt.Sprintf("%x-%x %s %08x %02x:%02x %d %s %s\n", seg.Start, seg.End, permissions(m, seg.Prot), seg.Offset,
				unix.Major(id.Dev), unix.Minor(id.Dev), id.Ino, quote.Path(m.FileName()), quote.Path(m.Name())))
		}
	}
}

// permissions writes a protection as /proc/PID/maps does.
func permissions(m *explicit.Mapping, prot int) string {
	text := []byte("---p")
	for i, p := range protLetters {
		if prot&p.bit != 0 {
			text[i] = p.name[0]
		}
	}
	if m.Flags()&unix.MAP_SHARED != 0 {
		text[3] = 's'
	}
	return string(text)
}

// protText writes a protection as mmap's argument has it.
func protText(prot int) string {
	return strings.ReplaceAll(flagNames(prot, protLetters), ",", "")
}

// mmapFlagNames writes flags as mmap's argument has them.
func mmapFlagNames(flags int) string { return flagNames(flags, mmapFlags) }

// protLetters and mmapFlags are the names of the bits of mmap's arguments.
var (
	protLetters = []flagName{{unix.PROT_READ, "r"}, {unix.PROT_WRITE, "w"}, {unix.PROT_EXEC, "x"}}
	mmapFlags   = []flagName{
		{unix.MAP_SHARED, "shared"}, {unix.MAP_PRIVATE, "private"}, {unix.MAP_FIXED, "fixed"},
		{unix.MAP_FIXED_NOREPLACE, "fixed_noreplace"}, {unix.MAP_POPULATE, "populate"}, {unix.MAP_LOCKED, "locked"},
	}
)
