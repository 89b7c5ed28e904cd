package client

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// ToEnd is the length of a mapping that reaches to the end of its file.
const ToEnd = -1

// Options are the arguments of mmap(2).
type Options struct {
	Offset  int64 // in the file; the kernel wants a multiple of the page size
	Length  int64 // or ToEnd
	Private bool  // MAP_PRIVATE instead of MAP_SHARED
	Prot    Prot
	// Writable opens the file for reading and writing, not for reading alone.
	Writable bool
}

// Mapping is one mmap of a file.
type Mapping struct {
	name   string
	fd     int
	base   unsafe.Pointer
	opts   Options
	mapped int64 // bytes from base on: whole pages
	size   int64 // the file's, when it was mapped
	// holes are parts that were unmapped. The Go runtime can map its own memory
	// there at any time, so no system call that changes anything may touch them.
	holes []paging.Range
}

// Map opens and maps a file. Errors name the file and say, where the kernel has
// only a number, which argument it dislikes.
func Map(path string, opts Options) (*Mapping, error) {
	how := unix.O_RDONLY
	if opts.Writable {
		how = unix.O_RDWR
	}
	// O_NONBLOCK: the open of a fifo would wait for somebody at its other end.
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Open(path, how|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, named(err))
	}
	m := &Mapping{name: path, fd: fd, opts: opts}
	if err := m.mmap(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return m, nil
}

// MapAround is Map for an offset and a length in bytes: the mapping begins with
// the page that has the offset. begin is where in the mapping the offset is.
func MapAround(path string, opts Options) (m *Mapping, begin int64, err error) {
	begin = opts.Offset % paging.PageSize
	opts.Offset -= begin
	if opts.Length > 0 { // the kernel shall see a length of 0
		r, ok := paging.RangeOf(begin, opts.Length)
		if !ok {
			return nil, 0, fmt.Errorf("mmap %s: %w%s", path, named(unix.ENOMEM), opts.blame(unix.ENOMEM))
		}
		opts.Length = r.End
	}
	m, err = Map(path, opts)
	return m, begin, err
}

func (m *Mapping) mmap() error {
	size, err := m.Size()
	if err != nil {
		return err
	}
	m.size = size
	if m.opts.Length == ToEnd {
		m.opts.Length = size - m.opts.Offset
		if m.opts.Length <= 0 && m.opts.Offset%paging.PageSize != 0 {
			m.opts.Length = 1 // the offset is what is wrong, and the kernel says so
		}
		if m.opts.Length <= 0 {
			return fmt.Errorf("%s: nothing to map from offset %d on, the file has %d bytes; name a length to map past its end",
				m.name, m.opts.Offset, size)
		}
	}
	flags := unix.MAP_SHARED
	if m.opts.Private {
		flags = unix.MAP_PRIVATE
	}
	m.base, err = unix.MmapPtr(m.fd, m.opts.Offset, nil, uintptr(m.opts.Length), int(m.opts.Prot), flags)
	if err != nil {
		return fmt.Errorf("mmap %s: %w%s", m.name, named(err), m.opts.blame(err))
	}
	// It cannot overflow: the kernel has just mapped it.
	m.mapped, _ = paging.PageUp(m.opts.Length)
	return nil
}

// blame says which argument an errno of mmap(2) is about.
func (o Options) blame(err error) string {
	switch {
	case errors.Is(err, unix.EINVAL) && o.Offset%paging.PageSize != 0:
		return fmt.Sprintf(": offset %d is not a multiple of the page size %d", o.Offset, paging.PageSize)
	case errors.Is(err, unix.EINVAL) && o.Length == 0:
		return ": length is 0"
	case errors.Is(err, unix.EACCES) && !o.Writable && !o.Private && o.Prot&unix.PROT_WRITE != 0:
		return fmt.Sprintf(": the file is open read-only, and stores through a shared mapping (prot %v) would change it", o.Prot)
	case errors.Is(err, unix.ENODEV):
		return ": it is no file that can be mapped"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EOVERFLOW):
		return fmt.Sprintf(": length %d at offset %d", o.Length, o.Offset)
	}
	return ""
}

// Close unmaps what is still mapped and closes the file. Nothing is written
// back that the kernel would not write back at the end of the process.
func (m *Mapping) Close() error {
	err := m.Munmap(0, m.mapped)
	if closeErr := unix.Close(m.fd); err == nil && closeErr != nil {
		err = fmt.Errorf("close %s: %w", m.name, named(closeErr))
	}
	return err
}

// Length returns how many bytes were asked for. The mapping is longer: the
// kernel maps whole pages.
func (m *Mapping) Length() int64 { return m.opts.Length }

// Size returns the length of the file now.
func (m *Mapping) Size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", m.name, named(err))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		// stat tells nothing of the size of a disk.
		end, err := unix.Seek(m.fd, 0, io.SeekEnd)
		if err != nil {
			return 0, fmt.Errorf("seek %s: %w", m.name, named(err))
		}
		return end, nil
	}
	return st.Size, nil
}

// String describes the mapping in the manner of /proc/PID/maps: START-END PERMS
// OFFSET PATH, with the protection that it was made with.
func (m *Mapping) String() string {
	return fmt.Sprintf("%x-%x %s %08x %s", m.address(0), m.address(m.mapped),
		m.opts.Prot.perms(m.opts.Private), m.opts.Offset, m.name)
}

// address returns where the byte off of the mapping is.
func (m *Mapping) address(off int64) uintptr { return uintptr(m.base) + uintptr(off) }

