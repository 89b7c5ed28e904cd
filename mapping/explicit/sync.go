package explicit

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping"
)

// Msync is msync(2) of the whole pages from addr on. Pages that are not mapped are
// ENOMEM, after the others were synced; MS_INVALIDATE of a locked page is EBUSY,
// flags that contradict each other and an unaligned address are EINVAL. Only
// shared mappings of a file that was open for writing have something to write.
func (a *Arena) Msync(addr uintptr, length uint64, flags int) error {
	s, err := a.spanOf("msync", addr, length, syscall.ENOMEM)
	if err != nil {
		return err
	}
	return a.sync(s, nil, flags)
}

// Msync is msync(2) of whole pages of the mapping.
func (m *Mapping) Msync(off, length int64, flags int) error {
	s, err := m.spanOf("msync", off, length)
	if err != nil {
		return err
	}
	return m.arena.sync(s, m, flags)
}

func (a *Arena) sync(s span, owner *Mapping, flags int) error {
	if flags&^(unix.MS_SYNC|unix.MS_ASYNC|unix.MS_INVALIDATE) != 0 || flags&unix.MS_SYNC != 0 && flags&unix.MS_ASYNC != 0 {
		return os.NewSyscallError("msync", syscall.EINVAL)
	}
	filled, err := a.each(s, owner, func(part segment) error {
		return part.m.file.MsyncOther(mapping.OtherMapping{
			Name: part.m.name, Mem: a.memory(part.span), Shared: part.m.shared(), Writable: part.m.write,
		}, part.m.fileRange(part.span), flags)
	})
	if err == nil && !filled {
		err = unmapped("msync", s)
	}
	return err
}

// Madvise is madvise(2) of the whole pages from addr on. Pages that are not mapped
// are ENOMEM, after the others were advised; MADV_DONTNEED of a locked page and an
// unaligned address are EINVAL. MADV_DONTNEED of a private mapping gives its
// copies up.
func (a *Arena) Madvise(addr uintptr, length uint64, advice int) error {
	s, err := a.spanOf("madvise", addr, length, syscall.ENOMEM)
	if err != nil {
		return err
	}
	return a.advise(s, nil, advice)
}

// Madvise is madvise(2) of whole pages of the mapping.
func (m *Mapping) Madvise(off, length int64, advice int) error {
	s, err := m.spanOf("madvise", off, length)
	if err != nil {
		return err
	}
	return m.arena.advise(s, m, advice)
}

func (a *Arena) advise(s span, owner *Mapping, advice int) error {
	filled, err := a.each(s, owner, func(part segment) error {
		if err := a.calls.madvise(a.memory(part.span), advice); err != nil {
			return err
		}
		if advice != unix.MADV_WILLNEED {
			g := part.m.fileRange(part.span)
			part.m.observe(mapping.Event{Kind: mapping.EventInvalidate, Off: g.Off, Length: g.Len()})
		}
		return nil
	})
	if err == nil && !filled {
		err = unmapped("madvise", s)
	}
	return err
}
