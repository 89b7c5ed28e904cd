package explicit

import (
	"cmp"
	"errors"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// Mapping is an explicit mapping: a range of a file at addresses of the arena,
// made with the arguments of mmap(2). The file stays open as long as the mapping
// lives, whatever becomes of its names.
//
// Munmap and MAP_FIXED can take parts of it away. What is left stays at its
// addresses, and offsets in the mapping keep what they mean.
type Mapping struct {
	arena  *Arena
	serial uint64
	name   string
	file   *mapping.File
	span         // as mmap(2) returned it
	off    int64 // in the file, of the first byte
	prot   int   // as it was made
	flags  int
	write  bool // the file was open for writing

	stores atomic.Uint64
	faults atomic.Uint64

	// See the package comment for the order of these locks. use is held shared
	// while the mapping's memory is used, and exclusively to take pages of it
	// away or to protect them.
	use    sync.RWMutex
	gone   atomic.Bool // nothing of it is left; changes under use only
	lockMu sync.Mutex  // one mlock or munlock at a time
}

// Request are the arguments of mmap(2), and the name of the mapping to be.
type Request struct {
	Name   string
	Addr   uintptr
	Length uint64 // bytes
	Prot   int
	Flags  int // MAP_SHARED or MAP_PRIVATE, and MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_POPULATE, MAP_LOCKED
	Offset int64
	// Writable says that the descriptor is open for writing.
	Writable bool
}

// What may be asked for.
const (
	protMask  = unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC
	mmapFlags = unix.MAP_SHARED | unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_FIXED_NOREPLACE | unix.MAP_POPULATE | unix.MAP_LOCKED
)

// Mmap maps a file as mmap(2) does. f is the file, of which the caller has a
// reference; the mapping takes one of its own. fd is a descriptor of it, which may
// be closed afterwards; its access mode decides what the kernel allows.
//
// A refused mmap changes nothing, unless the kernel runs out of memory after it
// has removed what MAP_FIXED replaces.
func (a *Arena) Mmap(f *mapping.File, fd int, r Request) (*Mapping, error) {
	length, err := r.check()
	if err != nil {
		return nil, err
	}
	m := &Mapping{arena: a, name: r.Name, file: f, off: r.Offset, prot: r.Prot, flags: r.Flags, write: r.Writable}
	gone, err := a.change(func() (touched segments, change func() error, err error) {
		a.mu.RLock()
		refusal, taken := a.refusal, a.names[r.Name]
		a.mu.RUnlock()
		switch {
		case refusal != nil:
			return nil, nil, refusal
		case taken != nil:
			return nil, nil, refuse("mmap", syscall.EEXIST, "a mapping %q exists, at %x", r.Name, taken.start)
		}
		at, err := a.place(r.Addr, length, r.Flags)
		if err != nil {
			return nil, nil, err
		}
		m.span = at
		seg := segment{at, m, r.Prot, r.Flags&unix.MAP_LOCKED != 0}
		if err := a.inUse("mmap", a.list().with(seg)); err != nil {
			return nil, nil, err
		}
		return a.list().in(at, nil), func() error { return a.mmapLocked(fd, seg) }, nil
	})
	releaseFiles(gone)
	if err != nil {
		return nil, err
	}
	m.observe(mapping.Event{Kind: mapping.EventMap, Addr: m.start, Length: m.len()})
	m.fetch()
	m.lockMu.Unlock()
	m.use.RUnlock()
	return m, nil
}

// mmapLocked maps seg.m, of which it is all, in place of what is there, and without
// waiting for a page of it. It leaves the mapping's use held shared, and its lockMu:
// nobody takes it away, or unlocks it, until its pages are fetched. a.changeMu must be
// held, and the use of what is there, exclusively.
func (a *Arena) mmapLocked(fd int, seg segment) error {
	m, at := seg.m, seg.span
	if replaced := a.list().in(at, nil); len(replaced) > 0 {
		// What is replaced is lost before the kernel looks at the rest.
		if err := probeMmap(fd, m.off, m.prot, m.flags); err != nil {
			return err
		}
		if err := a.unmapLocked(replaced); err != nil {
			return err
		}
	}
	if !m.file.Ref() {
		return refuse("mmap", syscall.EBADF, "the file is closed")
	}
	// The place is ours already; pages come later.
	const later = unix.MAP_FIXED_NOREPLACE | unix.MAP_POPULATE | unix.MAP_LOCKED
	err := a.calls.mmap(a.memory(at), fd, m.off, m.prot, m.flags&^later)
	if err == nil && seg.locked {
		if err = a.calls.mlockOnFault(a.memory(at)); errors.Is(err, syscall.ENOMEM) {
			err = os.NewSyscallError("mmap", syscall.EAGAIN) // as it says of RLIMIT_MEMLOCK
		}
	}
	if err != nil {
		a.restore(at)
		m.file.Release(true)
		return err
	}
	m.use.RLock()
	m.lockMu.Lock()
	a.serial++
	m.serial = a.serial
	a.mu.Lock()
	defer a.mu.Unlock()
	a.segments = a.segments.with(seg)
	a.names[m.name] = m
	return nil
}

// fetch brings the pages of a new mapping into memory if it was asked for: MAP_LOCKED,
// MAP_POPULATE. A page that cannot be had is no error (mmap(2)). The mapping's use and
// lockMu must be held.
func (m *Mapping) fetch() {
	mem := m.arena.memory(m.span)
	switch {
	case m.flags&unix.MAP_LOCKED != 0:
		_ = m.arena.calls.mlock(mem)
	case m.flags&unix.MAP_POPULATE == 0:
	case m.prot&unix.PROT_WRITE != 0 && !m.shared():
		// The kernel makes the copies ahead, too.
		_ = m.arena.calls.madvise(mem, unix.MADV_POPULATE_WRITE)
	default:
		_ = m.arena.calls.madvise(mem, unix.MADV_POPULATE_READ)
	}
}

// check refuses what cannot be meant, and returns the length in whole pages.
func (r *Request) check() (int64, error) {
	sharing := r.Flags & (unix.MAP_SHARED | unix.MAP_PRIVATE)
	switch {
	case r.Name == "":
		return 0, refuse("mmap", syscall.EINVAL, "the mapping has no name")
	case r.Flags&^mmapFlags != 0, sharing != unix.MAP_SHARED && sharing != unix.MAP_PRIVATE:
		return 0, refuse("mmap", syscall.EINVAL, "the flags %#x are not those of one mapping", r.Flags)
	case r.Prot&^protMask != 0:
		return 0, refuse("mmap", syscall.EINVAL, "the protection %#x has unknown bits", r.Prot)
	case r.Offset < 0 || r.Offset%paging.PageSize != 0:
		return 0, refuse("mmap", syscall.EINVAL, "offset=%d is no multiple of the page size, %d", r.Offset, paging.PageSize)
	case r.Length == 0:
		return 0, refuse("mmap", syscall.EINVAL, "the length is 0")
	case r.Length > math.MaxInt64:
		return 0, refuse("mmap", syscall.ENOMEM, "no address space has %d bytes", r.Length)
	}
	length, ok := paging.PageUp(int64(r.Length))
	if !ok {
		return 0, refuse("mmap", syscall.ENOMEM, "no address space has %d bytes", r.Length)
	}
	if r.Offset > math.MaxInt64-length {
		return 0, refuse("mmap", syscall.EOVERFLOW, "no file has %d bytes at offset %d", length, r.Offset)
	}
	return length, nil
}

// restore reserves addresses again that a failed mmap may have left without any
// mapping: the next one to get them could be the Go heap. a.changeMu must be held.
func (a *Arena) restore(s span) {
	err := a.calls.mmap(a.memory(s), -1, 0, reservationProt, reservationFlags)
	if err == nil {
		return
	}
	a.log.Error("addresses of the arena cannot be reserved again", "error", err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusal = refuse("mmap", syscall.ENOMEM, "part of the arena was lost: %v", err)
}

// Munmap is munmap(2) of the whole pages from addr on. Pages that are not mapped
// are no error; EINVAL is for an address that is unaligned or outside the arena,
// and for a length of 0. Cutting a mapping in two can exceed the cap on map areas:
// ENOMEM.
func (a *Arena) Munmap(addr uintptr, length uint64) error {
	s, err := a.spanOf("munmap", addr, length, syscall.EINVAL)
	if err != nil {
		return err
	}
	return a.unmap(s, nil)
}

// Unmap is munmap(2) of whole pages of the mapping: length bytes from the offset
// off in it. Where other mappings have taken its place they stay.
func (m *Mapping) Unmap(off, length int64) error {
	s, err := m.spanOf("munmap", off, length)
	if err != nil {
		return err
	}
	return m.arena.unmap(s, m)
}

func (a *Arena) unmap(s span, owner *Mapping) error {
	if s.len() == 0 {
		return refuse("munmap", syscall.EINVAL, "the length is 0")
	}
	return a.unmapAll("munmap", s, owner)
}

// unmapAll unmaps what lies in s, of all mappings or of one.
func (a *Arena) unmapAll(call string, s span, owner *Mapping) error {
	gone, err := a.change(func() (touched segments, change func() error, err error) {
		parts := a.list().in(s, owner)
		if err := a.inUse(call, a.list().apart(parts, false)); err != nil {
			return nil, nil, err
		}
		return parts, func() error { return a.unmapLocked(parts) }, nil
	})
	releaseFiles(gone)
	return err
}

// unmapLocked reserves the addresses of the parts again and takes them from their
// mappings. It stops at an error. a.changeMu must be held, and all the mappings' use
// exclusively.
func (a *Arena) unmapLocked(parts segments) (err error) {
	for i, part := range parts {
		if err = a.calls.mmap(a.memory(part.span), -1, 0, reservationProt, reservationFlags); err != nil {
			parts = parts[:i]
			break
		}
	}
	a.mu.Lock()
	a.segments = a.segments.apart(parts, false)
	for _, m := range parts.owners() {
		if len(a.segments.in(m.span, m)) == 0 {
			delete(a.names, m.name)
			m.gone.Store(true)
		}
	}
	a.mu.Unlock()
	for _, part := range parts {
		part.m.observe(mapping.Event{Kind: mapping.EventUnmap, Addr: part.start, Length: part.len()})
	}
	return err
}

// change makes one change of the layout. plan is called with a.changeMu held and says
// which segments the change touches, and how to make it; nothing of the layout changes
// between the two. The change is made with the use of all their mappings held
// exclusively. change returns those of them that are gone by then.
//
// It can take long until nobody uses a mapping: an msync, or a page, may be waited for.
// So nobody waits for that with a.changeMu held, and plan is called again afterwards.
func (a *Arena) change(plan func() (touched segments, change func() error, err error)) (gone []*Mapping, err error) {
	var held []*Mapping
	defer func() {
		for _, m := range held {
			m.use.Unlock()
		}
	}()
	for {
		a.changeMu.Lock()
		touched, change, err := plan()
		if err != nil {
			a.changeMu.Unlock()
			return nil, err
		}
		owners := touched.owners()
		if !slices.ContainsFunc(owners, func(m *Mapping) bool { return !slices.Contains(held, m) }) {
			err := change()
			a.changeMu.Unlock()
			for _, m := range owners {
				if m.gone.Load() {
					gone = append(gone, m)
				}
			}
			return gone, err
		}
		a.changeMu.Unlock()
		for _, m := range held {
			m.use.Unlock()
		}
		// In one order, so that two who want the same mappings do not wait for each other.
		slices.SortFunc(owners, func(a, b *Mapping) int { return cmp.Compare(a.serial, b.serial) })
		held = owners
		for _, m := range held {
			m.use.Lock()
		}
	}
}

// releaseFiles lets go of the files of mappings that are gone.
func releaseFiles(gone []*Mapping) {
	for _, m := range gone {
		m.file.Release(true)
	}
}

// Name returns the mapping's name.
func (m *Mapping) Name() string { return m.name }

// Serial returns a number that no other mapping of the arena has or had.
func (m *Mapping) Serial() uint64 { return m.serial }

// Start returns the address that mmap(2) returned.
func (m *Mapping) Start() uintptr { return m.start }

// Length returns how many bytes were mapped, in whole pages.
func (m *Mapping) Length() int64 { return m.len() }

// Offset returns where in the file the mapping begins, in bytes.
func (m *Mapping) Offset() int64 { return m.off }

// Flags returns the flags the mapping was made with.
func (m *Mapping) Flags() int { return m.flags }

// Writable reports whether the file was open for writing when it was mapped.
func (m *Mapping) Writable() bool { return m.write }

// Gone reports whether nothing of the mapping is left.
func (m *Mapping) Gone() bool { return m.gone.Load() }

// Stores and Faults return how many stores through the mapping there were, and how
// many loads and stores that faulted.
func (m *Mapping) Stores() uint64 { return m.stores.Load() }
func (m *Mapping) Faults() uint64 { return m.faults.Load() }

// FileID returns the identity of the file.
func (m *Mapping) FileID() mapping.ID { return m.file.ID() }

// FileName returns what the file is called in events.
func (m *Mapping) FileName() string { return m.file.Name() }

// shared reports whether stores reach the file.
func (m *Mapping) shared() bool { return m.flags&unix.MAP_SHARED != 0 }

// Segment is a stretch of a mapping with one protection.
type Segment struct {
	Start, End uintptr
	Offset     int64 // in the file
	Prot       int
	Locked     bool
}

// Segments returns what is left of the mapping, in the order of addresses.
func (m *Mapping) Segments() (left []Segment) {
	for _, seg := range m.arena.list().in(m.span, m).joined() {
		left = append(left, Segment{seg.start, seg.end, m.fileOffset(seg.start), seg.prot, seg.locked})
	}
	return left
}

// fileOffset returns what is mapped at an address of the mapping.
func (m *Mapping) fileOffset(addr uintptr) int64 { return m.off + int64(addr-m.start) }

// fileRange returns the bytes of the file that are mapped at addresses of the
// mapping.
func (m *Mapping) fileRange(s span) paging.Range {
	off := m.fileOffset(s.start)
	return paging.Range{Off: off, End: off + s.len()}
}

// spanOf returns the addresses of whole pages of the mapping. off must be a
// multiple of the page size; the length is rounded up, and may not lead out of the
// mapping, behind which others may be.
func (m *Mapping) spanOf(call string, off, length int64) (span, error) {
	g, ok := paging.RangeOf(off, length)
	if !ok || off%paging.PageSize != 0 {
		return span{}, refuse(call, syscall.EINVAL, "offset=%d is no multiple of the page size, %d", off, paging.PageSize)
	}
	if g.End, ok = paging.PageUp(g.End); !ok || g.End > m.len() {
		return span{}, refuse(call, syscall.ENOMEM, "the mapping has %d bytes; the range ends at %d", m.len(), off+length)
	}
	return span{m.start + uintptr(g.Off), m.start + uintptr(g.End)}, nil
}

// observe tells the table's observer of an event of the mapping.
func (m *Mapping) observe(e mapping.Event) {
	e.Mapping = m.name
	m.file.Observe(e)
}
