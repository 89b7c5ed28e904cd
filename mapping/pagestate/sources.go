package pagestate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/mapping/guard"
	"mapfs/mapping/paging"
	"mapfs/mapping/sys"
)

// Sources are the kernel's ways to tell the state of a page, as far as
// they work for the files of one filesystem. Each is tried once, when the
// sources are made.
type Sources struct {
	// Why a source tells nothing, or not everything; empty if it works.
	Cachestat  string // cachestat(2): resident, dirty, under write-back
	Mincore    string // mincore(2): resident
	Pagemap    string // /proc/self/pagemap: copied pages of private mappings
	Kpageflags string // /proc/kpageflags: dirty and under write-back, of mapped pages

	fsType     int64 // of statfs(2)
	cachestat  bool  // the system call exists and sees this filesystem's pages
	pagemap    *os.File
	kpageflags *os.File
}

// Probe tries every source for the filesystem of the directory dirfd.
func Probe(dirfd int) *Sources {
	k := new(Sources)
	var st unix.Statfs_t
	if err := unix.Fstatfs(dirfd, &st); err == nil {
		k.fsType = st.Type
	}
	k.probeCachestat()
	k.probeMincore()
	k.pagemap, k.Pagemap = openKernelFile("/proc/self/pagemap")
	k.kpageflags, k.Kpageflags = openKernelFile("/proc/kpageflags")
	return k
}

// UsesCachestat reports whether it is cachestat(2) that tells of the filesystem's pages.
func (k *Sources) UsesCachestat() bool { return k.cachestat }

// UseMincore goes by mincore(2), as where there is no cachestat(2).
func (k *Sources) UseMincore() { k.cachestat = false }

// Close closes the files that the sources are read from.
func (k *Sources) Close() {
	for _, f := range []*os.File{k.pagemap, k.kpageflags} {
		if f != nil {
			f.Close()
		}
	}
}

// openKernelFile opens a file below /proc that is a table of 8-byte entries,
// and reads one: some can be opened by anybody and are refused only then.
func openKernelFile(path string) (*os.File, string) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], 0); err != nil && err != io.EOF {
		f.Close()
		return nil, reason(err)
	}
	return f, ""
}

// reason says in a few words why a system call failed.
func reason(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	switch errno {
	case syscall.ENOSYS:
		return "ENOSYS: this kernel does not have it, or a seccomp filter hides it"
	case syscall.EPERM, syscall.EACCES:
		return unix.ErrnoName(errno) + ": not permitted here"
	}
	return fmt.Sprintf("%s: %v", unix.ErrnoName(errno), errno)
}

// probeCachestat tries cachestat(2) on a file of its own.
func (k *Sources) probeCachestat() {
	fd, err := unix.MemfdCreate("mapfs-probe", unix.MFD_CLOEXEC)
	if err != nil {
		k.Cachestat = reason(err)
		return
	}
	defer unix.Close(fd)
	if _, err := cachestat(fd, 0, 1); err != nil {
		k.Cachestat = reason(err)
		return
	}
	k.cachestat = true
	switch k.fsType {
	case unix.OVERLAYFS_SUPER_MAGIC:
		k.cachestat = false
		k.Cachestat = "blind: overlayfs keeps the pages in the file below"
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		k.Cachestat = "resident only: a filesystem in memory never calls a page dirty"
	}
}

// probeMincore tries mincore(2) on a page of its own.
func (k *Sources) probeMincore() {
	mem, err := unix.Mmap(-1, 0, int(paging.PageSize), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		k.Mincore = reason(err)
		return
	}
	defer unix.Munmap(mem)
	var vec [1]byte
	if err := guard.Mincore(mem, vec[:]); err != nil {
		k.Mincore = reason(err)
	}
}

// cachestat counts the cached pages of the pages [first, end) of a file.
func cachestat(fd int, first, end int64) (unix.Cachestat_t, error) {
	var cs unix.Cachestat_t
	g := unix.CachestatRange{Off: uint64(first * paging.PageSize), Len: uint64((end - first) * paging.PageSize)}
	err := unix.Cachestat(uint(fd), &g, &cs, 0)
	return cs, err
}

// Pages calls emit for runs of the pages [first, end) of the open file fd, in
// order and without gaps, with what the kernel says of them; mem is the file's
// mapping or nil. It stops when emit returns false, and goes on with no flags
// where the kernel tells nothing.
func (k *Sources) Pages(fd int, mem []byte, first, end int64, emit func(Run) bool) {
	if k.cachestat {
		k.byCachestat(fd, first, end, emit)
		return
	}
	k.byMincore(fd, mem, first, end, emit)
}

