package explicit

import (
	"syscall"
)

// Mprotect is mprotect(2) of the whole pages from addr on. A page among them that
// is not mapped is ENOMEM, an unaligned address EINVAL, and EACCES is the kernel's
// for what the file was not opened for. Unlike the system call it changes nothing
// when it fails.
func (a *Arena) Mprotect(addr uintptr, length uint64, prot int) error {
	s, err := a.spanOf("mprotect", addr, length, syscall.ENOMEM)
	if err != nil {
		return err
	}
	return a.protect(s, nil, prot)
}

// Mprotect is mprotect(2) of whole pages of the mapping.
func (m *Mapping) Mprotect(off, length int64, prot int) error {
	s, err := m.spanOf("mprotect", off, length)
	if err != nil {
		return err
	}
	return m.arena.protect(s, m, prot)
}

func (a *Arena) protect(s span, owner *Mapping, prot int) error {
	if prot&^protMask != 0 {
		return refuse("mprotect", syscall.EINVAL, "the protection %#x has unknown bits", prot)
	}
	_, err := a.change(func() (touched segments, change func() error, err error) {
		parts := a.list().in(s, owner)
		if !parts.fill(s) {
			return nil, nil, unmapped("mprotect", s)
		}
		if err := a.inUse("mprotect", a.list().apart(parts, true)); err != nil {
			return nil, nil, err
		}
		return parts, func() error { return a.protectLocked(parts, prot) }, nil
	})
	return err
}

// protectLocked protects all parts or none. a.changeMu must be held, and their mappings'
// use exclusively.
func (a *Arena) protectLocked(parts segments, prot int) error {
	err := a.protectParts(parts, prot)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		for i := range parts {
			parts[i].prot = prot
		}
	}
	// Also after a failure: the kernel may keep apart what it has split.
	a.segments = a.segments.apart(parts, true)
	return err
}

// protectParts protects all parts or none. Their mappings' use must be held
// exclusively.
func (a *Arena) protectParts(parts segments, prot int) error {
	for i, part := range parts {
		err := a.calls.mprotect(a.memory(part.span), prot)
		if err == nil {
			continue
		}
		for _, before := range parts[:i] {
			if err := a.calls.mprotect(a.memory(before.span), before.prot); err != nil {
				a.log.Error("a protection cannot be given back", "error", err)
			}
		}
		return err
	}
	return nil
}

// unmapped is the error for a range with pages that are not mapped.
func unmapped(call string, s span) error {
	return refuse(call, syscall.ENOMEM, "pages of %x-%x are not mapped", s.start, s.end)
}

// Mlock is mlock(2) of the whole pages from addr on. A page among them that is not
// mapped is ENOMEM, an unaligned address EINVAL; EPERM, ENOMEM and EAGAIN are the
// kernel's, for more than RLIMIT_MEMLOCK and pages that cannot be had. When it
// fails it locks nothing.
func (a *Arena) Mlock(addr uintptr, length uint64) error {
	s, err := a.spanOf("mlock", addr, length, syscall.ENOMEM)
	if err != nil {
		return err
	}
	return a.lock("mlock", s, nil, true)
}

// Munlock is munlock(2) of the whole pages from addr on. A page among them that is
// not mapped is ENOMEM, an unaligned address EINVAL.
func (a *Arena) Munlock(addr uintptr, length uint64) error {
	s, err := a.spanOf("munlock", addr, length, syscall.ENOMEM)
	if err != nil {
		return err
	}
	return a.lock("munlock", s, nil, false)
}

// Mlock is mlock(2) of whole pages of the mapping.
func (m *Mapping) Mlock(off, length int64) error {
	s, err := m.spanOf("mlock", off, length)
	if err != nil {
		return err
	}
	return m.arena.lock("mlock", s, m, true)
}

// Munlock is munlock(2) of whole pages of the mapping.
func (m *Mapping) Munlock(off, length int64) error {
	s, err := m.spanOf("munlock", off, length)
	if err != nil {
		return err
	}
	return m.arena.lock("munlock", s, m, false)
}

func (a *Arena) lock(call string, s span, owner *Mapping, locked bool) error {
	list := a.list()
	parts := list.in(s, owner)
	if !parts.fill(s) {
		return unmapped(call, s)
	}
	if err := a.inUse(call, list.apart(parts, true)); err != nil {
		return err
	}
	var fresh segments
	filled, err := a.eachLocked(s, owner, func(part segment) error {
		err := a.lockPart(part, locked)
		if err == nil && !part.locked {
			fresh = append(fresh, part)
		}
		return err
	})
	if err == nil && !filled {
		err = unmapped(call, s) // by somebody, meanwhile
	}
	if err != nil && locked {
		for _, part := range fresh {
			_, _ = a.eachLocked(part.span, part.m, func(part segment) error { return a.lockPart(part, false) })
		}
	}
	return err
}

// eachLocked is each with the mapping's lockMu held: what a part says of its lock
// stays true.
func (a *Arena) eachLocked(s span, owner *Mapping, fn func(part segment) error) (filled bool, err error) {
	return a.each(s, owner, func(part segment) error {
		part.m.lockMu.Lock()
		defer part.m.lockMu.Unlock()
		for _, now := range a.list().in(part.span, part.m) {
			if err := fn(now); err != nil {
				return err
			}
		}
		return nil
	})
}

// lockPart locks or unlocks part of a mapping, whose use and lockMu must be held.
func (a *Arena) lockPart(part segment, locked bool) error {
	mem := a.memory(part.span)
	call := a.calls.munlock
	if locked {
		call = a.calls.mlock
	}
	err := call(mem)
	if err != nil && locked && !part.locked {
		_ = a.calls.munlock(mem) // the kernel remembers the wish when it lacks the pages
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		part.locked = locked
	}
	// Also after a failure: the kernel may keep apart what it has split.
	a.segments = a.segments.with(part)
	return err
}

// each calls fn for the parts of segments that lie in s, of all mappings or of
// one, in order, and stops at an error. Nobody takes a part away or protects it
// meanwhile: its mapping's use is held shared. It reports whether no page of s was
// left out.
func (a *Arena) each(s span, owner *Mapping, fn func(part segment) error) (filled bool, err error) {
	filled = true
	for at := s.start; at < s.end; {
		ahead := a.list().in(span{at, s.end}, owner)
		if len(ahead) == 0 {
			return false, nil
		}
		m := ahead[0].m
		m.use.RLock()
		// What was there may be gone by now; what is there now stays.
		now := a.list().in(ahead[0].span, m)
		if len(now) == 0 {
			m.use.RUnlock()
			continue
		}
		filled = filled && now[0].start == at
		err := fn(now[0])
		m.use.RUnlock()
		if err != nil {
			return false, err
		}
		at = now[0].end
	}
	return filled, nil
}
