// Package oracle has a model of the rules in package crash that is plain and slow, for
// tests to hold the fast one to: it keeps every operation ever, compares each with each,
// and replays them from an empty tree. A player makes random operations that can happen.
package oracle

import (
	"fmt"
	"slices"
	"strings"

	"mapfs/fs/crash"
)

// Root is the inode of the tree's root.
const Root crash.Inode = 1

// Model is the slow model of one tree.
type Model struct {
	Name string // of the rules: posix or ext4
	Page int64  // bytes
	Ops  []*Done

	committed int // how many operations there were at the last commit of the journal
}

// Done is an operation that was done.
type Done struct {
	crash.Op
	Data []byte

	Durable bool
	waits   map[crash.Inode]bool
	synced  bool // a sync of the file itself has the bytes
	flushed int
	// flushes are what a rename over another file has written before, placed that its blocks
	// have a place.
	flushes []*Done
	placed  bool
	closed  bool // the file was closed after it
	// early is a size that the journal of ext4 has without the bytes, sized that it was
	// committed.
	early int64
	sized bool
}

// Add notes an operation, and gives it its number.
func (m *Model) Add(op crash.Op, data []byte) {
	d := &Done{Op: op, Data: data, waits: make(map[crash.Inode]bool)}
	d.Number = uint64(len(m.Ops) + 1)
	if isName(&op) {
		for _, e := range d.entries() {
			d.waits[e.Dir] = true
		}
	}
	d.early = m.early(d)
	if m.Name == "ext4" && d.Kind == crash.Rename && d.Replaced != 0 {
		d.flushes = m.flush(d.Inode, m.Ops)
	}
	m.Ops = append(m.Ops, d)
}

// early returns the size that is in the journal of ext4 at once: of a fallocate, and of a
// write in the last block of a file, if that is allocated.
func (m *Model) early(d *Done) int64 {
	block := d.OldSize / m.Page * m.Page
	switch {
	case m.Name != "ext4" || !isData(&d.Op) || !longer(&d.Op) || d.Kind == crash.Truncate:
		return 0
	case onlyGrows(d):
		return 0
	case d.Kind == crash.Fallocate:
		return d.Size
	case block == d.OldSize || d.Off >= block+m.Page || !m.isAllocated(d.Inode, block):
		return 0
	}
	end := block + m.Page
	for _, i := range m.Ops {
		delayed := i.Inode == d.Inode && isData(&i.Op) && i.Kind != crash.Truncate && !i.Durable && i.flushed == 0
		if delayed && longer(&i.Op) && i.Size > block && i.early < min(i.Size, end) && !m.cutBetween(i, d, max(i.OldSize, block)) {
			return 0
		}
	}
	return min(d.Size, end)
}

// isAllocated reports whether the block at an offset of a file has, or will have, a place.
func (m *Model) isAllocated(inode crash.Inode, block int64) (allocated bool) {
	for _, d := range m.Ops {
		switch {
		case d.Inode != inode || !isData(&d.Op):
		case d.Kind == crash.Truncate:
			allocated = allocated && d.Size > block
		default:
			end := d.Off + d.Length
			if longer(&d.Op) {
				end = max(end, d.Size)
			}
			allocated = allocated || d.Off < block+m.Page && end > block
		}
	}
	return allocated
}

// allocates reports whether it makes its file longer by blocks that wait for their place.
func allocates(d *Done) bool {
	return isData(&d.Op) && longer(&d.Op) && d.Size > d.early && !onlyGrows(d)
}

// onlyGrows reports whether a fallocate does nothing but make its file longer.
func onlyGrows(d *Done) bool { return d.Kind == crash.Fallocate && d.Length == 0 }

func isName(op *crash.Op) bool { return op.Kind <= crash.Rename }
func isData(op *crash.Op) bool { return op.Kind >= crash.Write && op.Kind <= crash.Fallocate }
func longer(op *crash.Op) bool { return op.Size > op.OldSize }

func (d *Done) entries() []crash.Entry {
	if d.Kind == crash.Rename {
		return []crash.Entry{d.Entry, d.To}
	}
	return []crash.Entry{d.Entry}
}

// emptied returns the directory that must be empty for it, or 0.
func (d *Done) emptied() crash.Inode {
	switch {
	case d.Kind == crash.Rmdir:
		return d.Inode
	case d.Kind == crash.Rename && d.ReplacedDir:
		return d.Replaced
	}
	return 0
}

func (d *Done) needsInode(i crash.Inode) bool {
	return i != 0 && (d.Inode == i || d.Replaced == i || d.Entry.Dir == i || d.To.Dir == i)
}

// pages returns the pages whose bytes it changes.
func (m *Model) pages(d *Done) (pages []int64) {
	for at := d.Off / m.Page; d.Length > 0 && at*m.Page < d.Off+d.Length; at++ {
		pages = append(pages, at)
	}
	return pages
}

