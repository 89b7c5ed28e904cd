package explore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"mapfs/fs/crash"
)

// pageSize is the unit, in bytes, in which contents are summed up.
const pageSize = 4096

// sum stands for contents, or for a tree: equal ones have equal sums. It does not depend on
// the order in which it was made.
type sum [2]uint64

func (s *sum) add(o sum) { s[0] += o[0]; s[1] += o[1] }
func (s *sum) sub(o sum) { s[0] -= o[0]; s[1] -= o[1] }

// sumOf returns the sum of some bytes.
func sumOf(p []byte) sum {
	h := sha256.Sum256(p)
	return sum{binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:])}
}

// content is the bytes of a file, in a file of its own.
type content struct {
	path  string // "" for no bytes
	home  string // where it is when it is not part of the recording any more
	owned bool   // it is there
	size  int64
	disk  int64 // size of what the file has
	sum   sum   // of the pages; see pageSum
	known bool
	// steps are changes that are made when somebody looks; size has them already. Most are
	// overwritten before.
	steps []crash.Step
}

// later makes changes of the content, when it is looked at.
func (c *content) later(steps []crash.Step) {
	c.steps = append(c.steps, steps...)
	c.size = sizeAfter(c.size, steps)
}

// sizeAfter returns what the size becomes by steps.
func sizeAfter(size int64, steps []crash.Step) int64 {
	for i := range steps {
		s := &steps[i]
		switch {
		case s.Resize && !s.Grow:
			size = s.Off
		case s.Resize:
			size = max(size, s.Off)
		case !s.IsZero():
			size = max(size, s.Off+s.Length)
		}
	}
	return size
}

// look makes the changes that were put off.
func (c *content) look() error {
	if len(c.steps) == 0 {
		return nil
	}
	steps := c.steps
	c.steps = nil
	return c.apply(steps)
}

// pageSum is what a page adds to the sum of its file. A page of zeros adds nothing: it is
// like a hole.
func pageSum(number int64, page []byte) sum {
	for _, c := range page {
		if c != 0 {
			var b [pageSize + 8]byte
			binary.LittleEndian.PutUint64(b[copy(b[:], page):], uint64(number))
			return sumOf(b[:len(page)+8])
		}
	}
	return sum{}
}

// open opens the file for reading; nil if there is none.
func (c *content) open() (*os.File, error) {
	if c.path == "" {
		return nil, nil
	}
	return os.Open(c.path)
}

// readPage reads a page of a content that f is open for; what is not there is zero.
func readPage(f *os.File, number int64, page []byte) error {
	clear(page)
	if f == nil {
		return nil
	}
	_, err := f.ReadAt(page, number*pageSize)
	if err == io.EOF {
		return nil
	}
	return err
}

