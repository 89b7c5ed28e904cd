package explicit

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// maxSegments caps the segments of an arena. Each can be a map area of the kernel's
// and so can the gap behind it; running out of those would end the process.
const maxSegments = 4096

// Arena is address space in which explicit mappings are made, with the arguments
// of mmap(2) and at addresses that the caller may choose. It is reserved at once,
// without access and without memory: MAP_FIXED can replace nothing there but
// other explicit mappings, and what is unmapped becomes reserved again before
// anybody else can have it. Outside the arena nothing is ever touched.
type Arena struct {
	log         *slog.Logger
	calls       *arenaCalls
	mem         []byte // all of the reservation; touched only by guarded functions
	span        span   // where it is
	maxSegments int

	// See the package comment for the order of these locks.
	changeMu sync.Mutex // one mmap, munmap or mprotect at a time
	serial   uint64     // of the newest mapping; guarded by changeMu

	mu       sync.RWMutex
	segments segments
	names    map[string]*Mapping
	refusal  error // why nothing can be mapped, if so

	copiesOnce sync.Once
	copies     *os.File // /proc/self/pagemap, or nil
}

// A Refusal is why something cannot be done to explicit mappings: the errno that
// the system call has for it, and a sentence for people.
type Refusal struct {
	Call  string // the system call that was asked for
	Errno syscall.Errno
	Why   string
}

func (r *Refusal) Error() string { return r.Call + ": " + r.Why }

// Unwrap returns the errno.
func (r *Refusal) Unwrap() error { return r.Errno }

func refuse(call string, errno syscall.Errno, format string, args ...any) error {
	return &Refusal{call, errno, fmt.Sprintf(format, args...)}
}

// NewArena reserves the address space for explicit mappings, at most so many bytes.
func NewArena(log *slog.Logger, most int64) *Arena {
	a := &Arena{log: log, calls: newArenaCalls(), maxSegments: maxSegments, names: make(map[string]*Mapping)}
	mem, err := reserveArena(most)
	if err != nil {
		log.Warn("no address space for explicit mappings", "error", err)
		a.refusal = refuse("mmap", syscall.ENOMEM, "no address space could be reserved for explicit mappings: %v", err)
		return a
	}
	a.mem = mem
	a.span = span{guard.AddressOf(mem), guard.AddressOf(mem) + uintptr(len(mem))}
	return a
}

// Bounds returns the first address of the arena and the one after its last; 0 and
// 0 if no address space could be had.
func (a *Arena) Bounds() (start, end uintptr) { return a.span.start, a.span.end }

// memory returns the memory at addresses of the arena.
func (a *Arena) memory(s span) []byte { return a.mem[s.start-a.span.start : s.end-a.span.start] }

// list returns the segments as they are now.
func (a *Arena) list() segments {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.segments
}

// Find returns the mapping of the given name, or nil.
func (a *Arena) Find(name string) *Mapping {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.names[name]
}

// Count returns how many explicit mappings there are. Each keeps a file open.
func (a *Arena) Count() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.names)
}

// Mappings returns every explicit mapping in the order of names.
func (a *Arena) Mappings() []*Mapping {
	a.mu.RLock()
	defer a.mu.RUnlock()
	mappings := make([]*Mapping, 0, len(a.names))
	for _, m := range a.names {
		mappings = append(mappings, m)
	}
	slices.SortFunc(mappings, func(a, b *Mapping) int { return strings.Compare(a.name, b.name) })
	return mappings
}

// Size returns how many segments there are, and their bytes.
func (a *Arena) Size() (count, length int64) {
	for _, seg := range a.list().joined() {
		count++
		length += seg.len()
	}
	return count, length
}