// needs reports whether j cannot survive without i, which is earlier.
func (m *Model) needs(i, j *Done) bool {
	switch {
	case isName(&i.Op) && isName(&j.Op):
		if namesNeed(i, j) {
			return true
		}
	case isData(&i.Op) && isData(&j.Op) && i.Inode == j.Inode:
		if m.dataNeeds(i, j) {
			return true
		}
	case !isData(&i.Op) && !isData(&j.Op) && !isName(&i.Op) && !isName(&j.Op):
		if i.Inode == j.Inode && i.Attr == j.Attr {
			return true
		}
	}
	if m.Name != "ext4" {
		return false
	}
	if inJournal(i) && (inJournal(j) || longer(&j.Op)) {
		return true
	}
	if i.flushed > 0 && int(j.Number) > i.flushed && (inJournal(j) || longer(&j.Op)) {
		return true
	}
	return slices.Contains(j.flushes, i)
}

// flush returns the changes of a file's bytes since the first of some operations that it
// writes when it is flushed: all, if any of its blocks have no place yet.
func (m *Model) flush(inode crash.Inode, since []*Done) (flushed []*Done) {
	end := &Done{}
	end.Number = uint64(len(m.Ops) + 1)
	waits := false
	for _, d := range since {
		if d.Inode == inode && allocates(d) && d.Kind != crash.Truncate && !d.Durable && !d.placed && !m.cutBetween(d, end, d.OldSize) {
			d.placed, waits = true, true
		}
	}
	for _, d := range since {
		if waits && d.Inode == inode && isData(&d.Op) && !d.synced && d.Kind != crash.Truncate && !onlyGrows(d) && !m.cutBetween(d, end, d.Off) {
			flushed = append(flushed, d)
		}
	}
	return flushed
}

func inJournal(d *Done) bool { return !isData(&d.Op) || d.Kind == crash.Truncate || onlyGrows(d) }

func namesNeed(i, j *Done) bool {
	for _, a := range i.entries() {
		if slices.Contains(j.entries(), a) || a.Dir == j.emptied() {
			return true
		}
	}
	return i.Kind == crash.Rename && i.IsDir && i.Entry.Dir != i.To.Dir && slices.Contains(j.Above, i.Inode)
}

func (m *Model) dataNeeds(i, j *Done) bool {
	if i.Kind == crash.Truncate {
		if j.Kind == crash.Truncate || longer(&j.Op) {
			return true
		}
		from := min(i.Size, i.OldSize) / m.Page
		return slices.ContainsFunc(m.pages(j), func(page int64) bool { return page >= from })
	}
	if j.Kind == crash.Truncate {
		return false
	}
	for _, page := range m.pages(i) {
		if slices.Contains(m.pages(j), page) && !m.cutBetween(i, j, page*m.Page) {
			return true
		}
	}
	return m.Name == "ext4" && allocates(i) && allocates(j) && !m.cutBetween(i, j, i.OldSize)
}

// cutBetween reports whether a truncation between two operations took everything from at
// on.
func (m *Model) cutBetween(i, j *Done, at int64) bool {
	for _, t := range m.Ops[i.Number : j.Number-1] {
		if t.Kind == crash.Truncate && t.Inode == i.Inode && t.Size <= at {
			return true
		}
	}
	return false
}

// commits reports whether a sync commits the journal of ext4.
func (m *Model) commits(y crash.Sync) bool {
	commit, mentioned := false, false
	for _, d := range m.Ops {
		isNew := int(d.Number) > m.committed
		reached := d.Inode == y.Inode && (d.Kind < crash.Link || isData(&d.Op) && d.Size != d.OldSize) ||
			d.Entry.Dir == y.Inode || d.To.Dir == y.Inode
		commit = commit || isNew && !y.DataOnly && d.needsInode(y.Inode) || isNew && reached ||
			d.Inode == y.Inode && !d.Durable && allocates(d)
		mentioned = mentioned || d.needsInode(y.Inode) && (!d.Durable || isData(&d.Op) && !d.synced)
	}
	return y.IsDir || commit && mentioned // what no pending operation speaks of is taken for unchanged
}

// Sync makes durable what a sync does.
func (m *Model) Sync(y crash.Sync) {
	commit := m.Name == "ext4" && m.commits(y)
	if commit {
		m.committed = len(m.Ops)
	}
	for _, d := range m.Ops {
		d.sized = d.sized || commit && d.early > 0
		switch {
		case isData(&d.Op) && d.Inode == y.Inode:
			d.Durable, d.synced = true, true
		case commit && (inJournal(d) || d.flushed > 0):
			d.Durable = true
		case m.Name == "posix" && isName(&d.Op):
			delete(d.waits, y.Inode)
			d.Durable = d.Durable || len(d.waits) == 0
		case m.Name == "posix" && !isData(&d.Op) && d.Inode == y.Inode && !y.DataOnly:
			d.Durable = true
		}
	}
	for again := true; again; {
		again = false
		for _, j := range m.Ops {
			for _, i := range m.Ops[:j.Number-1] {
				takes := !isData(&i.Op) || m.Name == "ext4" && j.Kind == crash.Rename && i.Inode == j.Inode
				if j.Durable && !i.Durable && !isData(&j.Op) && takes && m.needs(i, j) {
					i.Durable, again = true, true
				}
			}
		}
	}
}

