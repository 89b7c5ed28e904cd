package fs

import (
	"fmt"
	"strings"
	"sync"
	"syscall"

	"bazil.org/fuse"
	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// writerAt is a file of the control tree where it matters at which offset a
// write(2) is.
type writerAt interface {
	// writeAt takes the bytes of one write(2) and returns how many it took.
	writeAt(w *worker, p []byte, off int64) (int, error)
}

// maySee reports whether a client may know of explicit mappings of a file. Who
// asks is held to the path that leads to the file, like in maps.
func (s *Session) maySee(h *fuse.Header, m *mapping.Mapping) bool {
	if h.Uid == 0 || h.Uid == s.uid {
		return true
	}
	n := s.nodes.find(m.FileID())
	return n != nil && s.mayReach(h, n)
}

// mayOpen reports whether a client may open a file or directory of an explicit
// mapping. What can change it is for its owner and for root, whether or not the
// kernel checks the modes.
func (s *Session) mayOpen(h *fuse.Header, n *controlNode) bool {
	if n.kind == mappingCtl || n.kind == mappingMemory {
		return h.Uid == 0 || h.Uid == s.uid
	}
	return s.maySee(h, n.explicit)
}

// lookMapping answers what a name in mappings is.
func (w *worker) lookMapping(r *fuse.LookupRequest) error {
	m := w.s.files.Arena().Find(r.Name)
	if m == nil {
		return syscall.ENOENT
	}
	if !w.s.maySee(&r.Header, m) {
		return syscall.EACCES
	}
	return w.sendControl(w.s.lookControl(controlKey{kind: controlMapping, explicit: m}, false))
}

// controlRemove handles rmdir(2) in the control tree: that of an explicit mapping
// unmaps it.
func (w *worker) controlRemove(n *controlNode, r *fuse.RemoveRequest) error {
	if n.kind != controlMappings || !r.Dir {
		return syscall.EPERM
	}
	if r.Uid != 0 && r.Uid != w.s.uid {
		return syscall.EACCES
	}
	m := w.s.files.Arena().Find(r.Name)
	if m == nil {
		return syscall.ENOENT
	}
	w.s.workers.willWait()
	if err := m.Unmap(0, m.Length()); err != nil {
		return err
	}
	return w.ok()
}

// mappingsDir is the open directory mappings.
type mappingsDir struct {
	readOnly
	s      *Session
	node   *controlNode
	header fuse.Header

	mu     sync.Mutex // threads share descriptors
	names  []string
	inodes []uint64
}

// read lists the mappings there were when the client began to read. An offset is
// the place of an entry in that list.
func (d *mappingsDir) read(_ *worker, off int64, size int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off == 0 {
		root := controlNode{controlKey: controlKey{kind: controlRoot}}
		d.names, d.inodes = []string{".", ".."}, []uint64{d.node.inode(d.s), root.inode(d.s)}
		for _, m := range d.s.files.Arena().Mappings() {
			if d.s.maySee(&d.header, m) {
				entry := controlNode{controlKey: controlKey{kind: controlMapping, explicit: m}}
				d.names, d.inodes = append(d.names, m.Name()), append(d.inodes, entry.inode(d.s))
			}
		}
	}
	var out []byte
	for i := int(max(off, 0)); i < len(d.names); i++ {
		name := []byte(d.names[i])
		if len(out)+direntSize(name) > size {
			break
		}
		out = appendDirent(out, &direntHeader{Ino: d.inodes[i], Off: uint64(i + 1), Type: unix.DT_DIR}, name)
	}
	return out, nil
}

// mappingMemoryHandle is the open memory of an explicit mapping.
type mappingMemoryHandle struct {
	readOnly
	explicit *mapping.Mapping
}

func (h *mappingMemoryHandle) read(w *worker, off int64, size int) ([]byte, error) {
	w.s.workers.willWait() // a page can be long in coming
	p := make([]byte, size)
	n, err := h.explicit.ReadAt(p, off)
	return p[:n], err
}

func (h *mappingMemoryHandle) writeAt(w *worker, p []byte, off int64) (int, error) {
	n, err := h.explicit.WriteAt(p, off)
	if n > 0 && h.explicit.Flags()&unix.MAP_SHARED != 0 {
		w.s.changedBelow(h.explicit.FileID())
	}
	return n, err
}

// changedBelow has the kernel drop what it has cached of a file whose bytes were
// changed in the backing file.
func (s *Session) changedBelow(id mapping.ID) {
	if n := s.nodes.find(id); n != nil {
		n.changed()
		s.notify.invalidate(n.id)
	}
}

// pagesOfMapping returns the pages of an explicit mapping.
func (s *Session) pagesOfMapping(m *mapping.Mapping) pageSource {
	return pageSource{count: m.Length() / mapping.PageSize, inspect: func(first, end int64, emit func(mapping.PageRun) bool) error {
		return m.Inspect(s.control.kernel, first, end, emit)
	}}
}

// writeArena writes what the mount's status says of explicit mappings.
func (s *Session) writeArena(b *strings.Builder) {
	arena := s.files.Arena()
	fmt.Fprintf(b, "explicit_mappings %d\n", len(arena.Mappings()))
	if start, end := arena.Bounds(); start < end {
		fmt.Fprintf(b, "arena %x-%x\n", start, end)
	} else {
		fmt.Fprintf(b, "arena none\n")
	}
}

// writeMappingStatus writes the status of one explicit mapping.
func (s *Session) writeMappingStatus(b *strings.Builder, m *mapping.Mapping) error {
	var mapped, resident, dirty, writeback int64
	err := m.Inspect(s.control.kernel, 0, m.Length()/mapping.PageSize, func(run mapping.PageRun) bool {
		for flag, counter := range map[mapping.PageFlags]*int64{
			mapping.PageResident: &resident, mapping.PageDirty: &dirty, mapping.PageWriteback: &writeback,
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
	fmt.Fprintf(b, "name %s\n", quotePath(m.Name()))
	fmt.Fprintf(b, "addr %x\nlength %d\n", m.Start(), m.Length())
	fmt.Fprintf(b, "prot %s\nflags %s\n", prot, mmapFlagNames(m.Flags()))
	fmt.Fprintf(b, "file %s\ninode %d\n", quotePath(m.FileName()), s.devices.inode(m.FileID()))
	fmt.Fprintf(b, "offset %d\nopen %s\n", m.Offset(), access)
	fmt.Fprintf(b, "pages %d\nmapped_pages %d\nresident_pages %d\ndirty_pages %d\nwriteback_pages %d\ncopied_pages %d\nlocked_pages %d\n",
		m.Length()/mapping.PageSize, mapped/mapping.PageSize, resident, dirty, writeback, m.CopiedPages(), locked/mapping.PageSize)
	fmt.Fprintf(b, "unsynced_bytes %d\nstores %d\nfaults %d\n", m.UnsyncedBytes(), m.Stores(), m.Faults())
	for _, seg := range segments {
		fmt.Fprintf(b, "segment %x-%x %s %d\n", seg.Start, seg.End, permissions(m, seg.Prot), seg.Offset)
	}
	return nil
}

// explicitRows passes on the rows that maps has for the explicit mappings that
// the client may know of.
func (s *Session) explicitRows(h *fuse.Header, emit func(addr uintptr, text string)) {
	for _, m := range s.files.Arena().Mappings() {
		if !s.maySee(h, m) {
			continue
		}
		id := m.FileID()
		for _, seg := range m.Segments() {
			emit(seg.Start, fmt.Sprintf("%x-%x %s %08x %02x:%02x %d %s %s\n", seg.Start, seg.End, permissions(m, seg.Prot), seg.Offset,
				unix.Major(id.Dev), unix.Minor(id.Dev), id.Ino, quotePath(m.FileName()), quotePath(m.Name())))
		}
	}
}

// permissions writes a protection as /proc/PID/maps does.
func permissions(m *mapping.Mapping, prot int) string {
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