// learn makes the sum known.
func (c *content) learn() error {
	if err := c.look(); err != nil || c.known {
		return err
	}
	f, err := c.open()
	if err != nil {
		return err
	}
	if f != nil {
		defer f.Close()
		var page [pageSize]byte
		err := eachData(f, c.size, func(off, end int64) error {
			for number := off / pageSize; number*pageSize < end; number++ {
				if err := readPage(f, number, page[:]); err != nil {
					return err
				}
				c.sum.add(pageSum(number, page[:]))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	c.known = true
	return nil
}

// overlay is what steps make of a content.
type overlay struct {
	base  *content
	steps []crash.Step
	size  int64
	// pages has the steps that write to each page, by number, in order; cuts are those that
	// make the file shorter.
	pages map[int64][]int
	cuts  []int
}

func overlayOf(base *content, steps []crash.Step) *overlay {
	o := &overlay{base: base, steps: steps, size: base.disk, pages: make(map[int64][]int)}
	for i := range steps {
		s := &steps[i]
		switch {
		case s.Resize && s.Grow:
			o.size = max(o.size, s.Off)
		case s.Resize:
			if s.Off < o.size {
				o.cuts = append(o.cuts, i)
				for page := s.Off / pageSize; page*pageSize < base.disk; page++ {
					o.touch(page)
				}
			}
			o.size = s.Off
		default:
			end := s.Off + s.Length
			if s.IsZero() {
				end = min(end, o.size)
			}
			for page := s.Off / pageSize; page*pageSize < end; page++ {
				o.pages[page] = append(o.pages[page], i)
			}
			o.size = max(o.size, end)
		}
	}
	return o
}

func (o *overlay) touch(page int64) {
	if _, there := o.pages[page]; !there {
		o.pages[page] = nil
	}
}

// page makes a page; f is open for the base.
func (o *overlay) page(f *os.File, number int64, page []byte) error {
	begin := number * pageSize
	whole := func(s *crash.Step) bool { return s.Off <= begin && s.Off+s.Length >= begin+pageSize }
	steps := o.pages[number]
	// Nothing before the last step that covers the page is left.
	from := 0
	for i, at := range slices.Backward(steps) {
		if whole(&o.steps[at]) {
			from = i
			break
		}
	}
	if len(steps) == 0 || !whole(&o.steps[steps[from]]) {
		if err := readPage(f, number, page); err != nil {
			return err
		}
	}
	cuts := o.cuts
	cutUntil := func(before int) {
		for len(cuts) > 0 && cuts[0] < before {
			if at := o.steps[cuts[0]].Off; at < begin+pageSize {
				clear(page[max(at-begin, 0):])
			}
			cuts = cuts[1:]
		}
	}
	for _, at := range steps[from:] {
		cutUntil(at)
		s := &o.steps[at]
		off, end := max(s.Off, begin), min(s.Off+s.Length, begin+pageSize)
		part := page[off-begin : end-begin]
		if s.IsZero() {
			clear(part)
		} else if err := s.Read(part, off-s.Off); err != nil {
			return err
		}
	}
	cutUntil(len(o.steps))
	return nil
}

// each calls fn for the pages that the steps change, in order, with their new bytes.
func (o *overlay) each(fn func(number int64, old, now []byte) error) error {
	f, err := o.base.open()
	if err != nil {
		return err
	}
	if f != nil {
		defer f.Close()
	}
	numbers := make([]int64, 0, len(o.pages))
	for number := range o.pages {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	var old, now [pageSize]byte
	for _, number := range numbers {
		if err := readPage(f, number, old[:]); err != nil {
			return err
		}
		if err := o.page(f, number, now[:]); err != nil {
			return err
		}
		if err := fn(number, old[:], now[:]); err != nil {
			return err
		}
	}
	return nil
}

// sum returns the sum of the new content.
func (o *overlay) sum() (sum, error) {
	if err := o.base.learn(); err != nil {
		return sum{}, err
	}
	s := o.base.sum
	err := o.each(func(number int64, old, now []byte) error {
		s.sub(pageSum(number, old))
		s.add(pageSum(number, now))
		return nil
	})
	return s, err
}

// write writes the changed pages to a file that has the base's bytes, and gives it its
// size. It adds to sum what changes of it, unless that is nil.
func (o *overlay) write(to *os.File, s *sum) error {
	err := o.each(func(number int64, old, now []byte) error {
		if s != nil {
			s.sub(pageSum(number, old))
			s.add(pageSum(number, now))
		}
		if end := o.size - number*pageSize; end > 0 {
			_, err := to.WriteAt(now[:min(end, pageSize)], number*pageSize)
			return err
		}
		return nil
	})
	return errors.Join(err, to.Truncate(o.size))
}

// writeTo is write to the file at a path.
func (o *overlay) writeTo(path string, s *sum) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(o.write(f, s), f.Close())
}

// apply makes what steps make of the content the content, in a file of its own.
func (c *content) apply(steps []crash.Step) error {
	if !c.owned {
		if err := copyContent(c, c.home, 0o600); err != nil {
			return err
		}
		c.path, c.owned = c.home, true
	}
	// The pages are made from the file that they are written to, each from itself only.
	o := overlayOf(c, steps)
	var changes *sum
	if c.known {
		changes = &c.sum
	}
	err := o.writeTo(c.path, changes)
	c.disk = o.size
	return err
}

// copyContent makes a new file with the bytes of a content. Holes stay holes.
func copyContent(c *content, path string, mode os.FileMode) error {
	to, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := c.open()
	if err != nil || from == nil {
		return err
	}
	defer from.Close()
	return copySparse(from, to, c.disk)
}

// copySparse copies the first size bytes of a file, and leaves its holes out.
func copySparse(from, to *os.File, size int64) error {
	if err := to.Truncate(size); err != nil {
		return err
	}
	return eachData(from, size, func(off, end int64) error {
		for off < end {
			in, out := off, off
			n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, int(end-off), 0)
			if err == syscall.EXDEV || err == syscall.EOPNOTSUPP || err == syscall.EINVAL || err == syscall.ENOSYS {
				m, copyErr := io.Copy(io.NewOffsetWriter(to, off), io.NewSectionReader(from, off, end-off))
				n, err = int(m), copyErr
			}
			if err != nil {
				return err
			}
			if n == 0 {
				return nil // shorter than it was
			}
			off += int64(n)
		}
		return nil
	})
}

// eachData calls fn for the parts of the first size bytes of a file that are no holes. Each
// begins at a page.
func eachData(f *os.File, size int64, fn func(off, end int64) error) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if err == syscall.ENXIO {
			return nil
		}
		hole := size
		if err == nil {
			if hole, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE); err != nil {
				return os.NewSyscallError("lseek", err)
			}
			// Filesystems tell of blocks, which can be smaller than pages.
			data, hole = data/pageSize*pageSize, min((hole+pageSize-1)/pageSize*pageSize, size)
			data = max(data, at)
		} else {
			data = at // the filesystem does not tell
		}
		if err := fn(data, hole); err != nil {
			return err
		}
		at = hole
	}
	return nil
}
