package explicit

import "slices"

// span is a half-open range of addresses, in whole pages.
type span struct{ start, end uintptr }

// len returns the number of bytes in s.
func (s span) len() int64 { return int64(s.end - s.start) }

// overlaps reports whether s and o have an address in common.
func (s span) overlaps(o span) bool { return s.start < o.end && o.start < s.end }

// clip returns what s and o have in common; they must overlap.
func (s span) clip(o span) span { return span{max(s.start, o.start), min(s.end, o.end)} }

// segment is a stretch of an explicit mapping whose pages have the same
// protection: what the kernel keeps as one map area, or as part of one.
type segment struct {
	span
	m      *Mapping
	prot   int  // PROT_READ, PROT_WRITE, PROT_EXEC
	locked bool // by mlock(2) or MAP_LOCKED
}

// joins reports whether next goes on where s ends and differs in nothing else. A
// mapping's pages never move, so their offsets in the file go on too.
func (s segment) joins(next segment) bool {
	return s.end == next.start && s.m == next.m && s.prot == next.prot && s.locked == next.locked
}

// segments are disjoint segments in the order of addresses. A list is never
// changed once made: who has one may keep it.
//
// Neighbours that are alike again stay two, because the kernel does not always
// join map areas either: not private ones whose copies were made apart, and none
// of some filesystems. So a list never has fewer segments than the kernel has
// areas, of which there is a limit.
type segments []segment

// without returns the list less the addresses of s; segments are cut or split.
func (list segments) without(s span) segments {
	out := make(segments, 0, len(list)+1)
	for _, seg := range list {
		if !seg.overlaps(s) {
			out = append(out, seg)
			continue
		}
		if left := seg; left.start < s.start {
			left.end = s.start
			out = append(out, left)
		}
		if right := seg; right.end > s.end {
			right.start = s.end
			out = append(out, right)
		}
	}
	return out
}

// with returns the list with seg in place of what it covers.
func (list segments) with(seg segment) segments {
	out := list.without(seg.span)
	return slices.Insert(out, out.from(seg.start), seg)
}

// apart returns the list with the given parts of its segments cut out, and put back
// as segments of their own if keep says so. It takes one walk, however many they
// are.
func (list segments) apart(parts segments, keep bool) segments {
	out := make(segments, 0, len(list)+2*len(parts))
	for _, seg := range list {
		for len(parts) > 0 && parts[0].start < seg.end {
			part := parts[0]
			parts = parts[1:]
			if left := seg; left.start < part.start {
				left.end = part.start
				out = append(out, left)
			}
			if keep {
				out = append(out, part)
			}
			seg.start = part.end
		}
		if seg.start < seg.end {
			out = append(out, seg)
		}
	}
	return out
}

// joined returns the list with neighbours that are alike as one, for who only
// looks.
func (list segments) joined() segments {
	var out segments
	for _, seg := range list {
		if k := len(out); k > 0 && out[k-1].joins(seg) {
			out[k-1].end = seg.end
		} else {
			out = append(out, seg)
		}
	}
	return out
}

// from returns the index of the first segment that ends after addr.
func (list segments) from(addr uintptr) int {
	i, _ := slices.BinarySearchFunc(list, addr, func(seg segment, addr uintptr) int {
		if seg.end <= addr {
			return -1
		}
		return 1
	})
	return i
}

// in returns the parts of segments that lie in s: of all mappings, or of one.
func (list segments) in(s span, owner *Mapping) (parts segments) {
	if s.start >= s.end {
		return nil // no part of a segment is empty
	}
	for _, seg := range list[list.from(s.start):] {
		if seg.start >= s.end {
			break
		}
		if owner == nil || seg.m == owner {
			seg.span = seg.clip(s)
			parts = append(parts, seg)
		}
	}
	return parts
}

// fill reports whether parts, which [segments.in] returned for s, leave no page
// of it out.
func (list segments) fill(s span) bool {
	total := int64(0)
	for _, seg := range list {
		total += seg.len()
	}
	return total == s.len()
}

// free returns the lowest place of length bytes in bounds that no segment has.
func (list segments) free(bounds span, length int64) (span, bool) {
	at := bounds.start
	for _, seg := range list {
		if int64(seg.start-at) >= length {
			break
		}
		at = seg.end
	}
	if int64(bounds.end-at) < length {
		return span{}, false
	}
	return span{at, at + uintptr(length)}, true
}

// owners returns the mappings of the segments, each once, in the order of their
// first.
func (list segments) owners() (owners []*Mapping) {
	for _, seg := range list {
		if !slices.Contains(owners, seg.m) {
			owners = append(owners, seg.m)
		}
	}
	return owners
}
