package client

import (
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// Load copies bytes of the mapping to dst, page by page and from the first byte
// of each. It returns how many came before a fault.
func (m *Mapping) Load(dst []byte, off int64) (int, error) {
	r, ok := paging.RangeOf(off, int64(len(dst)))
	if !ok || r.End > m.mapped {
		return 0, m.outside("load", off, int64(len(dst)))
	}
	return m.eachPage(r, "load", func(mem []byte, i int64) {
		dst[i] = mem[0] // so that a fault is at the first byte, for people to read
		copy(dst[i:], mem)
	})
}

// LoadBytes is Load of so many bytes; of those before a fault it returns all.
func (m *Mapping) LoadBytes(off, length int64) ([]byte, error) {
	// Before so much is allocated.
	if r, ok := paging.RangeOf(off, length); !ok || r.End > m.mapped {
		return nil, m.outside("load", off, length)
	}
	b := make([]byte, length)
	n, err := m.Load(b, off)
	return b[:n], err
}

// Store copies src to the mapping, as Load. Nothing grows: bytes past the end
// of the file, in its last page, never reach it.
func (m *Mapping) Store(src []byte, off int64) (int, error) {
	r, ok := paging.RangeOf(off, int64(len(src)))
	if !ok || r.End > m.mapped {
		return 0, m.outside("store", off, int64(len(src)))
	}
	return m.eachPage(r, "store", func(mem []byte, i int64) {
		mem[0] = src[i]
		copy(mem, src[i:])
	})
}

// eachPage calls touch with the part of r in each page, and the number of bytes
// before it.
func (m *Mapping) eachPage(r paging.Range, access string, touch func(mem []byte, i int64)) (int, error) {
	for at := r.Off; at < r.End; {
		end := min(paging.PageDown(at)+paging.PageSize, r.End)
		mem := m.bytes(paging.Range{Off: at, End: end})
		if hole := m.holeIn(paging.Range{Off: at, End: end}); !hole.Empty() {
			return int(at - r.Off), m.touchHole(mem, access, at)
		}
		if addr := guarded(mem, func() { touch(mem, at-r.Off) }); addr != 0 {
			return int(at - r.Off), m.fault(access, addr)
		}
		at = end
	}
	return int(r.Len()), nil
}

// touchHole faults at an unmapped page. It only loads, also for a store: should
// the Go runtime live there by now, then nothing is harmed, and the fault that a
// process without such a guest gets is told all the same.
func (m *Mapping) touchHole(mem []byte, access string, off int64) error {
	guarded(mem, func() { runtime.KeepAlive(mem[0]) })
	return m.newFault(unix.SIGSEGV, access, m.address(off), "it was unmapped")
}

// guarded runs touch and returns the address at which it faulted inside mem, or
// 0. A fault anywhere else is a bug and goes on.
func guarded(mem []byte, touch func()) (addr uintptr) {
	defer func(old bool) {
		debug.SetPanicOnFault(old)
		e := recover()
		if e == nil {
			return
		}
		fault, isFault := e.(interface{ Addr() uintptr })
		if !isFault {
			panic(e)
		}
		// The hardware may report any byte of the access, so allow a word around.
		base := addressOf(mem)
		if at := fault.Addr(); at >= base&^63 && at < base+uintptr(len(mem))+64 {
			addr = at
			return
		}
		panic(e)
	}(debug.SetPanicOnFault(true))
	touch()
	return 0
}
