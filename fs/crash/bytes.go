package crash

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// segmentSize is how many bytes are kept together. Memory, and the space of the file, is
// taken and given back by the segment.
const segmentSize = 1 << 20

// segment holds the bytes of some operations.
type segment struct {
	mem  []byte // nil if the segment is in the file
	slot int64  // its place in the file, in segments
	live int    // how many refs lead here
}

// ref is a run of bytes in a segment.
type ref struct {
	in      *segment
	off, to int
}

// Bytes are bytes that a log keeps. Few are split between segments. Or they are kept
// elsewhere: see [BytesAt].
type Bytes struct {
	first ref
	rest  []ref

	elsewhere io.ReaderAt
	at        int64
}

// BytesAt are bytes that somebody else keeps, at an offset of r, as long as anybody has a
// step that consists of them.
func BytesAt(r io.ReaderAt, at int64) Bytes { return Bytes{elsewhere: r, at: at} }

// each calls fn for the runs that b consists of.
func (b *Bytes) each(fn func(ref) error) error {
	if b.first.in == nil {
		return nil
	}
	if err := fn(b.first); err != nil {
		return err
	}
	for _, r := range b.rest {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// byteStore keeps bytes: in memory up to a bound, then in a file without a name.
type byteStore struct {
	maxMemory int // in segments
	inMemory  int
	spare     []byte // the memory of a segment that was given back

	current *segment
	used    int // of the current segment

	file  *os.File
	slots int64
	free  []int64
}

// put keeps a copy of p. If there is no room, nothing is kept.
func (s *byteStore) put(p []byte) (Bytes, error) {
	var b Bytes
	for len(p) > 0 {
		if s.current == nil || s.used == segmentSize {
			if err := s.next(); err != nil {
				s.release(&b)
				return Bytes{}, err
			}
		}
		n := copy(s.current.mem[s.used:], p)
		r := ref{s.current, s.used, s.used + n}
		s.used += n
		s.current.live++
		p = p[n:]
		if b.first.in == nil {
			b.first = r
		} else {
			b.rest = append(b.rest, r)
		}
	}
	return b, nil
}

// next begins a segment. The one that is full goes to the file if there is enough in
// memory.
func (s *byteStore) next() error {
	if full := s.current; full != nil {
		if s.inMemory >= s.maxMemory {
			if err := s.spill(full); err != nil {
				return err
			}
		}
		s.current = nil
		if full.live == 0 {
			s.drop(full)
		}
	}
	mem := s.spare
	s.spare = nil
	if mem == nil {
		mem = make([]byte, segmentSize)
	}
	s.current, s.used = &segment{mem: mem}, 0
	s.inMemory++
	return nil
}

// spill moves a segment to the file.
func (s *byteStore) spill(seg *segment) error {
	slot := s.slots
	if k := len(s.free); k > 0 {
		slot = s.free[k-1]
	}
	if _, err := s.file.WriteAt(seg.mem, slot*segmentSize); err != nil {
		return err
	}
	if k := len(s.free); k > 0 {
		s.free = s.free[:k-1]
	} else {
		s.slots++
	}
	seg.slot, s.spare, seg.mem = slot, seg.mem, nil
	s.inMemory--
	return nil
}

// open makes the file in a directory. It has no name, so that nothing is left of it when the process
// ends, however that happens.
func (s *byteStore) open(dir string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		s.file = os.NewFile(uintptr(fd), dir)
		return nil
	}
	if err != syscall.EOPNOTSUPP && err != syscall.EISDIR {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	file, err := os.CreateTemp(dir, "mapfs-history-")
	if err != nil {
		return err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return err
	}
	s.file = file
	return nil
}

// release gives bytes back.
func (s *byteStore) release(b *Bytes) {
	if b.elsewhere != nil {
		return
	}
	_ = b.each(func(r ref) error {
		r.in.live--
		switch {
		case r.in.live > 0:
		case r.in == s.current:
			s.used = 0
		default:
			s.drop(r.in)
		}
		return nil
	})
	*b = Bytes{}
}

// drop gives a segment back that nobody needs.
func (s *byteStore) drop(seg *segment) {
	if seg.mem != nil {
		s.spare, seg.mem = seg.mem, nil
		s.inMemory--
		return
	}
	s.free = append(s.free, seg.slot)
	// The space is free for others at once, where the filesystem can do that.
	_ = unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, seg.slot*segmentSize, segmentSize)
}

// read copies the bytes of b from off on into p.
func (s *byteStore) read(b *Bytes, off int64, p []byte) error {
	if b.elsewhere != nil {
		n, err := b.elsewhere.ReadAt(p, b.at+off)
		if n == len(p) {
			return nil
		}
		return fmt.Errorf("bytes that are kept elsewhere: %w", err)
	}
	return b.each(func(r ref) error {
		n := int64(r.to - r.off)
		if len(p) == 0 || off >= n {
			off -= n
			return nil
		}
		part := p[:min(int64(len(p)), n-off)]
		p = p[len(part):]
		at := r.off + int(off)
		off = 0
		if r.in.mem != nil {
			copy(part, r.in.mem[at:])
			return nil
		}
		_, err := s.file.ReadAt(part, r.in.slot*segmentSize+int64(at))
		return err
	})
}

// reset gives all bytes back.
func (s *byteStore) reset() {
	// What cannot be cut off is written over.
	_ = s.file.Truncate(0)
	*s = byteStore{maxMemory: s.maxMemory, file: s.file}
}
