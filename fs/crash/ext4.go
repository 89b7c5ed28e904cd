package crash

import (
	"math"
	"slices"
)

// Ext4 is ext4 with its defaults: data=ordered, delayed allocation, auto_da_alloc.
//
// Sources, of Linux:
//   - Documentation/filesystems/ext4/journal.rst: operations on names, attributes and
//     sizes are handles of one journal, which is replayed up to a whole transaction. So
//     they survive as a prefix of their order, and an fsync(2) commits all before it:
//     fs/ext4/fsync.c, ext4_fsync_journal, commits the newest transaction that the inode
//     is in. A file that nothing has changed since the last commit is in none. For a
//     directory it commits what there is, whether the directory was changed or not.
//   - Documentation/admin-guide/ext4.rst, data=ordered: "all data is forced directly out
//     to the main file system prior to its metadata being committed to the journal". With
//     delayed allocation the size on disk grows when the blocks are allocated
//     (fs/ext4/inode.c, mpage_map_and_submit_extent), in a transaction of that moment. So
//     what makes a file longer survives only with all names before it, and with the bytes
//     below it.
//   - The same, auto_da_alloc: "replace via rename" and "replace via truncate" allocate
//     the blocks of the file at the rename and at the close (fs/ext4/namei.c,
//     ext4_rename; fs/ext4/file.c, ext4_release_file). So the rename, and what comes after
//     the close, survives only with the bytes. (The flush is started and not waited for. With
//     dioread_nolock, the default since 5.6, a commit in the milliseconds until the device
//     has the bytes leaves zeros; the model takes what was flushed for written.)
//   - ext4_setattr: a truncation sets the size on disk in the journal at once. So does
//     fallocate(2) (fs/ext4/extents.c, ext4_alloc_file_blocks), and a write that makes the
//     file longer inside a block that it has already (fs/ext4/inode.c,
//     ext4_da_should_update_i_disksize): no block is allocated for it, so its bytes are not
//     ordered, and a power cut can leave zeros in their place. Not if that block is a hole.
type Ext4 struct{}

// Name is "ext4".
func (Ext4) Name() string { return "ext4" }

// orders: the journal's operations.
func (Ext4) orders(op *Op) bool { return !op.Kind.isData() || op.Kind == Truncate || op.onlyGrows() }

// early: the size up to the end of the file's last block, if that is allocated; of a
// fallocate(2) all of it.
func (Ext4) early(l *Log, ops *inodeOps, op *Op) int64 {
	defer l.noteHoles(op)
	switch {
	case !op.extends() || op.Kind == Truncate || op.onlyGrows():
		return 0
	case op.Kind == Fallocate:
		return op.Size
	}
	block := op.OldSize / l.page * l.page
	if block == op.OldSize || op.Off >= block+l.page || l.isHole(op.Inode, block) {
		return 0 // no byte of it is in that block, or that is not allocated
	}
	for i, p := range ops.data {
		delayed := p.extends() && p.Kind != Truncate && !p.durable && p.flushed == 0 && p.Size > block && p.early < min(p.Size, block+l.page)
		if delayed && !isCutOff(max(p.OldSize, block), ops.data[i+1:]) {
			return 0 // its bytes in the block wait for their place
		}
	}
	return min(op.Size, block+l.page)
}

// noteHoles notes which blocks of its file an operation gives a place, or leaves without one.
func (l *Log) noteHoles(op *Op) {
	up := func(size int64) int64 { return (size + l.page - 1) / l.page * l.page }
	holes, from, end := l.holes[op.Inode], op.Off/l.page*l.page, up(op.Off+op.Length)
	switch {
	case op.Kind == Truncate:
		from, end = up(op.Size), math.MaxInt64 // cut off
		if op.extends() {
			holes = append(holes, span{up(op.OldSize), from})
		}
	case op.extends():
		end = max(end, up(op.Size))
		holes = append(holes, span{up(op.OldSize), from})
	}
	var left []span
	for _, h := range holes {
		for _, part := range [...]span{{h.off, min(h.end, from)}, {max(h.off, end), h.end}} {
			if part.off < part.end {
				left = append(left, part)
			}
		}
	}
	left = left[max(len(left)-mostHoles, 0):]
	if l.holes[op.Inode] = left; len(left) == 0 {
		delete(l.holes, op.Inode)
	}
}

