package explicit

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
)

// ReadAt loads len(p) bytes at the offset off in the mapping into p, as a process
// would that has it mapped. Past the mapping's length there is nothing: 0 and no
// error. A load that faults is EFAULT where it would be SIGSEGV (the protection
// forbids it, or the page is not mapped any more) and EIO where it would be SIGBUS
// (the page is wholly past the end of the file, or cannot be had); if pages before
// it could be loaded, their count is returned and no error. ESTALE says that the
// mapping is gone.
func (m *Mapping) ReadAt(p []byte, off int64) (int, error) {
	return m.access(p, off, "load", unix.PROT_READ, guard.Load)
}

// WriteAt stores p at the offset off in the mapping, with the faults of
// [Mapping.ReadAt]. Past the mapping's length it is EFAULT. What is stored through
// a shared mapping is in the file, and unsynced until an msync.
func (m *Mapping) WriteAt(p []byte, off int64) (int, error) {
	return m.access(p, off, "store", unix.PROT_WRITE, func(src, mapped []byte) uintptr { return guard.Store(mapped, src) })
}

// access loads or stores page by page, so that it is known what was done before a
// fault.
func (m *Mapping) access(p []byte, off int64, call string, prot int, touch func(p, mapped []byte) uintptr) (n int, err error) {
	if off < 0 {
		return 0, os.NewSyscallError(call, syscall.EINVAL)
	}
	m.use.RLock()
	defer m.use.RUnlock()
	switch {
	case m.gone.Load():
		return 0, os.NewSyscallError(call, syscall.ESTALE)
	case off >= m.len() && prot == unix.PROT_WRITE && len(p) > 0:
		return 0, os.NewSyscallError(call, syscall.EFAULT)
	case off >= m.len():
		return 0, nil
	}
	p = p[:min(int64(len(p)), m.len()-off)]
	if len(p) == 0 {
		return 0, nil
	}
	at := m.start + uintptr(off)
	all := span{at, at + uintptr(len(p))}
	parts := m.arena.list().in(all, m)
	m.populate(parts)
	copied := m.copiedPages(all, prot)
	for n < len(p) {
		here := span{at + uintptr(n), 0}
		here.end = min(uintptr(paging.PageDown(int64(here.start)))+uintptr(paging.PageSize), all.end)
		mapped := parts.in(here, m)
		// Where the mapping has a hole there may be another mapping by now.
		if len(mapped) == 0 || touch(p[n:n+int(here.len())], m.arena.memory(here)) != 0 {
			err = m.faulted(call, here.start, prot, mapped)
			break
		}
		n += int(here.len())
	}
	if n > 0 && prot == unix.PROT_WRITE {
		m.stored(span{at, at + uintptr(n)}, copied)
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// populate lets the kernel fetch pages that are not in memory: waiting for a
// device in a fault would keep others from running.
func (m *Mapping) populate(parts segments) {
	for _, part := range parts {
		s := span{uintptr(paging.PageDown(int64(part.start))), part.end}
		if mem := m.arena.memory(s); !guard.Resident(mem) {
			// What cannot be had is found out by the access itself.
			_ = m.arena.calls.madvise(mem, unix.MADV_POPULATE_READ)
		}
	}
}

// faulted counts a fault at addr, tells of it and returns the error that stands
// for its signal. mapped is the segment there, if there is one.
func (m *Mapping) faulted(call string, addr uintptr, prot int, mapped segments) error {
	off := paging.PageDown(m.fileOffset(addr))
	signal, errno := syscall.SIGBUS, syscall.EIO
	if len(mapped) == 0 || m.forbidden(mapped[0].prot, prot, off) {
		signal, errno = syscall.SIGSEGV, syscall.EFAULT
	}
	m.faults.Add(1)
	m.file.CountFault()
	m.observe(mapping.Event{Kind: mapping.EventFault, Signal: signal, Addr: addr, Off: off, Length: paging.PageSize})
	return os.NewSyscallError(call, errno)
}

// forbidden reports whether an access that faulted did so because of the
// protection of its page, at off in the file. The runtime does not tell the
// signals apart, so the reasons are looked at in the kernel's order.
func (m *Mapping) forbidden(have, want int, off int64) bool {
	switch {
	case have&want != 0:
		return false
	case have == unix.PROT_NONE, want == unix.PROT_WRITE:
		return true
	}
	// Many processors cannot forbid to load what may be stored or run. Then it
	// is the end of the file that did.
	var st unix.Stat_t
	err := m.file.WithDescriptor(func(fd int) error { return unix.Fstat(fd, &st) })
	return err != nil || off < st.Size
}

// stored notes a store: the file's record, if it is one to the file, and events.
// copied says which pages were copied before.
func (m *Mapping) stored(s span, copied []bool) {
	m.stores.Add(1)
	g := m.fileRange(s)
	if m.shared() {
		m.file.NoteStore(g, m.name)
		return
	}
	m.observe(mapping.Event{Kind: mapping.EventStore, Off: g.Off, Length: g.Len()})
	fresh := int64(0)
	for i, now := range m.copiedPages(s, unix.PROT_WRITE) {
		if now && i < len(copied) && !copied[i] {
			fresh++
		}
	}
	if fresh > 0 {
		m.observe(mapping.Event{Kind: mapping.EventCopy, Off: g.Off, Length: g.Len(), Pages: fresh})
	}
}
