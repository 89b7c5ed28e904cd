// Package paging is the arithmetic of pages and of ranges of bytes.
package paging

import (
	"fmt"
	"math"
	"os"
)

// PageSize is the size of a page of memory in bytes, as getpagesize(2) tells
// it. It is a power of two.
var PageSize = int64(os.Getpagesize())

// Range is the half-open span of bytes [Off, End) of a file.
type Range struct{ Off, End int64 }

// RangeOf returns the range of length bytes at off. It reports false when
// either is negative or the end does not fit an off_t.
func RangeOf(off, length int64) (Range, bool) {
	if off < 0 || length < 0 || off > math.MaxInt64-length {
		return Range{}, false
	}
	return Range{off, off + length}, true
}

// WholeFile is every byte that a file can have.
var WholeFile = Range{0, math.MaxInt64}

// Len returns the number of bytes in r.
func (r Range) Len() int64 { return r.End - r.Off }

// Empty reports whether r has no bytes.
func (r Range) Empty() bool { return r.End <= r.Off }

// Intersect returns the bytes that are in both r and s.
func (r Range) Intersect(s Range) Range {
	return Range{max(r.Off, s.Off), max(min(r.End, s.End), max(r.Off, s.Off))}
}

// Pages returns the indexes of the first page that r touches and of the page
// after the last. It cannot overflow: the end is rounded up as an index.
func (r Range) Pages() (first, end int64) {
	if r.Empty() {
		return r.Off / PageSize, r.Off / PageSize
	}
	return r.Off / PageSize, (r.End-1)/PageSize + 1
}

// String returns r as "[0x0, 0x1000)".
func (r Range) String() string { return fmt.Sprintf("[%#x, %#x)", r.Off, r.End) }

// PageDown rounds off down to the beginning of its page.
func PageDown(off int64) int64 { return off &^ (PageSize - 1) }

// PageUp rounds off up to a page boundary. It reports false when the result
// does not fit an off_t.
func PageUp(off int64) (int64, bool) {
	if off > math.MaxInt64-(PageSize-1) {
		return 0, false
	}
	return PageDown(off + PageSize - 1), true
}

// minSpan is the least number of bytes a mapping reserves. A file can grow to
// its mapping's span by ftruncate(2) or write(2) alone; only address space is
// spent on the rest.
const minSpan = 256 << 10

// SpanFor returns how many bytes to map for a file of the given size: the next
// power of two of twice the size, so that a growing file is mapped anew only a
// logarithmic number of times.
func SpanFor(size int64) (int64, bool) {
	if size > math.MaxInt64/4 {
		return 0, false
	}
	span := int64(minSpan)
	for span < 2*size {
		span *= 2
	}
	return span, true
}