// place says where length bytes are to be mapped, as mmap(2) does with addr: an
// address that must be taken with MAP_FIXED, may replace nothing with
// MAP_FIXED_NOREPLACE, and is a hint otherwise. a.changeMu must be held.
func (a *Arena) place(addr uintptr, length int64, flags int) (span, error) {
	list := a.list()
	if flags&(unix.MAP_FIXED|unix.MAP_FIXED_NOREPLACE) == 0 {
		hint := uintptr(paging.PageDown(int64(addr & math.MaxInt64)))
		if at, ok := a.at(hint, length); ok && len(list.in(at, nil)) == 0 {
			return at, nil
		}
		at, ok := list.free(a.span, length)
		if !ok {
			return span{}, refuse("mmap", syscall.ENOMEM, "the arena %x-%x has no free place of %d bytes", a.span.start, a.span.end, length)
		}
		return at, nil
	}
	if addr%uintptr(paging.PageSize) != 0 {
		return span{}, refuse("mmap", syscall.EINVAL, "addr=%x is no multiple of the page size, %d", addr, paging.PageSize)
	}
	at, ok := a.at(addr, length)
	if !ok {
		return span{}, refuse("mmap", syscall.EINVAL, "%d bytes at addr=%x are not inside the arena %x-%x; nothing else can be replaced", length, addr, a.span.start, a.span.end)
	}
	if taken := list.in(at, nil); len(taken) > 0 && flags&unix.MAP_FIXED_NOREPLACE != 0 {
		return span{}, refuse("mmap", syscall.EEXIST, "%x-%x belongs to the mapping %q", taken[0].start, taken[0].end, taken[0].m.name)
	}
	return at, nil
}

// at returns the span of length bytes at addr if that is inside the arena.
func (a *Arena) at(addr uintptr, length int64) (span, bool) {
	if addr < a.span.start || addr > a.span.end || int64(a.span.end-addr) < length {
		return span{}, false
	}
	return span{addr, addr + uintptr(length)}, true
}

// spanOf returns the whole pages of a system call's arguments: addr must be a
// multiple of the page size, length is rounded up. What is outside the arena is
// refused with the errno outside.
func (a *Arena) spanOf(call string, addr uintptr, length uint64, outside syscall.Errno) (span, error) {
	if addr%uintptr(paging.PageSize) != 0 {
		return span{}, refuse(call, syscall.EINVAL, "addr=%x is no multiple of the page size, %d", addr, paging.PageSize)
	}
	if length <= math.MaxInt64 {
		if up, ok := paging.PageUp(int64(length)); ok {
			if s, ok := a.at(addr, up); ok {
				return s, nil
			}
		}
	}
	return span{}, refuse(call, outside, "%d bytes at addr=%x are not inside the arena %x-%x, where all explicit mappings are", length, addr, a.span.start, a.span.end)
}

// inUse refuses to make more segments than the arena may have. next is the list
// that would be.
func (a *Arena) inUse(call string, next segments) error {
	if len(next) <= a.maxSegments {
		return nil
	}
	return refuse(call, syscall.ENOMEM, "there would be more than %d map areas, or parts that once were apart; unmap some first", a.maxSegments)
}

// Close unmaps every mapping and gives the address space back.
func (a *Arena) Close() {
	a.mu.Lock()
	a.refusal = refuse("mmap", syscall.ENOMEM, "the arena is closed")
	a.mu.Unlock()
	if err := a.unmapAll("munmap", a.span, nil); err != nil {
		a.log.Error("unmapping the explicit mappings", "error", err)
		return // the process ends soon; nobody else may get these addresses
	}
	if len(a.mem) > 0 {
		if err := sys.Munmap(a.mem); err != nil {
			a.log.Error("giving up the arena", "error", err)
		}
	}
	if a.copies != nil {
		a.copies.Close()
	}
}

// Within returns the mappings that have pages among the length bytes at addr.
func (a *Arena) Within(addr uintptr, length uint64) []*Mapping {
	s, err := a.spanOf("mmap", addr, length, syscall.EINVAL)
	if err != nil {
		return nil
	}
	return a.list().in(s, nil).owners()
}