// mostHoles bounds the holes of a file that are known: those at its end count, the others are
// taken for allocated.
const mostHoles = 64

// isHole reports whether the block at an offset of a file has no place.
func (l *Log) isHole(i Inode, block int64) bool {
	return slices.ContainsFunc(l.holes[i], func(h span) bool { return h.off <= block && block < h.end })
}

// commits: everything in the journal, and what was flushed, unless it is the sync of a file
// that is in no transaction that is not committed. One that gets longer by the sync itself is.
func (Ext4) commits(l *Log, s Sync) []*Op {
	if !s.IsDir && !l.isInTransaction(s) {
		return nil
	}
	l.orderedAt = l.last
	ops := l.ordered
	for _, op := range l.early {
		op.sized = true
	}
	l.ordered, l.early = nil, nil
	clear(l.byDir) // nothing in it is pending any more
	return ops
}

// isInTransaction reports whether a sync of a file finds it in a transaction.
func (l *Log) isInTransaction(s Sync) bool {
	in := l.inodes[s.Inode]
	if in == nil {
		return false
	}
	newest := in.changed
	if s.DataOnly {
		newest = in.reached
	}
	longer := slices.ContainsFunc(in.data, func(op *Op) bool { return !op.durable && op.extendsWithBytes() })
	return newest > l.orderedAt || longer
}

// flushes: a file that replaces another by rename is flushed.
func (Ext4) flushes(l *Log, op *Op) []*Op {
	if in := l.inodes[op.Inode]; op.replaces() && in != nil {
		return flush(in.data)
	}
	return nil
}

// flush returns the changes of a file's bytes that it writes when its blocks are to get their
// place: all, if there are such blocks (fs/ext4/inode.c, ext4_alloc_da_blocks).
func flush(data []*Op) (flushed []*Op) {
	waits := false
	for i, p := range data {
		if p.allocates() && !p.durable && !p.placed && !isCutOff(p.OldSize, data[i+1:]) {
			p.placed, waits = true, true
		}
	}
	for i, p := range data {
		if waits && p.Kind != Truncate && !p.onlyGrows() && !isCutOff(p.Off, data[i+1:]) {
			flushed = append(flushed, p)
		}
	}
	return flushed
}

// isCutOff reports whether operations cut off all bytes from off on.
func isCutOff(off int64, later []*Op) bool {
	return slices.ContainsFunc(later, func(p *Op) bool { return p.Kind == Truncate && p.Size <= off })
}

// closed: after a truncation to nothing the next close flushes the file, whoever had it
// open (fs/ext4/file.c, ext4_release_file, which then forgets the truncation).
func (Ext4) closed(l *Log, ops *inodeOps) {
	at := slices.IndexFunc(ops.data, func(op *Op) bool { return op.Kind == Truncate && op.Size == 0 && !op.closed })
	if at < 0 {
		return
	}
	for _, op := range ops.data[at:] {
		op.closed = true
	}
	for _, op := range flush(ops.data[at:]) {
		if op.flushed == 0 && !op.durable {
			op.flushed = l.last
			l.ordered = append(l.ordered, op)
		}
	}
}

func (e Ext4) refuses(op *Op, d *dropped, off, end int64) *lack {
	if e.orders(op) {
		if d.ordered != nil && op.Number > d.orderedAt {
			return &lack{d.ordered, "the journal of ext4 survives in its order, and %s is before it"}
		}
		if op.replaces() {
			for _, p := range op.flushes {
				if d.lost[p] {
					return &lack{p, "ext4 writes the bytes of a file that replaces another before the rename, and %s has some"}
				}
			}
		}
		return nil
	}
	// Only what is past the old end needs the journal.
	if !op.extends() || end <= op.OldSize {
		return nil
	}
	if op.early > 0 && d.ordered != nil && op.Number >= d.orderedAt {
		return &lack{d.ordered, "the file gets longer in the journal of ext4, where %s is before it"}
	}
	if end <= op.early {
		return nil
	}
	if d.ordered != nil && op.Number > d.orderedAt {
		return &lack{d.ordered, "the file gets longer in the journal of ext4, where %s is before it"}
	}
	if missing := d.file(op.Inode).growth; missing != nil {
		return &lack{missing, "a file of ext4 gets longer only with the bytes below, and %s has some"}
	}
	return nil
}
