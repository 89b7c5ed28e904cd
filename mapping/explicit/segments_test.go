package explicit

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"mapfs/mapping/paging"
)

// pageOf is what a segment list says of one page, in the test's own model.
type pageOf struct {
	m      *Mapping
	prot   int
	locked bool
}

// TestSegmentsModel holds the lists to a table with one entry a page, under random
// changes.
func TestSegmentsModel(t *testing.T) {
	const pages = 24
	page := uintptr(paging.PageSize)
	base := 1000 * page
	owners := []*Mapping{{name: "a"}, {name: "b"}, {name: "c"}}
	random := rand.New(rand.NewPCG(1, 2))
	var list segments
	var model [pages]pageOf
	for range 20000 {
		first := random.IntN(pages)
		end := first + 1 + random.IntN(pages-first)
		s := span{base + uintptr(first)*page, base + uintptr(end)*page}
		before := append(segments(nil), list...)
		kept := list
		switch random.IntN(4) {
		case 0:
			list = list.without(s)
			for i := first; i < end; i++ {
				model[i] = pageOf{}
			}
		case 1:
			// What one owner has there is taken away, or changed.
			owner, keep := owners[random.IntN(len(owners))], random.IntN(2) == 0
			parts := list.in(s, owner)
			for i := range parts {
				parts[i].prot = 7
			}
			list = list.apart(parts, keep)
			for i := first; i < end; i++ {
				if model[i].m == owner {
					if model[i].prot = 7; !keep {
						model[i] = pageOf{}
					}
				}
			}
		default:
			p := pageOf{owners[random.IntN(len(owners))], random.IntN(2), random.IntN(4) == 0}
			list = list.with(segment{s, p.m, p.prot, p.locked})
			for i := first; i < end; i++ {
				model[i] = p
			}
		}
		for i := range before {
			if kept[i] != before[i] {
				t.Fatal("a list was changed in place")
			}
		}
		checkSegments(t, list, base, model[:])
	}
}

// checkSegments holds a list to the model of its pages, and to its own order.
func checkSegments(t *testing.T, list segments, base uintptr, model []pageOf) {
	t.Helper()
	page := uintptr(paging.PageSize)
	for i, seg := range list {
		if seg.start >= seg.end || i > 0 && (list[i-1].end > seg.start) {
			t.Fatalf("segment %d, %x-%x, is empty or out of order", i, seg.start, seg.end)
		}
	}
	joined := list.joined()
	for i, seg := range joined {
		if i > 0 && joined[i-1].joins(seg) {
			t.Fatalf("segment %d, %x-%x, is not joined with the one before", i, seg.start, seg.end)
		}
		if parts := list.in(seg.span, seg.m); !parts.fill(seg.span) || parts[0].prot != seg.prot {
			t.Fatalf("segment %d, %x-%x, was joined wrong", i, seg.start, seg.end)
		}
	}
	bounds := span{base, base + uintptr(len(model))*page}
	free := 0
	for i, want := range model {
		here := span{base + uintptr(i)*page, base + uintptr(i+1)*page}
		parts := list.in(here, nil)
		if len(parts) == 0 != (want.m == nil) {
			t.Fatalf("page %d: %d segments, the model has %v", i, len(parts), want.m)
		}
		if want.m == nil {
			free++
			continue
		}
		free = 0
		if got := (pageOf{parts[0].m, parts[0].prot, parts[0].locked}); got != want || parts[0].span != here {
			t.Fatalf("page %d is %+v at %x, want %+v", i, got, parts[0].start, want)
		}
		if len(list.in(here, want.m)) != 1 || len(list.in(here, new(Mapping))) != 0 || !list.in(here, want.m).fill(here) {
			t.Fatalf("page %d is not its owner's alone", i)
		}
	}
	for i := range model {
		at := base + uintptr(i)*page
		if nothing := list.in(span{at, at}, nil); len(nothing) > 0 {
			t.Fatalf("no bytes at page %d are in %+v", i, nothing)
		}
	}
	for length := 1; length <= len(model)+1; length++ {
		want, run := -1, 0
		for i := range model {
			if run++; model[i].m != nil {
				run = 0
			}
			if run == length {
				want = i - length + 1
				break
			}
		}
		got, ok := list.free(bounds, int64(length)*paging.PageSize)
		if ok != (want >= 0) || ok && got.start != base+uintptr(want)*page {
			t.Fatalf("the lowest %d free pages are at %x, %v; want page %d", length, got.start, ok, want)
		}
	}
}

// TestSegmentsJoin: neighbours that are alike are shown as one.
func TestSegmentsJoin(t *testing.T) {
	page := uintptr(paging.PageSize)
	m, other := new(Mapping), new(Mapping)
	seg := func(first, end uintptr, m *Mapping, prot int) segment {
		return segment{span{first * page, end * page}, m, prot, false}
	}
	list := segments(nil).with(seg(1, 2, m, 1)).with(seg(3, 4, m, 1)).with(seg(2, 3, m, 1))
	if got := list.joined(); len(list) != 3 || len(got) != 1 || got[0] != seg(1, 4, m, 1) {
		t.Errorf("three pages alike: %+v", got)
	}
	if list = list.with(seg(2, 3, m, unix.PROT_WRITE)); len(list.joined()) != 3 {
		t.Errorf("one of them protected: %+v", list)
	}
	if list = list.with(seg(2, 3, m, 1)); len(list.joined()) != 1 {
		t.Errorf("and back: %+v", list)
	}
	if list = list.with(seg(4, 5, other, 1)); len(list.joined()) != 2 {
		t.Errorf("another's behind: %+v", list)
	}
}