// bytes is the memory of a range inside the mapping. It must not leave the
// package, and be touched only by the functions of access.go.
func (m *Mapping) bytes(r paging.Range) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.base, r.Off)), r.Len())
}

// Mprotect changes the protection of a part of the mapping, as mprotect(2).
func (m *Mapping) Mprotect(off, length int64, prot Prot) error {
	return m.each("mprotect", off, length, stopAtHole, func(b []byte) error {
		err := unix.Mprotect(b, int(prot))
		if errors.Is(err, unix.EACCES) {
			return fmt.Errorf("%w: the file is open read-only, and stores through a shared mapping (prot %v) would change it",
				named(err), prot)
		}
		return named(err)
	})
}

// Msync writes a part of the mapping back, with the flags of [ParseMsync].
func (m *Mapping) Msync(off, length int64, flags int) error {
	return m.each("msync", off, length, passHoles, func(b []byte) error {
		_, err := ignoringEINTR(func() (int, error) { return 0, unix.Msync(b, flags) })
		switch {
		case errors.Is(err, unix.EINVAL) && flags&unix.MS_SYNC != 0 && flags&unix.MS_ASYNC != 0:
			return fmt.Errorf("%w: sync and async exclude each other", named(err))
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%w: invalidate, and a page is locked in memory", named(err))
		}
		return named(err)
	})
}

// Madvise advises the kernel about a part of the mapping, as madvise(2).
func (m *Mapping) Madvise(off, length int64, advice int) error {
	return m.each("madvise", off, length, passHoles, func(b []byte) error {
		return named(unix.Madvise(b, advice))
	})
}

// Munmap unmaps a part of the mapping, which can split it in two. To unmap what
// is not mapped any more is no error.
func (m *Mapping) Munmap(off, length int64) error {
	r, err := m.aligned("munmap", off, length)
	if err != nil {
		return err
	}
	if length == 0 {
		// Like every length of 0 in mmap(2) and munmap(2).
		return fmt.Errorf("munmap: %w: length is 0", named(unix.EINVAL))
	}
	for _, piece := range m.pieces(r) {
		if err := unix.MunmapPtr(unsafe.Add(m.base, piece.Off), uintptr(piece.Len())); err != nil {
			return fmt.Errorf("munmap: %w", named(err))
		}
		m.holes = append(m.holes, piece)
	}
	return nil
}

// What the kernel does at an unmapped page, before it says ENOMEM.
const (
	stopAtHole = false // nothing behind it is changed
	passHoles  = true  // the rest is done all the same
)

// each applies call to the mapped pieces of a part of the mapping. The kernel is
// not asked about holes, because it could find memory of the Go runtime in them;
// what it says of real holes is ENOMEM.
func (m *Mapping) each(what string, off, length int64, pass bool, call func([]byte) error) error {
	r, err := m.aligned(what, off, length)
	if err != nil {
		return err
	}
	at := r.Off
	for _, piece := range m.pieces(r) {
		if piece.Off > at && !pass {
			break
		}
		if err := call(m.bytes(piece)); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		at = piece.End
	}
	if hole := m.holeIn(r); !hole.Empty() {
		return fmt.Errorf("%s: %w: bytes %v of the mapping are not mapped any more", what, named(unix.ENOMEM), hole)
	}
	return nil
}

// aligned returns a part of the mapping, in whole pages.
func (m *Mapping) aligned(what string, off, length int64) (paging.Range, error) {
	r, ok := paging.RangeOf(off, length)
	if ok {
		r.End, ok = paging.PageUp(r.End)
	}
	switch {
	case ok && off%paging.PageSize != 0:
		return r, fmt.Errorf("%s: %w: offset %d is not a multiple of the page size %d", what, named(unix.EINVAL), off, paging.PageSize)
	case !ok || r.End > m.mapped:
		return r, m.outside(what, off, length)
	}
	return r, nil
}

// outside refuses what would reach memory that this mapping never had: that of
// the Go runtime, for all we know.
func (m *Mapping) outside(what string, off, length int64) error {
	return fmt.Errorf("%s: %d bytes at %d are not inside the mapping, which has %d bytes", what, length, off, m.mapped)
}

// pieces returns what is still mapped of r, in order.
func (m *Mapping) pieces(r paging.Range) []paging.Range {
	var all []paging.Range
	for !r.Empty() {
		hole := m.holeIn(r)
		if hole.Empty() {
			return append(all, r)
		}
		if hole.Off > r.Off {
			all = append(all, paging.Range{Off: r.Off, End: hole.Off})
		}
		r.Off = hole.End
	}
	return all
}

// holeIn returns the first part of r that is unmapped, or an empty range. Holes
// never overlap.
func (m *Mapping) holeIn(r paging.Range) paging.Range {
	var first paging.Range
	for _, hole := range m.holes {
		if cut := hole.Intersect(r); !cut.Empty() && (first.Empty() || cut.Off < first.Off) {
			first = cut
		}
	}
	return first
}

// errnoError is an errno with its name, which is what the man pages list.
type errnoError struct{ errno unix.Errno }

func (e errnoError) Error() string {
	return fmt.Sprintf("%v (%s)", e.errno, unix.ErrnoName(e.errno))
}
func (e errnoError) Unwrap() error { return e.errno }

func named(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errnoError{errno}
	}
	return err
}

// ignoringEINTR repeats a system call that a signal interrupted, such as those
// that the Go runtime sends itself.
func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}