// Closed notes that a file was closed: after a truncation to nothing it is flushed then.
func (m *Model) Closed(inode crash.Inode) {
	for i, d := range m.Ops {
		if d.Inode != inode || d.Kind != crash.Truncate || d.Size != 0 || d.synced || d.closed {
			continue
		}
		for _, later := range m.Ops[i:] {
			later.closed = later.closed || later.Inode == inode // a later close has no reason
		}
		for _, f := range m.flush(inode, m.Ops[i:]) {
			if f.flushed == 0 && !f.Durable {
				f.flushed = len(m.Ops)
			}
		}
		return
	}
}

// Bury takes changes of the bytes and attributes of inodes that no crash state has any more
// for durable: nobody misses them.
func (m *Model) Bury() {
	alive := make(map[crash.Inode]bool)
	for _, names := range m.Left(nil).Dirs {
		for _, inode := range names {
			alive[inode] = true
		}
	}
	for _, d := range m.Ops {
		if !d.Durable && isName(&d.Op) {
			alive[d.Inode], alive[d.Replaced] = true, true
		}
	}
	for _, d := range m.Ops {
		if !isName(&d.Op) && !alive[d.Inode] && d.Inode != Root {
			d.Durable = true
		}
	}
}

// Pending returns the numbers of the pending operations, in order.
func (m *Model) Pending() (numbers []uint64) {
	for _, d := range m.Ops {
		if !d.Durable {
			numbers = append(numbers, d.Number)
		}
	}
	return numbers
}

// Legal reports whether a set of pending operations can survive.
func (m *Model) Legal(keep map[uint64]bool) bool {
	for _, j := range m.Ops {
		if j.Durable || !keep[j.Number] {
			continue
		}
		for _, i := range m.Ops[:j.Number-1] {
			if !i.Durable && !keep[i.Number] && m.needs(i, j) {
				return false
			}
		}
	}
	return true
}

// Left returns the tree with what is durable and what is kept.
func (m *Model) Left(keep map[uint64]bool) *World {
	last := uint64(0)
	for _, d := range m.Ops {
		if keep[d.Number] && !d.Durable && (inJournal(d) || longer(&d.Op)) {
			last = d.Number
		}
	}
	return m.replay(func(d *Done) bool { return d.Durable || keep[d.Number] }, func(d *Done) bool { return d.sized || d.Number <= last })
}

// LeftWithSizes returns the trees that Left can be, by how many early sizes have survived
// beside what is kept: a commit of the journal can have come at any moment.
func (m *Model) LeftWithSizes(keep map[uint64]bool) (worlds []*World) {
	worlds = append(worlds, m.Left(keep))
	for _, d := range m.Ops {
		lost := !d.Durable && !keep[d.Number]
		if lost && inJournal(d) {
			break // and so no size after it
		}
		if d.early > 0 && lost {
			worlds = append(worlds, m.replay(func(d *Done) bool { return d.Durable || keep[d.Number] },
				func(o *Done) bool { return o.sized || o.Number <= d.Number }))
		}
	}
	return worlds
}

// Synced returns the tree with what is durable, but of the bytes only what syncs of the
// files themselves have made so: what is where files are stored.
func (m *Model) Synced() *World {
	none := func(*Done) bool { return false }
	return m.replay(func(d *Done) bool { return d.Durable && (!isData(&d.Op) || d.synced) }, none)
}

// replay makes a tree of some of the operations, and of the early sizes of others.
func (m *Model) replay(of, sized func(*Done) bool) *World {
	w := NewWorld()
	for _, d := range m.Ops {
		switch d.Kind { // whose name can come without it
		case crash.Mkdir:
			w.Dirs[d.Inode] = make(map[string]crash.Inode)
		case crash.Create, crash.Mknod, crash.Symlink:
			w.Files[d.Inode] = nil
		}
	}
	for _, d := range m.Ops {
		if of(d) {
			w.Do(&d.Op, d.Data)
		} else if d.early > 0 && sized(d) {
			w.Files[d.Inode] = Resized(w.Files[d.Inode], max(d.early, int64(len(w.Files[d.Inode]))))
		}
	}
	return w
}

// String lists the operations.
func (m *Model) String() string {
	var b strings.Builder
	for _, d := range m.Ops {
		fmt.Fprintf(&b, "%d %v inode %d %v %v replaced %d off %d length %d size %d to %d durable %v flushed %d %.20q\n",
			d.Number, d.Kind, d.Inode, d.Entry, d.To, d.Replaced, d.Off, d.Length, d.OldSize, d.Size, d.Durable, d.flushed, d.Data)
	}
	return b.String()
}
