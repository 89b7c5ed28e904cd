package client

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// Fault is a load or store that ended in a signal.
type Fault struct {
	Signal syscall.Signal // SIGBUS or SIGSEGV
	Access string         // load or store
	Addr   uintptr
	Name   string // the file
	Offset int64  // in the file
	Page   int64  // of the file
	Size   int64  // of the file, after the fault
	why    string
}

// Error is one sentence: the signal, where, why, and the size of the file.
func (f *Fault) Error() string {
	name := "SIGSEGV"
	if f.Signal == unix.SIGBUS {
		name = "SIGBUS"
	}
	return fmt.Sprintf("%s: %s at address 0x%x, page %d of %s (offset %d): %s; the file has %s",
		name, f.Access, f.Addr, f.Page, f.Name, f.Offset, f.why, sizeText(f.Size))
}

// sizeText tells a file's size in the unit that faults are about.
func sizeText(size int64) string {
	_, pages := paging.Range{End: size}.Pages()
	return fmt.Sprintf("%s in %s", count(size, "byte"), count(pages, "page"))
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (m *Mapping) newFault(signal syscall.Signal, access string, addr uintptr, why string) *Fault {
	// The fault is what matters; of a file that cannot be asked the last size
	// known is told.
	size, err := m.Size()
	if err != nil {
		size = m.size
	}
	offset := m.opts.Offset + int64(addr-uintptr(m.base))
	return &Fault{
		Signal: signal, Access: access, Addr: addr, Name: m.name,
		Offset: offset, Page: offset / paging.PageSize, Size: size, why: why,
	}
}

// fault tells what a fault was. Go does not say which of the two signals came,
// but the kernel's own order of checks does: an access that the protection
// forbids is SIGSEGV before the file is looked at, and all else is SIGBUS.
func (m *Mapping) fault(access string, addr uintptr) *Fault {
	perms := permsAt(addr)
	if perms == "" {
		perms = m.opts.Prot.perms(m.opts.Private) // without /proc
	}
	if forbids(perms, access) {
		return m.newFault(unix.SIGSEGV, access, addr,
			fmt.Sprintf("its protection, %s, forbids a %s", perms[:3], access))
	}
	f := m.newFault(unix.SIGBUS, access, addr, "")
	switch end, ok := paging.PageUp(f.Size); {
	case !ok || f.Offset < end:
		f.why = "the file has the page, but its filesystem cannot give it: " + m.trouble(f.Offset, access)
	case f.Offset < m.size:
		f.why = fmt.Sprintf("the page lies wholly past the end of the file, which was cut from %d bytes since", m.size)
	default:
		f.why = "the page lies wholly past the end of the file"
	}
	return f
}

// trouble says what keeps a page of the file away.
func (m *Mapping) trouble(offset int64, access string) string {
	if _, err := unix.Pread(m.fd, make([]byte, 1), offset); err != nil {
		return named(err).Error()
	}
	if access == "store" {
		return "no space is left for it, or the device failed"
	}
	return "the device failed"
}

// permsAt returns the column PERMS of the line of /proc/self/maps that has addr,
// or "".
func permsAt(addr uintptr) string {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return ""
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var start, end uintptr
		var perms string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &perms); err != nil {
			continue
		}
		if start <= addr && addr < end && len(perms) == len("rwxp") {
			return perms
		}
	}
	return ""
}

// forbids says whether pages with these permissions refuse the access. What may
// be stored to can be loaded from, on all hardware that Go knows.
func forbids(perms, access string) bool {
	if strings.Contains(perms, "w") {
		return false
	}
	if access == "store" || strings.HasPrefix(perms, "---") {
		return true
	}
	return !strings.Contains(perms, "r") && execOnly()
}

// execOnly says whether pages that may only be executed cannot be loaded from:
// on x86 this takes protection keys, which not every processor has.
func execOnly() bool {
	page, err := unix.Mmap(-1, 0, int(paging.PageSize), unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer unix.Munmap(page)
	return guarded(page, func() { runtime.KeepAlive(page[0]) }) != 0
}

// addressOf returns where memory begins.
func addressOf(mem []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(mem))) }
