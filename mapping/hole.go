package mapping

import (
	"slices"
	"sync"
	"syscall"

	"mapfs/mapping/dirty"
	"mapfs/mapping/paging"
)

// A store to a hole of a file that copies needs no room on the filesystem, since what is
// stored stays in memory. But before tmpfs copies a page it wants to have it, and if it
// is full that is SIGBUS. Then an anonymous page, which is as empty as the hole, takes
// the place of the file's.

// holePages are the pages of the mapped part of a file that anonymous pages have taken
// the place of. Each run of them splits the file's map area, so their number is bounded.
type holePages struct {
	mu    sync.Mutex
	pages map[int64]bool // by index
}

// hasLocked reports whether a page is one of them. h.mu must be held.
func (h *holePages) hasLocked(page int64) bool { return h.pages[page] }

// neighboursLocked returns how many of the two pages beside one are among them. h.mu must
// be held.
func (h *holePages) neighboursLocked(page int64) (n int64) {
	for _, p := range []int64{page - 1, page + 1} {
		if h.pages[p] {
			n++
		}
	}
	return n
}

// in returns the pages of g among them, in order.
func (h *holePages) in(g paging.Range) (pages []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, end := g.Pages()
	for p := range h.pages {
		if p >= first && p < end {
			pages = append(pages, p)
		}
	}
	slices.Sort(pages)
	return pages
}

// fillHolesLocked gives the holes that g touches anonymous pages, after a store to g has
// faulted, and reports whether it did: then the store is worth another try. f.mu must be
// held.
func (f *File) fillHolesLocked(g paging.Range) (filled bool) {
	if !f.FillsHoles || f.copies == nil {
		return false
	}
	c := f.copies
	g = paging.Range{Off: paging.PageDown(g.Off), End: g.End}.Intersect(paging.Range{Off: 0, End: c.fileEnd})
	c.holes.mu.Lock()
	defer c.holes.mu.Unlock()
	for at := g.Off; at < g.End; at += paging.PageSize {
		page := paging.Range{Off: at, End: at + paging.PageSize}
		// A page that was copied is there; another may be one by others' doing.
		if f.record.All(page, dirty.Copied) || c.holes.hasLocked(at/paging.PageSize) || !f.isHole(page) {
			continue
		}
		runs := 1 - c.holes.neighboursLocked(at/paging.PageSize)
		if f.table.holeRuns.Add(runs) > f.table.maxMappings/2 || f.mapNothing(page.Off, page.End) != nil {
			f.table.holeRuns.Add(-runs)
			return filled
		}
		if c.holes.pages == nil {
			c.holes.pages = make(map[int64]bool)
		}
		c.holes.pages[at/paging.PageSize] = true
		filled = true
	}
	return filled
}

// isHole reports whether the file has a page and nothing in it.
func (f *File) isHole(page paging.Range) bool {
	var buf [1 << 16]byte // as large as pages get
	f.beforeRead(true)
	n, err := f.sys.Pread(f.fd, buf[:page.Len()], page.Off)
	if err != nil || n == 0 {
		return false
	}
	for _, b := range buf[:n] {
		if b != 0 {
			return false
		}
	}
	return true
}

// emptyHolesLocked gives the pages of g back to the file. f.syncMu and f.mu must be held,
// the latter exclusively.
func (f *File) emptyHolesLocked(g paging.Range) error {
	for _, page := range f.copies.holes.in(g) {
		if err := f.mapFilePart(page*paging.PageSize, (page+1)*paging.PageSize); err != nil {
			return err
		}
		f.forgetHole(page)
	}
	return nil
}

// forgetHolesLocked forgets the pages of g, which are not the file's any more. f.mu must
// be held exclusively.
func (f *File) forgetHolesLocked(g paging.Range) {
	for _, page := range f.copies.holes.in(g) {
		f.forgetHole(page)
	}
}

func (f *File) forgetHole(page int64) {
	h := &f.copies.holes
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pages, page)
	f.table.holeRuns.Add(h.neighboursLocked(page) - 1)
}

// piecesLocked returns the parts of the mapping, of length bytes, that each are one area
// of the kernel's: mremap(2) moves one at a time. f.mu must be held exclusively, and
// f.syncMu.
func (f *File) piecesLocked(length int64) (pieces []paging.Range) {
	cuts := []int64{0, f.copies.fileEnd, length}
	for _, page := range f.copies.holes.in(paging.WholeFile) {
		cuts = append(cuts, page*paging.PageSize, (page+1)*paging.PageSize)
	}
	for _, g := range f.locked {
		cuts = append(cuts, g.Off, g.End)
	}
	slices.Sort(cuts)
	for i, at := range cuts[1:] {
		if piece := (paging.Range{Off: cuts[i], End: at}).Intersect(paging.Range{Off: 0, End: length}); !piece.Empty() {
			pieces = append(pieces, piece)
		}
	}
	return pieces
}

// whyFaulted returns the errno for a store to a file that copies that faulted. A page is
// gone, with its copy: the backing file was truncated by others (EIO). Or there is no
// room for a hole of it on a filesystem in memory (ENOSPC). f.mu must be held.
func (f *File) whyFaulted(g paging.Range) syscall.Errno {
	g = paging.Range{Off: paging.PageDown(g.Off), End: g.End}.Intersect(paging.Range{Off: 0, End: f.copies.fileEnd})
	for at := g.Off; f.FillsHoles && at < g.End; at += paging.PageSize {
		if page := (paging.Range{Off: at, End: at + paging.PageSize}); !f.record.All(page, dirty.Copied) && f.isHole(page) {
			return syscall.ENOSPC
		}
	}
	return syscall.EIO
}