// byCachestat halves the range until all pages of a part are alike, so the time
// follows the runs and not the pages.
func (k *Sources) byCachestat(fd int, first, end int64, emit func(Run) bool) bool {
	n := uint64(end - first)
	if n == 0 {
		return true
	}
	cs, err := cachestat(fd, first, end)
	if err != nil {
		return emit(Run{first, end, 0})
	}
	// Writeback is counted for dirty pages that are being written.
	uniform := func(v uint64) bool { return v == 0 || v >= n }
	if n == 1 || uniform(cs.Cache) && uniform(cs.Dirty) && uniform(cs.Writeback) {
		var flags Flags
		if cs.Cache > 0 {
			flags |= Resident
		}
		if cs.Dirty > 0 {
			flags |= Dirty
		}
		if cs.Writeback > 0 {
			flags |= Writeback
		}
		return emit(Run{first, end, flags})
	}
	middle := first + (end-first)/2
	return k.byCachestat(fd, first, middle, emit) && k.byCachestat(fd, middle, end, emit)
}

// mincoreWindow is how many pages byMincore asks about at a time.
const mincoreWindow = 1 << 16

// byMincore asks for residency through a mapping made for the purpose, which is
// never touched, and for the rest at the page frames, where that is permitted.
func (k *Sources) byMincore(fd int, mem []byte, from, end int64, emit func(Run) bool) {
	vec := make([]byte, mincoreWindow)
	for first := from; first < end; first += mincoreWindow {
		n := min(end-first, mincoreWindow)
		clear(vec)
		if k.Mincore == "" {
			if window, err := unix.MmapPtr(fd, first*paging.PageSize, nil, uintptr(n*paging.PageSize), unix.PROT_READ, unix.MAP_SHARED); err == nil {
				area := guard.Slice(window, n*paging.PageSize)
				_ = guard.Mincore(area, vec[:n]) // on failure the vector stays empty
				_ = sys.Munmap(area)
			}
		}
		for i := int64(0); i < n; {
			page := first + i
			flags := k.flagsOf(vec[i], mem, page)
			j := i + 1
			for j < n && k.flagsOf(vec[j], mem, first+j) == flags {
				j++
			}
			if !emit(Run{page, first + j, flags}) {
				return
			}
			i = j
		}
	}
}

// Bits of an entry of /proc/kpageflags (linux/kernel-page-flags.h) and of
// /proc/PID/pagemap.
const (
	kpfDirty       = 1 << 4
	kpfWriteback   = 1 << 8
	pagemapPresent = 1 << 63
	pagemapSwapped = 1 << 62
	pagemapFile    = 1 << 61 // of the file, or shared anonymous memory
	pagemapFrame   = 1<<55 - 1
)

// flagsOf returns the flags of one page, of which mincore said v.
func (k *Sources) flagsOf(v byte, mem []byte, page int64) Flags {
	if v&1 == 0 {
		return 0
	}
	flags := Resident
	if k.pagemap == nil || k.kpageflags == nil || (page+1)*paging.PageSize > int64(len(mem)) {
		return flags
	}
	frame := k.entry(k.pagemap, int64(guard.AddressOf(mem)/uintptr(paging.PageSize))+page)
	if frame&pagemapPresent == 0 || frame&pagemapFrame == 0 {
		return flags
	}
	bits := k.entry(k.kpageflags, int64(frame&pagemapFrame))
	if bits&kpfDirty != 0 {
		flags |= Dirty
	}
	if bits&kpfWriteback != 0 {
		flags |= Writeback
	}
	return flags
}

// entry reads one entry of a kernel table, or 0.
func (k *Sources) entry(f *os.File, index int64) uint64 {
	var b [8]byte
	if _, err := f.ReadAt(b[:], index*8); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(b[:])
}

// Copies calls emit for runs of the pages [first, end) of the private mapping mem: with
// PageCopied, or without a flag, as the kernel's page table has them. It reports whether
// emit wanted all. Where there is no pagemap nothing is copied.
func (k *Sources) Copies(mem []byte, first, end int64, emit func(Run) bool) bool {
	if k.pagemap == nil {
		return emit(Run{first, end, 0})
	}
	var entries [512 * 8]byte
	base := int64(guard.AddressOf(mem) / uintptr(paging.PageSize))
	run := Run{First: first, End: first}
	for page := first; page < end; {
		n := min(end-page, int64(len(entries)/8))
		clear(entries[:])
		_, _ = k.pagemap.ReadAt(entries[:n*8], (base+page)*8) // what cannot be read is not copied
		for i := range n {
			flags := Flags(0)
			entry := binary.NativeEndian.Uint64(entries[i*8:])
			if entry&(pagemapPresent|pagemapSwapped) != 0 && entry&pagemapFile == 0 {
				flags = Copied
			}
			if flags != run.Flags {
				if run.First < run.End && !emit(run) {
					return false
				}
				run = Run{First: page + i, End: page + i, Flags: flags}
			}
			run.End++
		}
		page += n
	}
	return run.First == run.End || emit(run)
}
