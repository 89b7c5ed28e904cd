package explicit

import (
	"math"
	"slices"

	"mapfs/mapping"
	"mapfs/mapping/paging"
)

// mixedModel is what a file should be beside explicit mappings, and others who change
// the backing file. The pages that the engine has copied are kept whole, as they are in
// memory: what a private page has past the end of the file stays in it (mmap(2)).
type mixedModel struct {
	mode     mapping.Mode
	backing  []byte
	size     int
	copies   map[int][]byte // the pages in memory only
	unsynced map[int]bool   // pages; nothing is said of those of a shared file
	// own says that the size is the engine's, and cut where the backing file's bytes
	// end for it.
	own bool
	cut int
	// least is the least size the backing file had since it was looked at last: what
	// was beyond has left private mappings (truncate(2)).
	least int
}

func newMixedModel(mode mapping.Mode, backing []byte) *mixedModel {
	return &mixedModel{
		mode: mode, backing: slices.Clone(backing), size: len(backing), cut: math.MaxInt,
		copies: make(map[int][]byte), unsynced: make(map[int]bool), least: len(backing),
	}
}

// page returns the bytes of a page that the file shows, past its end too.
func (m *mixedModel) page(i int) []byte {
	if c := m.copies[i]; c != nil {
		return c
	}
	limit := len(m.backing)
	if m.own && m.cut < limit {
		// The page where the bytes end has a copy with zeros, or was given up when
		// there was nothing behind them: then it is the file's page as it is.
		limit = min(limit, (m.cut+int(paging.PageSize)-1)/int(paging.PageSize)*int(paging.PageSize))
	}
	page := make([]byte, paging.PageSize)
	if at := i * int(paging.PageSize); at < limit {
		copy(page, m.backing[at:limit])
	}
	return page
}

// content returns all that the file has.
func (m *mixedModel) content() []byte {
	var all []byte
	for i := 0; i*int(paging.PageSize) < m.size; i++ {
		all = append(all, m.page(i)...)
	}
	return all[:m.size]
}

// setBacking makes the backing file size bytes long.
func (m *mixedModel) setBacking(size int) {
	m.least = min(m.least, size)
	if size > len(m.backing) {
		m.backing = append(m.backing, make([]byte, size-len(m.backing))...)
	}
	m.backing = m.backing[:size:size]
}

// copyPage copies a page, unless it is, and notes that it is unsynced.
func (m *mixedModel) copyPage(i int) []byte {
	if m.copies[i] == nil {
		m.copies[i] = m.page(i)
	}
	m.unsynced[i] = true
	return m.copies[i]
}

// resize is a truncation through the engine.
func (m *mixedModel) resize(size int) {
	if m.mode == mapping.Shared {
		m.setBacking(size)
		m.size = size
		return
	}
	old := m.size
	if size == old {
		return
	}
	if !m.own {
		m.own, m.cut = true, old
	}
	tail := func(at int) { // the rest of the page from at on is zero from now on
		if in := at % int(paging.PageSize); in != 0 {
			clear(m.copyPage(at / int(paging.PageSize))[in:])
		}
	}
	if size < old {
		m.size, m.cut = size, min(m.cut, size)
		tail(size)
		m.forget(size)
		return
	}
	tail(old)
	m.copyPage((size - 1) / int(paging.PageSize))
	m.size = size
}

// forget drops the pages wholly past size.
func (m *mixedModel) forget(size int) {
	for _, i := range m.known() {
		if i*int(paging.PageSize) >= size {
			delete(m.copies, i)
			delete(m.unsynced, i)
		}
	}
}

// known returns the pages of which there is something to say, in order.
func (m *mixedModel) known() (pages []int) {
	for i := range m.copies {
		pages = append(pages, i)
	}
	for i := range m.unsynced {
		if m.copies[i] == nil {
			pages = append(pages, i)
		}
	}
	slices.Sort(pages)
	return pages
}

// store is a write through the engine.
func (m *mixedModel) store(data []byte, at int) {
	end := at + len(data)
	if m.mode == mapping.Shared {
		if end > m.size {
			m.resize(end)
		}
		copy(m.backing[at:], data)
		return
	}
	if end > m.size {
		if !m.own {
			m.own, m.cut = true, m.size
		}
		if in := m.size % int(paging.PageSize); in != 0 {
			clear(m.copyPage(m.size / int(paging.PageSize))[in:])
		}
		m.size = max(m.size, end)
	}
	for len(data) > 0 {
		page := m.copyPage(at / int(paging.PageSize))
		n := copy(page[at%int(paging.PageSize):], data)
		data, at = data[n:], at+n
	}
}

// punch makes the bytes [at, end) zero. Pages that are zero there are not copied.
func (m *mixedModel) punch(at, end int) {
	end = min(end, m.size)
	for at < end {
		next := min((at/int(paging.PageSize)+1)*int(paging.PageSize), end)
		in := at % int(paging.PageSize)
		if m.mode == mapping.Shared {
			clear(m.backing[at:next])
		} else if part := m.page(at / int(paging.PageSize))[in : in+next-at]; !allZero(part) {
			clear(m.copyPage(at / int(paging.PageSize))[in : in+next-at])
		}
		at = next
	}
}

func allZero(p []byte) bool { return !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) }

// sync is write-back of the pages [first, end), to the device or only to the file.
func (m *mixedModel) sync(first, end int, toDevice bool) {
	if m.mode != mapping.Staged {
		return
	}
	if m.own && m.cut < len(m.backing) {
		m.setBacking(m.cut)
	}
	for _, i := range m.known() {
		if i < first || i >= end || !m.unsynced[i] {
			continue
		}
		if c := m.copies[i]; c != nil {
			from, to := i*int(paging.PageSize), min((i+1)*int(paging.PageSize), m.size)
			if to > len(m.backing) {
				m.setBacking(to)
			}
			copy(m.backing[from:to], c)
			delete(m.copies, i)
		}
		if toDevice {
			delete(m.unsynced, i)
		}
	}
	if m.own {
		m.setBacking(m.size)
		m.cut = math.MaxInt
	}
}

// discard gives every copy up, and the size.
func (m *mixedModel) discard() {
	for _, i := range m.known() {
		if m.copies[i] != nil {
			delete(m.copies, i)
			delete(m.unsynced, i)
		}
	}
	m.own, m.cut, m.size = false, math.MaxInt, len(m.backing)
	m.forget(m.size)
}

// follow takes over what others have done to the backing file's size.
func (m *mixedModel) follow() {
	if m.mode == mapping.Shared || !m.own {
		if len(m.backing) < m.size {
			m.forget(len(m.backing))
		}
		m.size = len(m.backing)
	}
}
