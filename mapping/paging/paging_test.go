package paging

import (
	"math"
	"testing"

	"mapfs/internal/filetest"
)

func TestRangeOf(t *testing.T) {
	for _, c := range []struct {
		off, length int64
		ok          bool
	}{
		{0, 0, true}, {0, 1, true}, {-1, 1, false}, {0, -1, false},
		{math.MaxInt64, 0, true}, {math.MaxInt64, 1, false}, {math.MaxInt64 - 1, 1, true},
		{1, math.MaxInt64, false},
	} {
		g, ok := RangeOf(c.off, c.length)
		if ok != c.ok || ok && (g.Off != c.off || g.Len() != c.length) {
			t.Errorf("RangeOf(%d, %d) = %v, %v, want ok %v", c.off, c.length, g, ok, c.ok)
		}
	}
}

func TestRangePages(t *testing.T) {
	// Every page a byte of the range lies on, and no other.
	for _, off := range filetest.Boundaries() {
		for _, length := range filetest.Boundaries() {
			g := Range{off, off + length}
			first, end := g.Pages()
			if length == 0 {
				if first != end {
					t.Errorf("%v.Pages() = %d, %d, want none", g, first, end)
				}
				continue
			}
			if first != off/PageSize || end != (off+length-1)/PageSize+1 {
				t.Errorf("%v.Pages() = %d, %d", g, first, end)
			}
		}
	}
	if first, end := (Range{math.MaxInt64 - 1, math.MaxInt64}).Pages(); end != first+1 {
		t.Errorf("the last byte of all lies on pages %d to %d", first, end)
	}
}

func TestPageUp(t *testing.T) {
	for _, off := range filetest.Boundaries() {
		up, ok := PageUp(off)
		if !ok || up < off || up-off >= PageSize || up%PageSize != 0 {
			t.Errorf("PageUp(%d) = %d, %v", off, up, ok)
		}
	}
	if _, ok := PageUp(math.MaxInt64); ok {
		t.Error("PageUp of the last offset did not report the overflow")
	}
	if up, ok := PageUp(math.MaxInt64 - PageSize + 1); !ok || up != math.MaxInt64-PageSize+1 {
		t.Errorf("PageUp of the last page boundary = %d, %v", up, ok)
	}
}

func TestIntersect(t *testing.T) {
	for _, c := range []struct{ a, b, want Range }{
		{Range{0, 10}, Range{5, 20}, Range{5, 10}},
		{Range{0, 10}, Range{10, 20}, Range{10, 10}},
		{Range{0, 10}, Range{15, 20}, Range{15, 15}},
		{Range{0, 10}, Range{2, 3}, Range{2, 3}},
	} {
		if got := c.a.Intersect(c.b); got != c.want {
			t.Errorf("%v.Intersect(%v) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestSpanFor(t *testing.T) {
	for _, size := range []int64{0, 1, minSpan / 2, minSpan/2 + 1, minSpan, 1 << 40, 1<<40 + 1} {
		span, ok := SpanFor(size)
		if !ok || span < 2*size || span < minSpan || span&(span-1) != 0 || span > max(4*size, minSpan) {
			t.Errorf("spanFor(%d) = %d, %v", size, span, ok)
		}
	}
	if _, ok := SpanFor(math.MaxInt64); ok {
		t.Error("spanFor of the largest size did not report the overflow")
	}
}
